#!/usr/bin/python
"""Ansible module: do the engines of the current placement run, with its environment, and answer?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.guard import placement, systemd
from ansible.module_utils.gpu_cutover.probes import web

DOCUMENTATION = r"""
module: engine_health
short_description: Do the engines of the current placement run, with its environment, and answer?
description:
  - Reads C(plan.json) and C(current), then asks systemd and every engine; waits at most O(wait) seconds for all
    of them.
author: gpu-cutover
options:
  directory:
    description: Where the placements live.
    type: path
    default: /etc/gpu-cutover/placements
  wait:
    description: Seconds to wait until every engine is healthy.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Every engine answers
  engine_health:
    wait: 60
  register: reading_engine_health
"""

RETURN = r"""
reading:
  description: C(placement) and per model C(unit, active, healthy, same_environment, restarts); or C(error).
  type: dict
  returned: always
"""


def _engines(wanted: placement.Placement) -> dict[str, dict[str, Any]]:
    units = systemd.show(engine.unit for engine in wanted.engines.values())
    found = {}
    for model, engine in wanted.engines.items():
        unit = units.get(engine.unit, {})
        pid = int(unit.get("MainPID") or 0)
        found[model] = {
            "unit": engine.unit,
            "gpus": list(engine.gpus),
            "active": unit.get("ActiveState") == "active",
            "healthy": web.answers(engine.health),
            "same_environment": bool(pid) and systemd.digest_of_process(pid) == engine.digest,
            "restarts": int(unit.get("NRestarts") or 0),
        }
    return found


def _read(directory: Path, wait_s: float) -> dict[str, Any]:
    name = placement.current_name(directory)
    try:
        plan = placement.load_plan(directory)
    except (OSError, ValueError) as error:
        return {"error": f"no placements on this host: {error}"}
    if name not in plan:
        return {"error": f"the current placement {name} is not in the plan"}
    deadline = time.monotonic() + wait_s
    while True:
        engines = _engines(plan[name])
        if time.monotonic() >= deadline or all(engine["healthy"] for engine in engines.values()):
            return {"placement": name, "engines": engines}
        time.sleep(0.3)


def main() -> None:
    """Arguments, one reading."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": str(placement.DIRECTORY)},
            "wait": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    wait_s = 0.0 if module.check_mode else module.params["wait"]
    try:
        reading = _read(Path(module.params["directory"]), wait_s)
    except OSError as error:
        reading = {"error": str(error)}
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
