#!/usr/bin/python
"""Ansible module: the smoke benchmark of all routes."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.smoke.client import Door
from ansible.module_utils.gpu_cutover.smoke.run import Scope, benchmark

DOCUMENTATION = r"""
module: smoke_benchmark
short_description: Every route asked as a clinic asks it, and timed
description:
  - Sends made-up requests of realistic size through the edge with a synthetic tenant's certificate. One of each first
    (not counted), then O(requests) per route, retrieval in rounds, then all sessions at once.
  - Changes nothing. In a dry run nothing is sent.
author: gpu-cutover
options:
  url:
    description: The edge.
    type: str
    required: true
  server_name:
    description: Name that the edge's certificate must carry.
    type: str
    default: ""
  ca:
    description: Authority of that certificate.
    type: path
    required: true
  certificate:
    description: Certificate and key of the synthetic tenant, one file.
    type: path
    required: true
  models:
    description: The model that answers each route to ask.
    type: dict
    required: true
  models_rolled_back:
    description: Models out of service. Their routes are not asked (the cloud would answer); the reading names them.
    type: list
    elements: str
    default: []
  requests:
    description: Requests per route.
    type: int
    default: 20
  soap_sessions:
    description: Notes at once.
    type: int
    required: true
  chat_sessions:
    description: Chats at once, together with the notes.
    type: int
    required: true
  audio_s:
    description: Length of the recording in seconds.
    type: float
    default: 600
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Every route, timed
  smoke_benchmark:
    url: https://10.87.0.11:8443
    server_name: ai.clinic.test
    ca: /etc/gpu-cutover/tls/ca.pem
    certificate: /etc/gpu-cutover/tls/probe.pem
    models: {chat: llama-3.1-70b-instruct}
    soap_sessions: 12
    chat_sessions: 30
  register: smoke_reading_smoke
"""

RETURN = r"""
reading:
  description: C(workloads) and C(burst) summaries, C(figures) by target, C(rolled_back) routes, samples attached.
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments, one benchmark, one reading."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "server_name": {"type": "str", "default": ""},
            "ca": {"type": "path", "required": True},
            "certificate": {"type": "path", "required": True},
            "models": {"type": "dict", "required": True},
            "models_rolled_back": {"type": "list", "elements": "str", "default": []},
            "requests": {"type": "int", "default": 20},
            "soap_sessions": {"type": "int", "required": True},
            "chat_sessions": {"type": "int", "required": True},
            "audio_s": {"type": "float", "default": 600.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, reading={"error": "a dry run sends nothing"})
    rolled_back = {route: m for route, m in params["models"].items() if m in params["models_rolled_back"]}
    door = Door(params["url"], params["server_name"], params["ca"], params["certificate"])
    scope = Scope(
        params["requests"],
        params["soap_sessions"],
        params["chat_sessions"],
        audio_s=params["audio_s"],
        routes=tuple(route for route in params["models"] if route not in rolled_back),
    )
    try:
        reading = {**benchmark(door, scope), "rolled_back": rolled_back}
    except OSError as error:
        reading = {"error": f"{type(error).__name__}: {error}"}
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
