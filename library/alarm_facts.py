#!/usr/bin/python
"""Ansible module: did the alerts of the drills reach the listeners, and do they hear the watchdog?"""

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes import monitoring

DOCUMENTATION = r"""
module: alarm_facts
short_description: Did the alerts of the drills reach the listeners, and do they hear the watchdog?
description:
  - Asks every listener what it heard since the first drill; waits at most O(wait) seconds until all has arrived.
author: gpu-cutover
options:
  listeners:
    description: Host to the address of its C(gpu-cutover-alarms).
    type: dict
    required: true
  port:
    description: Their port.
    type: int
    default: 9405
  fired:
    description: What was broken on purpose.
    type: list
    elements: dict
    required: true
    suboptions:
      alert: {description: Name of the alert that must have fired., type: str, required: true}
      t: {description: "When it was broken, epoch seconds; 0: it was not.", type: float, required: true}
  wait:
    description: Seconds to wait; alerts of one cause are gathered for some seconds.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: The alert of the drill arrived on the gateway
  alarm_facts:
    listeners: {gw1: 10.0.0.2}
    fired: [{alert: UnitRestarted, t: 1798790400.0}]
  register: reading_alarms
"""

RETURN = r"""
reading:
  description: C(wanted, since, listeners {host {watchdog_age_s, patience_s, heard, missing} or {error}}).
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments, one reading."""
    drill = {"alert": {"type": "str", "required": True}, "t": {"type": "float", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "listeners": {"type": "dict", "required": True},
            "port": {"type": "int", "default": monitoring.LISTENER_PORT},
            "fired": {"type": "list", "elements": "dict", "required": True, "options": drill},
            "wait": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    listeners = {host: f"http://{address}:{params['port']}" for host, address in params["listeners"].items()}
    deadline = time.monotonic() + (0.0 if module.check_mode else params["wait"])
    while True:
        reading = monitoring.arrived(listeners, params["fired"])
        if monitoring.all_arrived(reading) or time.monotonic() >= deadline:
            module.exit_json(changed=False, reading=reading)
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main()
