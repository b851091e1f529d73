#!/usr/bin/python
"""Ansible module: where every tenant is, how its watch ended, and whether anybody's data went where it must not."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.router import change, files, reporting
from ansible.module_utils.gpu_cutover.watch import state as states

DOCUMENTATION = r"""
module: route_audit
short_description: Where every tenant is, how its watch ended, and where its requests went
description:
  - Reads the states out of the route tables (a rolled-back model counts as where its requests go), the tenants'
    watches, and counts every tenant's attempts per leg in the request records.
author: gpu-cutover
options:
  tables:
    description: Where the route tables live.
    type: path
    default: /etc/gpu-cutover/router
  logs:
    description: Where the routers write their records.
    type: path
    default: /var/log/gpu-cutover
  watches:
    description: Where the watches' state lives.
    type: path
    default: /var/lib/gpu-cutover/watch
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Where is everybody?
  route_audit:
  register: reading_routes
"""

RETURN = r"""
reading:
  description: C(states) by tenant and route, C(watches) by tenant, C(cloud_attempts) and C(onprem_attempts) by tenant.
  type: dict
  returned: always
"""

POOLS = ("hybrid", "sealed")


def _watch(path: Path, changed: str) -> dict[str, Any] | None:
    """A tenant's watch; None where there is none, or a clean one from before its routes changed."""
    state = states.read(path)
    if state is None:
        return None
    changed_at = datetime.fromisoformat(changed.replace("Z", "+00:00")).timestamp() if changed else None
    if state["verdict"] == "clean" and states.must_begin(state, changed_at):
        return None
    counts = state["counts"] or {"requests": 0, "errors": 0}
    rate = counts["errors"] / counts["requests"] if counts["requests"] else None
    kept = {name: state[name] for name in ("verdict", "reason", "started", "ended", "rollback")}
    return {**kept, "requests": counts["requests"], "errors": counts["errors"], "error_rate": rate}


def _attempts(logs: Path, tenants: list[str]) -> dict[str, dict[str, int]]:
    counted = {leg: dict.fromkeys(tenants, 0) for leg in ("cloud", "onprem")}
    for pool in POOLS:
        for record in reporting.each_since(logs / f"requests-{pool}.jsonl", 0.0):
            by_tenant = counted.get(str(record.get("leg")))
            if by_tenant is not None:
                name = str(record.get("tenant"))
                by_tenant[name] = by_tenant.get(name, 0) + 1
    return counted


def main() -> None:
    """Arguments, one look, one reading."""
    module = AnsibleModule(
        argument_spec={
            "tables": {"type": "path", "default": "/etc/gpu-cutover/router"},
            "logs": {"type": "path", "default": "/var/log/gpu-cutover"},
            "watches": {"type": "path", "default": str(states.DIRECTORY)},
        },
        supports_check_mode=True,
    )
    params = module.params
    found: change.States = {}
    watches: dict[str, Any] = {}
    for pool in POOLS:
        path = Path(params["tables"]) / f"{pool}.json"
        try:
            tenants = files.read_table(path).tenants
            found.update(change.states(json.loads(path.read_bytes())))
        except (InputError, OSError, ValueError) as error:
            module.exit_json(changed=False, reading={"error": str(error)})
        for name, tenant in tenants.items():
            watch = _watch(states.path_of(name, Path(params["watches"])), tenant.changed)
            watches.update({name: watch} if watch else {})
    attempts = _attempts(Path(params["logs"]), list(found))
    reading = {
        "states": found,
        "watches": watches,
        "cloud_attempts": attempts["cloud"],
        "onprem_attempts": attempts["onprem"],
    }
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
