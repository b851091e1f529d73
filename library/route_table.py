#!/usr/bin/python
"""Ansible module: the route tables of a gateway."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError, Refused
from ansible.module_utils.gpu_cutover.router import orders
from ansible.module_utils.gpu_cutover.router.journal import JOURNAL, Journal

DOCUMENTATION = r"""
module: route_table
short_description: The route tables of a gateway
description:
  - Installs tables, sets the states of tenants' routes, takes tenants or a model back, gives a model back. Each table
    is written whole under a lock, read back and compared. The router follows at its next request.
  - The same orders, journal and answers as C(gpu-cutover-route), which serves the way without Ansible.
  - An illegal state (a sensitive tenant on the cloud above all) is refused and nothing is changed.
author: gpu-cutover
options:
  directory:
    description: Where the tables live.
    type: path
    default: /etc/gpu-cutover/router
  journal:
    description: The gateway's journal of route changes.
    type: path
    default: /var/lib/gpu-cutover/changes.jsonl
  logs:
    description: Where the routers write their records, for O(check).
    type: path
    default: /var/log/gpu-cutover
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
      route: {description: One route; all routes when left out., type: str}
      accept_off: {description: Sensitive tenants go off instead of staying., type: bool, default: false}
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
  recorded:
    description: Names of changes that the ledger tells, as C(record_changes) returned them; the journal notes it.
    type: list
    elements: str
  look:
    description:
      - Change nothing; fail where O(check) or the gateway would refuse the order. A play that looks on every gateway
        before it changes one leaves none behind.
    type: bool
    default: false
  expect:
    description: States that must be found before, else the module fails. C({tenant: {route: state or list of states}}).
    type: dict
  confirm:
    description: Metrics port of each pool's router. Wait until the routers say that they decide by the new table.
    type: dict
    default: {}
  check:
    description:
      - Whether the target answers before traffic moves to it. V(fast) looks at its server, the breakers and what the
        cloud did in the last minute; V(ask) puts a small question to every leg besides. With a target that does not
        answer, O(set) and a model fail and nothing is changed; O(roll_back) leaves that route and tells it.
    type: str
    choices: [none, fast, ask]
    default: none
  record:
    description: Kind of the ledger's record that the action C(record_changes) writes of this change.
    type: str
    choices: [none, cutover, rollback]
    default: none
  id:
    description: Name of the change, the same on every gateway. One is made up when left out.
    type: str
  by:
    description: Who ordered it.
    type: str
    default: ansible
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
  description: States before, C({tenant: {route: state}}), of every route that moves.
  type: dict
  returned: always
after:
  description: States after, read back, of the same routes.
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
waiting:
  description: Of RV(kept), what stayed because its cloud leg does not answer.
  type: list
  returned: always
slow:
  description: What moves although its target is slow, as sentences; they are warnings.
  type: list
  returned: always
changes:
  description: The gateway's latest changes as its journal tells them, for C(record_changes).
  type: list
  returned: always
noted:
  description: Of O(recorded), what the journal did not know yet.
  type: list
  returned: with O(recorded)
