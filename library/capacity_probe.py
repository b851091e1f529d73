#!/usr/bin/python
"""Ansible module: how many sessions an on-prem model holds at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.router import capacity, files

DOCUMENTATION = r"""
module: capacity_probe
short_description: How many sessions an on-prem model holds at once
description:
  - Starts O(soap) notes and O(chat) chats on one on-prem leg at the same moment, O(tokens) tokens each, and measures
    every stream. How long a whole note takes at this pace is told, and judged where notes are whole (days 5 and 8).
  - A session holds when its stream comes to its end and its first token stays within O(first_token_s) (a note) or
    O(chat_first_token_s) (a chat).
author: gpu-cutover
options:
  route:
    description: Route whose on-prem leg is loaded.
    type: str
    default: chat
  soap:
    description: SOAP sessions at once.
    type: int
    required: true
  chat:
    description: Chat sessions at once.
    type: int
    required: true
  tokens:
    description: Tokens per session.
    type: int
    default: 48
  first_token_s:
    description: Seconds to the first token of a note.
    type: float
    required: true
  chat_first_token_s:
    description: Seconds to the first token of a chat.
    type: float
    required: true
  timeout_s:
    description: Seconds of silence after which a session has failed.
    type: float
    default: 60
  tables:
    description: Where the route tables live.
    type: path
    default: /etc/gpu-cutover/router
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: 12 notes and 30 chats at once
  capacity_probe:
    soap: 12
    chat: 30
    first_token_s: 2
    chat_first_token_s: 10
  register: reading_capacity
"""

RETURN = r"""
reading:
  description: C(concurrent_soap) and C(concurrent_chat) that held, with the slowest first token and note.
  type: dict
  returned: always
"""


def _reading(params: dict[str, Any], sessions: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    soap, chat = sessions["soap"], sessions["chat"]
    first = [one["first_byte_s"] for one in soap + chat if one["ok"]]
    notes = [one["note_s"] for one in soap if one["ok"]]
    return {
        "concurrent_soap": _held(soap, params["first_token_s"]),
        "concurrent_chat": _held(chat, params["chat_first_token_s"]),
        "slowest_first_token_s": max(first, default=None),
        "slowest_note_s": max(notes, default=None),
        "errors": sorted({one["error"] for one in soap + chat if not one["ok"]}),
    }


def _held(sessions: list[dict[str, Any]], first_token_s: float) -> int:
    return sum(bool(one["ok"] and one["first_byte_s"] <= first_token_s) for one in sessions)


def main() -> None:
    """Arguments, one load, one reading."""
    module = AnsibleModule(
        argument_spec={
            "route": {"type": "str", "default": "chat"},
            "soap": {"type": "int", "required": True},
            "chat": {"type": "int", "required": True},
            "tokens": {"type": "int", "default": 48, "no_log": False},
            "first_token_s": {"type": "float", "required": True, "no_log": False},
            "chat_first_token_s": {"type": "float", "required": True, "no_log": False},
            "timeout_s": {"type": "float", "default": 60.0},
            "tables": {"type": "path", "default": "/etc/gpu-cutover/router"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, reading={"error": "a dry run loads nothing"})
    try:
        table = files.read_table(Path(params["tables"]) / "hybrid.json")
        leg = table.onprem[table.placement][params["route"]]
    except (InputError, KeyError) as error:
        module.exit_json(changed=False, reading={"error": f"no on-prem leg for {params['route']}: {error}"})
    asked = {"url": leg.url, "path": leg.path, "model": leg.model}
    sessions = capacity.run(asked, params["soap"], params["chat"], params["tokens"], params["timeout_s"])
    module.exit_json(changed=False, reading=_reading(params, sessions))


if __name__ == "__main__":
    main()
