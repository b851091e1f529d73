#!/usr/bin/python
"""Ansible module: the route tables of a gateway."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.router import change, probing

DOCUMENTATION = r"""
module: route_table
short_description: The route tables of a gateway
description:
  - Installs tables, sets the states of tenants' routes, takes a model out of service or gives it back. Each table is
    written whole under a lock, read back and compared. The router follows at its next request.
  - An illegal state (a sensitive tenant on the cloud above all) is refused and nothing is changed.
author: gpu-cutover
options:
  directory:
    description: Where the tables live.
    type: path
    default: /etc/gpu-cutover/router
  install:
    description:
      - Tables by pool, as in C(site_plan.route_tables). Installed whole where there is none; otherwise legs, limits and
        tenants are refreshed and states stay as they are.
    type: dict
  set:
    description: States to set, as C({tenant: {route: state}}). Each tenant is looked up in all tables.
    type: dict
  only_from:
    description: Set only routes that are in one of these states; others are left as they are.
    type: list
    elements: str
  roll_back:
    description: Take tenants back to the cloud. Whatever has to stay is told in RV(kept).
    type: dict
    suboptions:
      tenant: {description: The tenant; all tenants when left out., type: str}
      accept_off: {description: Sensitive tenants go off instead of staying., type: bool, default: false}
      ready: {description: Routes whose cloud leg answers., type: list, elements: str, default: []}
  roll_back_model:
    description: On-prem model to take out of service, in the tables of O(pools).
    type: str
  clear_model:
    description: On-prem model to give back, in the tables of O(pools).
    type: str
  pools:
    description: Tables that O(roll_back_model) and O(clear_model) change.
    type: list
    elements: str
    default: [hybrid, sealed]
  expect:
    description: States that must be found before, else the module fails. C({tenant: {route: state or list of states}}).
    type: dict
  confirm:
    description: Metrics port of each pool's router. Wait until the routers say that they decide by the new table.
    type: dict
    default: {}
  reason:
    description: Why, for the table's own record.
    type: str
    default: declared
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: One tenant's chat goes on-prem
  route_table:
    set: {doc-zam: {chat: onprem}}
    expect: {doc-zam: {chat: [mirror, onprem]}}
    reason: day 9
"""

RETURN = r"""
before:
  description: States before, C({tenant: {route: state}}), of the tenants set (all tenants for a model or an install).
  type: dict
  returned: always
after:
  description: States after, read back.
  type: dict
  returned: always
versions:
  description: Version of each table after.
  type: dict
  returned: always
models_rolled_back:
  description: Models out of service after, by pool.
  type: dict
  returned: always
kept:
  description: What O(roll_back) had to leave, as sentences.
  type: list
  returned: always
