#!/usr/bin/python
"""Ansible module: the watch over a tenant that was cut over."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.router import files
from ansible.module_utils.gpu_cutover.router.journal import JOURNAL, Journal
from ansible.module_utils.gpu_cutover.watch import state as states

DOCUMENTATION = r"""
module: tenant_watch
short_description: The watch over a tenant that was cut over
description:
  - Begins a watch of the tenant on this gateway, or joins the one that runs, and waits up to O(wait_s) for its end.
  - A watch that ended clean stands until the tenant's routes change; then, and after any other end, a new one begins.
  - The watch is a unit of its own. It goes on without controller and after a reboot, and takes the tenant back
    by itself.
author: gpu-cutover
options:
  tenant:
    description: The tenant.
    type: str
    required: true
  duration_s:
    description: How long the watch lasts, in seconds.
    type: float
    required: true
  requests_min:
    description: Requests without which the watch proves nothing.
    type: int
    required: true
  error_rate_max:
    description: Share of failed requests (0..1) above which the tenant goes back.
    type: float
    required: true
  slow_s:
    description: Seconds by workload that 95 % of the answers must stay within.
    type: dict
    default: {}
  observe_only:
    description: Tell, but change nothing.
    type: bool
    default: false
  wait_s:
    description: Seconds to wait for the end in this call.
    type: float
    default: 20
  directory:
    description: Where the watches' state lives.
    type: path
    default: /var/lib/gpu-cutover/watch
  tables:
    description: Where the route tables live.
    type: path
    default: /etc/gpu-cutover/router
  journal:
    description: The gateway's journal of route changes.
    type: path
    default: /var/lib/gpu-cutover/changes.jsonl
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Watch Doc Zam for a day
  tenant_watch:
    tenant: doc-zam
    duration_s: 86400
    requests_min: 200
    error_rate_max: 0.05
  register: watch
  until: watch.reading.verdict != 'running'
  retries: 4400
  delay: 0
"""

RETURN = r"""
begun:
  description: Whether this call began a new watch.
  type: bool
  returned: always
ended:
  description: Whether this is the first call that sees the end; its caller records it.
  type: bool
  returned: always
changes:
  description: The gateway's latest changes of routes, for C(record_changes).
  type: list
  returned: always
reading:
  description: Tenant, verdict (running, clean, short, bad, rolled_back), reason, counts, error_rate, rollback.
  type: dict
  returned: always
"""

TOLD_CHANGES = 100


def _changed_at(tables: Path, tenant: str) -> float | None:
    """When the tenant's routes last changed, as the tables tell it."""
    for pool in ("hybrid", "sealed"):
        try:
            entry = files.read_table(tables / f"{pool}.json").tenants.get(tenant)
        except InputError:
            continue
        if entry and entry.changed:
            return datetime.fromisoformat(entry.changed.replace("Z", "+00:00")).timestamp()
    return None


def _begin(module: AnsibleModule, path: Path) -> dict[str, Any]:
    keys = ("duration_s", "requests_min", "error_rate_max", "slow_s", "observe_only")
    state: dict[str, Any] = states.fresh(
        module.params["tenant"], time.time(), {key: module.params[key] for key in keys}
    )
    if not module.check_mode:
        states.write(path, state)
    return state


def _start_unit(module: AnsibleModule) -> None:
    unit = f"gpu-cutover-watch@{module.params['tenant']}.service"
    rc, _, _ = module.run_command(["systemctl", "is-active", "--quiet", unit])
    if rc == 0:
        return
    rc, _, error = module.run_command(["systemctl", "enable", "--quiet", "--now", unit])
    if rc:
        module.fail_json(msg=f"{unit} does not start: {error.strip()}")


def _wait(module: AnsibleModule, path: Path, state: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + module.params["wait_s"]
    while state["verdict"] == states.RUNNING and time.monotonic() < deadline:
        time.sleep(0.25)
        state = states.read(path) or state
    return state


def _reading(state: dict[str, Any]) -> dict[str, Any]:
    counts = state["counts"] or {"requests": 0, "errors": 0, "slow": 0, "timed": 0, "critical": 0}
    kept = {name: counts[name] for name in ("requests", "errors", "slow", "timed", "critical")}
    rate = kept["errors"] / kept["requests"] if kept["requests"] else None
    told = {name: state[name] for name in ("tenant", "verdict", "reason", "started", "deadline", "ended", "rollback")}
    return {**told, **kept, "error_rate": rate, "observe_only": state["settings"]["observe_only"]}


def _first_told(module: AnsibleModule, path: Path, state: dict[str, Any]) -> bool:
    """Is this the first call that sees the end? Then it is the one whose caller records it."""
    if module.check_mode or state["verdict"] == states.RUNNING or state.get("told"):
        return False
    states.write(path, {**state, "told": True})
    return True


def main() -> None:
    """Arguments, begin or join, wait, one reading."""
    module = AnsibleModule(
        argument_spec={
            "tenant": {"type": "str", "required": True},
            "duration_s": {"type": "float", "required": True},
            "requests_min": {"type": "int", "required": True},
            "error_rate_max": {"type": "float", "required": True},
            "slow_s": {"type": "dict", "default": {}},
            "observe_only": {"type": "bool", "default": False},
            "wait_s": {"type": "float", "default": 20.0},
            "directory": {"type": "path", "default": str(states.DIRECTORY)},
            "tables": {"type": "path", "default": "/etc/gpu-cutover/router"},
            "journal": {"type": "path", "default": str(JOURNAL)},
        },
        supports_check_mode=True,
    )
    tenant = module.params["tenant"]
    path = states.path_of(tenant, Path(module.params["directory"]))
    found = states.read(path)
    begin = states.must_begin(found, _changed_at(Path(module.params["tables"]), tenant))
    state = _begin(module, path) if begin or found is None else found
    if not module.check_mode and state["verdict"] == states.RUNNING:
        _start_unit(module)
        state = _wait(module, path, state)
    ended = _first_told(module, path, state)
    changes = Journal(Path(module.params["journal"])).changes()[-TOLD_CHANGES:] if ended else []
    module.exit_json(changed=begin or ended, begun=begin, ended=ended, reading=_reading(state), changes=changes)


if __name__ == "__main__":
    main()
