#!/usr/bin/python
"""Ansible module: wait until the routers of a gateway report a placement."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes import web

DOCUMENTATION = r"""
module: router_placement
short_description: Wait until the routers of a gateway report a placement
description:
  - Asks the routers' C(/health) until each reports O(placement); fails when one does not within O(wait) seconds.
author: gpu-cutover
options:
  placement:
    description: The placement in force.
    type: str
    required: true
  ports:
    description: Metrics ports of the routers.
    type: list
    elements: int
    default: [9402, 9403]
  wait:
    description: Seconds to wait; routers ask once a second.
    type: float
    default: 15
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: The routers follow
  router_placement:
    placement: without-gpu2
"""

RETURN = r"""
seconds:
  description: How long it took from the start of the module.
  type: float
  returned: always
reported:
  description: Placement by port.
  type: dict
  returned: always
"""


def _reported(port: int) -> Any:
    try:
        return web.get_json(f"http://127.0.0.1:{port}/health")["placement"]
    except (OSError, KeyError, TypeError) as error:
        return f"no answer: {error}"


def main() -> None:
    """Arguments, one wait, one result."""
    module = AnsibleModule(
        argument_spec={
            "placement": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": [9402, 9403]},
            "wait": {"type": "float", "default": 15.0},
        },
        supports_check_mode=True,
    )
    wanted, began = module.params["placement"], time.monotonic()
    while True:
        reported = {str(port): _reported(port) for port in module.params["ports"]}
        seconds = round(time.monotonic() - began, 3)
        if module.check_mode or all(name == wanted for name in reported.values()):
            module.exit_json(changed=False, seconds=seconds, reported=reported)
            return
        if seconds >= module.params["wait"]:
            module.fail_json(msg=f"not every router reports {wanted}: {reported}", seconds=seconds, reported=reported)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