took_s:
  description: Seconds from first read to last read-back (and the routers' confirmation where asked for).
  type: float
  returned: always
"""

POOLS = ("hybrid", "sealed")
CONFIRM_S = 3.0
Mutation = Callable[[Any], Any]


def _mutations(params: dict[str, Any], directory: Path, kept: list[str]) -> dict[str, list[Mutation]]:
    """The changes each pool's table has to go through. Raises InputError for a tenant that no table has."""
    wanted: dict[str, list[Mutation]] = {pool: [] for pool in POOLS}
    for pool, planned in (params["install"] or {}).items():
        wanted[pool].append(functools.partial(change.installed, planned=planned))
    homes = {pool: set(_states(directory / f"{pool}.json")) for pool in POOLS}
    for tenant, routes in (params["set"] or {}).items():
        pool = next((name for name in POOLS if tenant in homes[name]), None)
        if pool is None:
            known = ", ".join(sorted(set().union(*homes.values()))) or "none: run day 4 first"
            raise InputError(str(directory), f"tenants.{tenant}", "is in no route table", f"name one of {known}")
        file = str(directory / f"{pool}.json")
        wanted[pool].append(
            functools.partial(change.with_states, wanted={tenant: routes}, file=file, only_from=params["only_from"])
        )
    back = params["roll_back"]
    if back:
        if back["tenant"] and not any(back["tenant"] in home for home in homes.values()):
            raise InputError(str(directory), f"tenants.{back['tenant']}", "is in no route table", "name a tenant")
        for pool in POOLS:
            wanted[pool].append(functools.partial(change.rolled_back, **back, kept=kept))
    for key, rolled_back in (("roll_back_model", True), ("clear_model", False)):
        for pool in params["pools"] if params[key] else []:
            file = str(directory / f"{pool}.json")
            wanted[pool].append(
                functools.partial(change.with_model, model=params[key], rolled_back=rolled_back, file=file)
            )
    return {pool: steps for pool, steps in wanted.items() if steps}


def _states(path: Path) -> change.States:
    try:
        return cast("change.States", change.states(json.loads(path.read_bytes())))
    except (OSError, ValueError):
        return {}


def _through(steps: list[Mutation], raw: Any) -> Any:
    for step in steps:
        raw = step(raw)
    return raw


def _apply(module: AnsibleModule, directory: Path, kept: list[str]) -> dict[str, change.Changed]:
    mutations = _mutations(module.params, directory, kept)
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: UP017
    run = functools.partial(change.change, reason=module.params["reason"], now=now)

    def one(pool: str, write: bool) -> change.Changed:
        return run(directory / f"{pool}.json", functools.partial(_through, mutations[pool]), write=write)

    predicted = {pool: one(pool, False) for pool in mutations}  # all tables are legal before one is touched
    if module.check_mode:
        return predicted
    kept.clear()
    done = {pool: one(pool, True) for pool in mutations}
    for pool, table in done.items():
        if pool in module.params["confirm"]:
            _confirm(int(module.params["confirm"][pool]), table.after["version"], f"router of pool {pool}")
    return done


def _confirm(port: int, version: int, who: str) -> None:
    """Wait until the router itself says that it decides by this version. Raises OSError when it does not in time."""
    deadline = time.monotonic() + CONFIRM_S
    said: object = None
    while time.monotonic() < deadline:
        try:
            said = probing.get_json(f"http://127.0.0.1:{port}/health", timeout_s=1.0).get("table_version")
        except (OSError, ValueError) as error:
            said = error
        if said == version:
            return
        time.sleep(0.02)
    raise OSError(f"the {who} does not confirm version {version} of its table (it says {said})")


def _unexpected(directory: Path, expected: dict[str, Any]) -> Any:
    merged: change.States = {}
    for pool in POOLS:
        merged.update(_states(directory / f"{pool}.json"))
    return change.unexpected(merged, expected)


def _result(params: dict[str, Any], done: dict[str, change.Changed], took_s: float) -> dict[str, Any]:
    only = set(params["set"]) if params["set"] else None
    if params["roll_back"] and params["roll_back"]["tenant"]:
        only = {params["roll_back"]["tenant"]}
    sides: dict[str, change.States] = {"before": {}, "after": {}}
    for table in done.values():
        for side, raw in (("before", table.before or {}), ("after", table.after)):
            found = change.states(raw)
            sides[side].update({name: routes for name, routes in found.items() if only is None or name in only})
    return {
        **sides,
        "changed": any(table.changed for table in done.values()),
        "versions": {pool: table.after["version"] for pool, table in done.items()},
        "models_rolled_back": {pool: table.after["models_rolled_back"] for pool, table in done.items()},
        "took_s": round(took_s, 4),
        "diff": [
            {
                "before_header": f"{pool}.json",
                "after_header": f"{pool}.json",
                "before": _text(table.before),
                "after": _text(table.after),
            }
            for pool, table in done.items()
            if table.changed
        ],
    }


def _text(raw: Any) -> str:
    return "" if raw is None else json.dumps(raw, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Arguments, one change per table, one result."""
    roll_back = {
        "tenant": {"type": "str"},
        "accept_off": {"type": "bool", "default": False},
        "ready": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/gpu-cutover/router"},
            "install": {"type": "dict"},
            "set": {"type": "dict"},
            "only_from": {"type": "list", "elements": "str"},
            "roll_back": {"type": "dict", "options": roll_back},
            "roll_back_model": {"type": "str"},
            "clear_model": {"type": "str"},
            "pools": {"type": "list", "elements": "str", "choices": list(POOLS), "default": list(POOLS)},
            "expect": {"type": "dict"},
            "confirm": {"type": "dict", "default": {}},
            "reason": {"type": "str", "default": "declared"},
        },
        required_one_of=[("install", "set", "roll_back", "roll_back_model", "clear_model")],
        supports_check_mode=True,
    )
    os.umask(0o002)  # the group writes tables too: the watch rolls back by itself
    directory = Path(module.params["directory"])
    if module.check_mode and not module.params["install"] and not any(directory.glob("*.json")):
        module.warn(f"{directory} has no route tables yet (day 4 installs them), so only predicted")
        empty: dict[str, Any] = {"before": {}, "after": module.params["set"] or {}, "versions": {}, "took_s": 0.0}
        module.exit_json(changed=True, models_rolled_back={}, kept=[], **empty)
    kept: list[str] = []
    started = time.monotonic()
    surprises = _unexpected(directory, module.params["expect"] or {})
    if surprises:
        module.fail_json(msg="the table is not as expected: " + "; ".join(surprises))
    try:
        done = _apply(module, directory, kept)
    except (InputError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**_result(module.params, done, time.monotonic() - started), kept=kept)


if __name__ == "__main__":
    main()
