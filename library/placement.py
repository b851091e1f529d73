#!/usr/bin/python
"""Ansible module: the placements of a GPU host, and the engines of the current one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.guard import placement, systemd

DOCUMENTATION = r"""
module: placement
short_description: The placements of a GPU host, and the engines of the current one
description:
  - Writes C(<name>/<model>.env) for every placement and C(plan.json) in one call, each file whole by rename, and
    removes files of engines and placements that are no longer planned.
  - Points the symbolic link C(current) to O(initial) only when it does not exist. A host that was de-rated stays so.
  - With O(state=started) brings the units of the current placement up. Only units whose environment differs from the
    one that their process was started with are touched.
author: gpu-cutover
options:
  directory:
    description: Where the placements live.
    type: path
    default: /etc/gpu-cutover/placements
  placements:
    description: Placements as in C(site_plan.placements).
    type: dict
    required: true
  engines:
    description: Engines as in C(site_plan.engines).
    type: dict
    required: true
  address:
    description: Address on which the engines listen, for their URLs in C(plan.json).
    type: str
    required: true
  initial:
    description: The placement to begin with.
    type: str
    default: healthy
  state:
    description: V(present) writes files, V(started) also starts and enables the units of the current placement.
    type: str
    choices: [present, started]
    default: present
  health_bound:
    description: Seconds that a group of engines may take to become healthy. An engine that is late fails the module.
    type: float
    default: 900
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Write all placements and start the current one
  placement:
    placements: "{{ site_plan.placements }}"
    engines: "{{ site_plan.engines }}"
    address: "{{ ansible_host }}"
    state: started
"""

RETURN = r"""
placement:
  description: The current placement.
  type: str
  returned: always
units:
  description: Units to keep, stop, start and restart (V(state=started) only).
  type: dict
  returned: when O(state=started)
"""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)


def _stale(directory: Path, files: dict[str, str], current: str | None) -> list[Path]:
    """What is planned no longer: env files, and whole placements except the current one."""
    if not directory.is_dir():
        return []
    planned = {name.split("/")[0] for name in files if "/" in name}
    found: list[Path] = []
    for entry in sorted(directory.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            continue
        if entry.name in planned:
            found += [env for env in sorted(entry.glob("*.env")) if f"{entry.name}/{env.name}" not in files]
        elif entry.name != current:
            found.append(entry)
    return found


def _present(module: AnsibleModule, directory: Path) -> dict[str, Any]:
    params = module.params
    try:
        files = placement.render(params["placements"], params["engines"], params["address"])
    except (ValueError, KeyError) as error:
        module.fail_json(msg=f"the plan cannot be rendered: {error}")
    if params["initial"] not in params["placements"]:
        module.fail_json(msg=f"there is no placement {params['initial']}, which is to be the first")
    current = placement.current_name(directory)
    before = {name: _read(directory / name) for name in files}
    changed = {name: content for name, content in files.items() if before[name] != content}
    stale = _stale(directory, files, current)
    if not module.check_mode:
        # plan.json last: whoever reads it finds every file that it speaks of.
        for name in sorted(changed, key=lambda name: name == placement.PLAN_FILE):
            _write(directory / name, changed[name])
        if current is None:
            placement.switch_current(directory, params["initial"])
        for entry in stale:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    return {
        "changed": bool(changed or stale or current is None),
        "placement": current or params["initial"],
        "diff": [{"before_header": n, "after_header": n, "before": before[n], "after": changed[n]} for n in changed]
        + [{"before_header": str(entry), "before": "present\n", "after": ""} for entry in stale],
    }


def _started(module: AnsibleModule, directory: Path, name: str) -> dict[str, Any]:
    params, host = module.params, systemd.SystemdHost()
    plan = placement.parse_plan(
        placement.render(params["placements"], params["engines"], params["address"])["plan.json"]
    )
    if name not in plan:
        module.fail_json(msg=f"the current placement {name} is not in the plan. Fix: restore the healthy placement.")
    units = {engine.unit for other in plan.values() for engine in other.engines.values()}
    wanted = placement.wanted_digests(plan[name])
    change = placement.difference(wanted, host.running(units))
    boot = systemd.boot_changes(systemd.show(units), set(wanted))
    result = {"changed": not change.empty or any(boot), "units": change.as_dict()}
    if module.check_mode or not result["changed"]:
        return result
    told: list[str] = []
    with systemd.placement_lock():
        applied = placement.apply(plan, name, directory, host, params["health_bound"], told.append)
    if applied.late:
        module.fail_json(msg=f"not healthy within {params['health_bound']:g} s: {', '.join(applied.late)}", told=told)
    return result | {"told": told}


def main() -> None:
    """Arguments, one decision, one result."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": str(placement.DIRECTORY)},
            "placements": {"type": "dict", "required": True},
            "engines": {"type": "dict", "required": True},
            "address": {"type": "str", "required": True},
            "initial": {"type": "str", "default": placement.HEALTHY},
            "state": {"type": "str", "choices": ["present", "started"], "default": "present"},
            "health_bound": {"type": "float", "default": 900.0},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # engines of other users read their environment
    directory = Path(module.params["directory"])
    result = _present(module, directory)
    if module.params["state"] == "started":
        try:
            started = _started(module, directory, result["placement"])
        except OSError as error:
            module.fail_json(msg=f"the placement {result['placement']} cannot be applied: {error}")
        result = {**started, **result, "changed": result["changed"] or started["changed"]}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
