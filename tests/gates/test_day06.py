"""Day 6's gate: a good burn-in promotes, each single defect does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpu_cutover.gates import day06
from gpu_cutover.gates.check import Verdict, verdict_of

PLAN = {
    "hosts": {"gpu": ["gpu1"]},
    "durations": {"burn_in_s": 100},
    "gates": {
        "thermal_margin_min_celsius": 5.0,
        "throughput_spread_max": 0.05,
        "throughput_drift_max": 0.03,
        "telemetry_coverage_min": 0.95,
    },
    "tier": {"profile": {"gpu_count": 2}},
}
GPU = {
    "below_floor_celsius_s": 0.0,
    "margin_min_celsius": 20,
    "forbidden_bits": {},
    "bits_samples": 100,
    "ecc_uncorrected_delta": 0,
    "remap_uncorrected_delta": 0,
    "remap_pending_last": 0,
    "remap_failure_last": 0,
    "pcie_replays_delta": 0,
    "compute_errors": 0,
    "tflops_drift": 0.001,
    "power_high_w": 348.0,
    "limit_w": 350.0,
}
READING = {
    "duration_s": 100,
    "finished": 1100.0,
    "elapsed_s": 100.0,
    "coverage": 0.99,
    "breaks": [],
    "xids_hardware": [],
    "tflops_spread": 0.01,
    "gpus": {"0": GPU, "1": GPU},
}


def verdict(reading: dict[str, Any]) -> Verdict:
    return verdict_of(day06.checks(PLAN, {"burn_in": {"gpu1": reading}}))


def changed(**changes: Any) -> dict[str, Any]:
    reading = copy.deepcopy(READING)
    for key, value in changes.items():
        if key in reading:
            reading[key] = value
        else:
            reading["gpus"]["1"][key] = value
    return reading


def test_a_good_burn_in_promotes() -> None:
    assert verdict(changed()) is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"duration_s": 90}, Verdict.FAIL),
        ({"finished": None}, Verdict.HOLD),
        ({"coverage": 0.5}, Verdict.HOLD),
        ({"coverage": None}, Verdict.HOLD),
        ({"breaks": [{"seconds": 20.0, "reboot": True}]}, Verdict.HOLD),
        ({"breaks": None}, Verdict.HOLD),
        ({"xids_hardware": [[1.0, 1, 79]]}, Verdict.FAIL),
        ({"tflops_spread": 0.06}, Verdict.FAIL),
        ({"tflops_spread": None}, Verdict.HOLD),
        ({"below_floor_celsius_s": 0.5}, Verdict.FAIL),
        ({"below_floor_celsius_s": None}, Verdict.HOLD),
        ({"forbidden_bits": {"0x40": 1}}, Verdict.FAIL),
        ({"bits_samples": 0}, Verdict.HOLD),
        ({"ecc_uncorrected_delta": 1}, Verdict.FAIL),
        ({"ecc_uncorrected_delta": None}, Verdict.HOLD),
        ({"remap_pending_last": 1}, Verdict.FAIL),
        ({"remap_failure_last": None}, Verdict.HOLD),
        ({"compute_errors": 1}, Verdict.FAIL),
        ({"tflops_drift": 0.04}, Verdict.FAIL),
        ({"tflops_drift": None}, Verdict.HOLD),
        ({"power_high_w": 300.0}, Verdict.FAIL),
        ({"limit_w": None}, Verdict.HOLD),
    ],
)
def test_one_defect_never_promotes(changes: dict[str, Any], expected: Verdict) -> None:
    assert verdict(changed(**changes)) is expected


@pytest.mark.parametrize("readings", [{}, {"burn_in": {}}, {"burn_in": {"gpu1": {"error": "hung"}}}])
def test_no_reading_holds(readings: dict[str, Any]) -> None:
    checks = day06.checks(PLAN, readings)
    assert {check.status for check in checks} == {"unproven"}


def test_a_gpu_without_figures_is_unproven() -> None:
    reading = changed()
    del reading["gpus"]["1"]
    assert verdict(reading) is Verdict.HOLD


@pytest.mark.parametrize(("replays", "expected"), [(1, Verdict.PROMOTE), (2, Verdict.FAIL), (None, Verdict.HOLD)])
def test_a_pcie_link_that_often_replays_is_not_accepted(replays: int | None, expected: Verdict) -> None:
    assert verdict(changed(pcie_replays_delta=replays)) is expected
