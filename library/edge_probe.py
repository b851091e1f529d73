#!/usr/bin/python
"""Ansible module: small questions to legs and through the edge."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.router import files, probing
from ansible.module_utils.gpu_cutover.router.table import Leg, Table

DOCUMENTATION = r"""
module: edge_probe
short_description: Small questions to legs and through the edge
description:
  - Asks the legs of the route tables directly whether they answer (O(legs)), before traffic is moved to them.
  - Asks through the edge with a client certificate, as a clinic does, and tells who answered (O(through_edge)).
  - The questions hold nothing of any patient.
author: gpu-cutover
options:
  legs:
    description: V(onprem), V(cloud) or V(none).
    type: str
    choices: [onprem, cloud, none]
    default: none
  through_edge:
    description: Also ask through the edge.
    type: bool
    default: false
  routes:
    description: Routes to ask; all that the table has when left out.
    type: list
    elements: str
  edge:
    description: Address of the edge.
    type: str
    default: https://127.0.0.1:8443
  edge_name:
    description: Name that the edge's certificate must carry.
    type: str
    default: edge
  tls:
    description: Directory with C(ca.pem) and C(probe.pem).
    type: path
    default: /etc/gpu-cutover/tls
  tables:
    description: Where the route tables live.
    type: path
    default: /etc/gpu-cutover/router
  timeout_s:
    description: Seconds one answer may take.
    type: float
    default: 15
  must_answer:
    description: Fail the module when a question is not answered.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Does every on-prem leg answer before anybody is sent there?
  edge_probe:
    legs: onprem
    must_answer: true
"""

RETURN = r"""
legs:
  description: C({route: {ok, status, ms, error}}) of the legs asked.
  type: dict
  returned: always
edge:
  description: C({route: {ok, status, ms, served_by, model, error}}) of the questions through the edge.
  type: dict
  returned: always
reading:
  description: C(edge) for a gate.
  type: dict
  returned: always
ready:
  description: Routes whose leg answered.
  type: list
  returned: always
"""


def _table(module: AnsibleModule) -> Table:
    """The hybrid table: it has both kinds of legs; the on-prem ones are the same in both pools."""
    try:
        table: Table = files.read_table(Path(module.params["tables"]) / "hybrid.json")
    except InputError as error:
        if module.check_mode:
            module.exit_json(
                changed=False,
                legs={},
                edge={},
                ready=[],
                reading={"error": "not installed yet"},
                msg=f"not installed yet: {error}",
            )
        module.fail_json(msg=str(error))
    return table


def _placement(table: Table) -> str:
    """The placement in force, as the guard tells it; the table's where the guard is silent."""
    name: str = table.placement
    if not table.placement_source:
        return name
    try:
        return str(probing.get_json(table.placement_source)["name"])
    except (OSError, ValueError, KeyError):
        return name


def _legs(table: Table, kind: str, wanted: list[str] | None) -> dict[str, Leg]:
    known = {"none": {}, "cloud": table.cloud, "onprem": table.onprem.get(_placement(table), {})}[kind]
    return {route: leg for route, leg in known.items() if wanted is None or route in wanted}


def _ask_legs(module: AnsibleModule, legs: dict[str, Leg]) -> dict[str, Any]:
    timeout = module.params["timeout_s"]
    probes = [probing.Probe(leg.url, leg.path, route, leg.model, {}, timeout) for route, leg in legs.items()]
    return dict(zip(legs, probing.ask_all(probes), strict=True))


def _ask_edge(module: AnsibleModule, routes: list[str]) -> dict[str, Any]:
    tls = Path(module.params["tls"])
    context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
    context.load_cert_chain(tls / "probe.pem")
    probes = [
        probing.Probe(
            module.params["edge"],
            f"/{route}",
            route,
            "any",
            {},
            module.params["timeout_s"],
            module.params["edge_name"],
        )
        for route in routes
    ]
    return dict(zip(routes, probing.ask_all(probes, context), strict=True))


def main() -> None:
    """Arguments, questions, who answered."""
    module = AnsibleModule(
        argument_spec={
            "legs": {"type": "str", "choices": ["onprem", "cloud", "none"], "default": "none"},
            "through_edge": {"type": "bool", "default": False},
            "routes": {"type": "list", "elements": "str"},
            "edge": {"type": "str", "default": "https://127.0.0.1:8443"},
            "edge_name": {"type": "str", "default": "edge"},
            "tls": {"type": "path", "default": "/etc/gpu-cutover/tls"},
            "tables": {"type": "path", "default": "/etc/gpu-cutover/router"},
            "timeout_s": {"type": "float", "default": 15.0},
            "must_answer": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    table = _table(module)
    wanted = _legs(table, module.params["legs"], module.params["routes"])
    legs = _ask_legs(module, wanted)
    edge: dict[str, Any] = {}
    if module.params["through_edge"]:
        try:
            edge = _ask_edge(module, module.params["routes"] or list(table.onprem[table.placement]))
        except OSError as error:
            module.fail_json(msg=f"the probe's certificate cannot be used: {error}. Fix: run the role site_pki.")
    asked = {"leg": legs, "edge": edge}
    silent = [
        f"{how} {route}: {answer['error']}"
        for how, answers in asked.items()
        for route, answer in answers.items()
        if not answer["ok"]
    ]
    if silent and module.params["must_answer"] and not module.check_mode:
        module.fail_json(msg="not ready: " + "; ".join(silent), legs=legs, edge=edge)
    ready = [route for route, one in legs.items() if one["ok"]]
    module.exit_json(changed=False, legs=legs, edge=edge, ready=ready, reading={"edge": edge})


if __name__ == "__main__":
    main()
