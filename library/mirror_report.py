#!/usr/bin/python
"""Ansible module: what the mirror on a gateway has compared so far."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.gates import day08
from ansible.module_utils.gpu_cutover.peers import told
from ansible.module_utils.gpu_cutover.router import probing, reporting

DOCUMENTATION = r"""
module: mirror_report
short_description: What the mirror on a gateway has compared so far
description:
  - Waits up to O(wait_s) until every route has O(minimums) comparisons, then adds up scores, critical differences,
    latencies and coverage since the mirror began.
  - When the mirror began is kept on the gateway, with the weights it compares. Other weights begin it anew.
author: gpu-cutover
options:
  minimums:
    description: Comparisons that each route needs.
    type: dict
    required: true
  margins:
    description: How much worse each route may score.
    type: dict
    required: true
  alpha:
    description: Error probability of each bound.
    type: float
    required: true
  weights:
    description: Digests of the weights that are compared, by model.
    type: dict
    default: {}
  wait_s:
    description: Seconds to wait for the minimums in this call.
    type: float
    default: 20
  metrics_port:
    description: Metrics port of the hybrid router.
    type: int
    default: 9402
  logs:
    description: Where the router writes its records.
    type: path
    default: /var/log/gpu-cutover
  state:
    description: Where the beginning is kept.
    type: path
    default: /var/lib/gpu-cutover/mirror.json
  name:
    description: Name of the host in attachments.
    type: str
    default: gateway
  attach:
    description: Which attachment the reading carries.
    type: str
    choices: [comparison, latency]
    default: comparison
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Wait for the comparisons
  mirror_report:
    minimums: {chat: 300}
    margins: {chat: 0.03}
    alpha: 0.01
  register: reading_mirror
  until: reading_mirror.enough
  retries: 1440
  delay: 0
"""

RETURN = r"""
enough:
  description: Whether every route has its minimum.
  type: bool
  returned: always
reading:
  description: Routes, latency by workload, coverage, start.
  type: dict
  returned: always
"""


def _begin(module: AnsibleModule) -> tuple[float, bool]:
    """(when the mirror of these weights began, whether that is now)."""
    path, weights = Path(module.params["state"]), module.params["weights"]
    try:
        known = json.loads(path.read_bytes())
        if known["weights"] == weights:
            return float(known["started"]), False
    except (OSError, ValueError, KeyError, TypeError):
        pass
    now = time.time()
    if not module.check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(json.dumps({"started": now, "weights": weights}))
        fresh.replace(path)
    return now, True


def _pending(port: int) -> int:
    try:
        return int(probing.get_json(f"http://127.0.0.1:{port}/health").get("mirror_pending", 0))
    except (OSError, ValueError):
        return 0


def _look(module: AnsibleModule, since: float) -> dict[str, Any]:
    """One look at the records."""
    logs, params = Path(module.params["logs"]), module.params
    pending = _pending(params["metrics_port"])
    comparisons = reporting.read_since(logs / "comparisons-hybrid.jsonl", since)
    requests = reporting.read_since(logs / "requests-hybrid.jsonl", since)
    return {
        "since": since,
        "seconds": round(time.time() - since, 1),
        "routes": reporting.comparisons_by_route(comparisons, params["margins"]),
        "latency": reporting.latency_by_workload(requests),
        "coverage": reporting.coverage(requests, comparisons, pending),
    }


def _enough(reading: dict[str, Any], minimums: dict[str, Any]) -> bool:
    """Clinics talk to one gateway at a time: what the others compared counts."""
    elsewhere = told.compared_elsewhere(told.peers())
    return all(
        reading["routes"].get(route, {}).get("n", 0) + elsewhere.get(route, 0) >= int(count)
        for route, count in minimums.items()
    )


def _attachment(module: AnsibleModule, reading: dict[str, Any]) -> dict[str, Any]:
    params = module.params
    if params["attach"] == "latency":
        content = {"host": params["name"], "routes": reading["latency"]}
        return {"name": f"latency-{params['name']}", "content": content}
    rows = {}
    for route, margin in params["margins"].items():
        summary = reading["routes"][route]
        critical = sum(summary["critical"].values())
        minimum = int(params["minimums"][route])
        rows[route] = day08.route_row(summary["scores"], critical, float(margin), minimum, params["alpha"])
        rows[route] |= {"scores": summary["scores"], "kinds_of_critical": summary["critical"]}
    return {"name": "comparison", "content": {"host": params["name"], "routes": rows}}


def main() -> None:
    """Arguments, wait, one reading."""
    module = AnsibleModule(
        argument_spec={
            "minimums": {"type": "dict", "required": True},
            "margins": {"type": "dict", "required": True},
            "alpha": {"type": "float", "required": True},
            "weights": {"type": "dict", "default": {}},
            "wait_s": {"type": "float", "default": 20.0},
            "metrics_port": {"type": "int", "default": 9402},
            "logs": {"type": "path", "default": "/var/log/gpu-cutover"},
            "state": {"type": "path", "default": "/var/lib/gpu-cutover/mirror.json"},
            "name": {"type": "str", "default": "gateway"},
            "attach": {"type": "str", "choices": ["comparison", "latency"], "default": "comparison"},
        },
        supports_check_mode=True,
    )
    since, began = _begin(module)
    deadline = time.monotonic() + (0 if module.check_mode else module.params["wait_s"])
    reading = _look(module, since)
    while not _enough(reading, module.params["minimums"]) and time.monotonic() < deadline:
        time.sleep(1.0)
        reading = _look(module, since)
    enough = module.check_mode or _enough(reading, module.params["minimums"])
    seen = any(summary["n"] for summary in reading["routes"].values())
    if seen or not told.peers():  # a gateway that no clinic talked to has nothing to show
        reading["attachment"] = _attachment(module, reading)
    module.exit_json(changed=began, enough=enough, reading=reading)


if __name__ == "__main__":
    main()
