"""Every GPU of the catalog can stand in a tier: unknown figures reach the plan, the gate and the twin without harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.catalog import Catalog, load_catalog
from gpu_cutover.gates.day03 import all_reduce
from gpu_cutover.planning import derive
from gpu_cutover.site import load_site
from gpu_cutover.twin.standins import boards

SITE = Path(__file__).parents[2] / "inventory" / "example-h100"
GPUS = sorted(load_catalog().gpus)


def catalog_with(gpu: str) -> Catalog:
    catalog = load_catalog()
    return replace(catalog, tiers={name: replace(tier, gpu=gpu) for name, tier in catalog.tiers.items()})


@pytest.mark.parametrize("gpu", GPUS)
def test_its_plan_is_plain_json_and_a_floor_nobody_measured_holds_the_gate(
    gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = catalog_with(gpu)
    monkeypatch.setattr(derive, "load_catalog", lambda: catalog)
    plan: dict[str, Any] = derive.derive(load_site(SITE))
    assert json.loads(json.dumps(plan)) == plan
    checks = all_reduce("gpu1", plan, {"gpus": 4, "busbw_gb_s": 1000.0, "wrong": 0}, "")
    known = 4 in catalog.gpus[gpu].busbw_floor_gb_s
    assert [(check.id, check.status) for check in checks] == [
        ("nccl.busbw", "pass" if known else "unproven"),
        ("nccl.wrong", "pass"),
    ]


@pytest.mark.parametrize("gpu", GPUS)
def test_the_twin_can_simulate_it(gpu: str) -> None:
    [board] = boards({"tier": "h100-sxm-4"}, {"gpus": [{"serial": "1"}]}, catalog_with(gpu))
    assert None not in board.values()
    assert board["tlimit_shutdown"] < board["tlimit_slowdown"] < 0
    assert 0 <= board["reserved_mib"] < board["memory_mib"]