took_s:
  description: Seconds from first read to last read-back (and the routers' confirmation where asked for).
  type: float
  returned: always
"""

TOLD_CHANGES = 100


def _order(params: dict[str, Any], write: bool) -> dict[str, Any]:
    """The module's arguments as an order."""
    made_up = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-ansible-{os.getpid()}"
    common = {key: params[key] for key in ("by", "reason", "check", "record")}
    common |= {"id": params["id"] or made_up, "path": "ansible", "write": write, "expect": params["expect"] or {}}
    if params["install"] is not None:
        return {**common, "do": "install", "tables": params["install"]}
    if params["set"] is not None:
        return {**common, "do": "set", "states": params["set"], "only_from": params["only_from"]}
    if params["roll_back"] is not None:
        return {**common, "do": "roll_back", **params["roll_back"]}
    model = params["roll_back_model"] or params["clear_model"]
    return {**common, "do": "model", "model": model, "out": bool(params["roll_back_model"]), "pools": params["pools"]}


def _carry_out(module: AnsibleModule, place: orders.Place) -> dict[str, Any]:
    before = {pool: orders.read_raw(place.table(pool)) for pool in orders.POOLS}
    order = orders.parse_order(_order(module.params, write=not (module.check_mode or module.params["look"])))
    answer: dict[str, Any] = orders.carry_out(order, place)
    answer.pop("entry")  # among the changes
    if answer["held"] and not module.check_mode:
        module.fail_json(msg="not ready: " + "; ".join(answer["held"]), refused=True, **answer)
    unconfirmed = [one["problem"] for one in answer["readback"].values() if one["problem"]]
    if unconfirmed:
        module.fail_json(msg="written, but not in force: " + "; ".join(unconfirmed), **answer)
    for warning in (*answer["problems"], *answer["held"], *answer["slow"]):
        module.warn(warning)
    after = {pool: orders.read_raw(place.table(pool)) for pool in orders.POOLS}
    diff = [
        {
            "before_header": f"{pool}.json",
            "after_header": f"{pool}.json",
            "before": _text(before[pool]),
            "after": _text(after[pool]),
        }
        for pool in orders.POOLS
        if before[pool] != after[pool]
    ]
    if module.check_mode and answer["changed"]:
        diff = [{"before": _text(answer["before"]), "after": _text(answer["after"])}]
    changes = Journal(place.journal).changes()[-TOLD_CHANGES:]
    if module.params["look"]:
        answer["changed"], diff = False, []
    return {**answer, "diff": diff, "changes": changes}


def _note(module: AnsibleModule, place: orders.Place) -> None:
    """Bookkeeping of the controller's own: it never counts as a change, and what fails is told again next time."""
    try:
        noted = [] if module.check_mode else orders.acknowledge(module.params["recorded"], place)
    except (Refused, OSError) as error:
        module.warn(f"the journal does not know yet what is recorded: {error}")
        noted = []
    module.exit_json(changed=False, noted=noted)


def _text(raw: Any) -> str:
    return "" if raw is None else json.dumps(raw, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Arguments, one order, one result."""
    roll_back = {
        "tenant": {"type": "str"},
        "route": {"type": "str"},
        "accept_off": {"type": "bool", "default": False},
    }
    kinds = ("install", "set", "roll_back", "roll_back_model", "clear_model", "recorded")
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/gpu-cutover/router"},
            "journal": {"type": "path", "default": str(JOURNAL)},
            "logs": {"type": "path", "default": "/var/log/gpu-cutover"},
            "install": {"type": "dict"},
            "set": {"type": "dict"},
            "only_from": {"type": "list", "elements": "str"},
            "roll_back": {"type": "dict", "options": roll_back},
            "roll_back_model": {"type": "str"},
            "clear_model": {"type": "str"},
            "recorded": {"type": "list", "elements": "str"},
            "pools": {
                "type": "list",
                "elements": "str",
                "choices": list(orders.POOLS),
                "default": list(orders.POOLS),
            },
            "look": {"type": "bool", "default": False},
            "expect": {"type": "dict"},
            "confirm": {"type": "dict", "default": {}},
            "check": {"type": "str", "choices": list(orders.CHECKS), "default": "none"},
            "record": {"type": "str", "choices": list(orders.RECORDS), "default": "none"},
            "id": {"type": "str"},
            "by": {"type": "str", "default": "ansible"},
            "reason": {"type": "str", "default": "declared"},
        },
        required_one_of=[kinds],
        mutually_exclusive=[kinds],
        supports_check_mode=True,
    )
    os.umask(0o002)  # the group writes tables too: the watch rolls back by itself
    params = module.params
    directory = Path(params["directory"])
    if params["recorded"] is not None:
        _note(module, orders.Place(directory, Path(params["journal"])))
    if module.check_mode and not params["install"] and not any(directory.glob("*.json")):
        module.warn(f"{directory} has no route tables yet (day 4 installs them), so only predicted")
        empty: dict[str, Any] = {"before": {}, "after": params["set"] or {}, "versions": {}, "took_s": 0.0}
        module.exit_json(changed=not params["look"], models_rolled_back={}, kept=[], waiting=[], changes=[], **empty)
    ports = {pool: int(port) for pool, port in params["confirm"].items()}
    place = orders.Place(directory, Path(params["journal"]), Path(params["logs"]), ports)
    try:
        result = _carry_out(module, place)
    except (InputError, Refused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
