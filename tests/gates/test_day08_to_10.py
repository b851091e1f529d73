"""The gates of days 8 to 10: what promotes, what holds, what fails."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpu_cutover.gates import day08, day09, day10
from gpu_cutover.gates.check import Verdict, verdict_of

ROUTES = ("audio", "chat")
PLAN: dict[str, Any] = {
    "hosts": {"gateway": ["gw1"]},
    "gates": {
        "mirror_margins": dict.fromkeys(ROUTES, 0.03),
        "mirror_comparisons_min": dict.fromkeys(ROUTES, 5),
        "mirror_coverage_min": 0.95,
        "confidence_alpha": 0.01,
        "watch_requests_min": 10,
        "watch_error_rate_max": 0.05,
        "rollback_max_s": 1.0,
    },
    "durations": {"drill_max_age_s": 86400},
    "targets": [
        {"name": name, "accepted": accepted}
        for name, accepted in {
            "soap_p95_s": 45.0,
            "soap_first_token_p95_s": 2.0,
            "whisper_p95_s": 4.0,
            "concurrent_soap": 12.0,
            "concurrent_chat": 30.0,
        }.items()
    ],
    "cutover": {"first": "zam", "order": ["zam", "amanah"]},
    "tenants": {
        "zam": {"policy": "standard", "synthetic": False, "declared": {"chat": "onprem"}},
        "amanah": {"policy": "sensitive", "synthetic": False, "declared": {"chat": "onprem"}},
        "drill": {"policy": "standard", "synthetic": True, "declared": {"chat": "onprem"}},
    },
}
MIRROR: dict[str, Any] = {
    "routes": {route: {"n": 8, "scores": [1.0] * 8, "critical": {}} for route in ROUTES},
    "latency": {"soap": {"p95_s": 20.0, "first_byte_p95_s": 1.0}, "audio": {"p95_s": 2.0}},
    "coverage": {"share": 0.99},
}
CLEAN = {"verdict": "clean", "reason": "", "requests": 40, "errors": 0, "error_rate": 0.0}
READINGS: dict[str, Any] = {
    "mirror": {"gw1": MIRROR},
    "capacity": {"gw1": {"concurrent_soap": 12, "concurrent_chat": 30}},
    "drill": {
        "gw1": {"served_after_cutover": "onprem", "served_after_rollback": "cloud", "rollback_s": 0.01, "age_s": 0}
    },
    "routes": {
        "gw1": {
            "states": {name: {"chat": "onprem"} for name in ("zam", "amanah")},
            "watches": {"zam": CLEAN, "amanah": CLEAN},
            "cloud_attempts": {"zam": 10, "amanah": 0},
        }
    },
    "router": {"gw1": {"seal": {"router-sealed": {"refused": True}}}},
}
DAYS = {8: day08, 9: day09, 10: day10}


def verdict(day: int, path: str = "", value: Any = None) -> Verdict:
    readings = copy.deepcopy(READINGS)
    if path:
        *parents, last = path.split(".")
        place = readings
        for name in parents:
            place = place[name]
        place[last] = value
    return verdict_of(DAYS[day].checks(PLAN, readings))


@pytest.mark.parametrize("day", DAYS)
def test_good_readings_promote(day: int) -> None:
    assert verdict(day) is Verdict.PROMOTE


@pytest.mark.parametrize("day", DAYS)
def test_no_readings_hold(day: int) -> None:
    checks = DAYS[day].checks(PLAN, {})
    assert {check.status for check in checks} == {"unproven"}


@pytest.mark.parametrize(
    ("day", "path", "value", "expected"),
    [
        (8, "mirror.gw1.routes.chat.scores", [1.0] * 4, Verdict.HOLD),
        (8, "mirror.gw1.routes.chat.scores", [], Verdict.HOLD),
        (8, "mirror.gw1.routes.chat.scores", [0.9, 1.0] * 4, Verdict.HOLD),
        (8, "mirror.gw1.routes.chat.scores", [0.5] * 400, Verdict.FAIL),
        (8, "mirror.gw1.routes.chat.critical", {"a dose differs": 1}, Verdict.FAIL),
        (8, "mirror.gw1.coverage", {"share": 0.9}, Verdict.FAIL),
        (8, "mirror.gw1.coverage", {"share": None}, Verdict.HOLD),
        (8, "mirror.gw1.latency.soap.p95_s", 46.0, Verdict.FAIL),
        (8, "mirror.gw1.latency", {}, Verdict.HOLD),
        (8, "mirror.gw1", {"error": "the module hung"}, Verdict.HOLD),
        (8, "capacity.gw1.concurrent_soap", 11, Verdict.FAIL),
        (9, "drill.gw1.rollback_s", 1.2, Verdict.FAIL),
        (9, "drill.gw1.served_after_rollback", "onprem", Verdict.FAIL),
        (9, "drill.gw1.served_after_rollback", None, Verdict.HOLD),
        (9, "drill.gw1.age_s", 90_000, Verdict.FAIL),
        (9, "routes.gw1.states.zam", {"chat": "cloud"}, Verdict.FAIL),
        (9, "routes.gw1.watches.zam", {**CLEAN, "verdict": "rolled_back"}, Verdict.FAIL),
        (9, "routes.gw1.watches.zam", {**CLEAN, "verdict": "running"}, Verdict.HOLD),
        (9, "routes.gw1.watches.zam", {**CLEAN, "verdict": "short", "requests": 3}, Verdict.HOLD),
        (9, "routes.gw1.watches", {}, Verdict.HOLD),
        (10, "routes.gw1.cloud_attempts.amanah", 1, Verdict.FAIL),
        (10, "routes.gw1.cloud_attempts", {}, Verdict.HOLD),
        (10, "router.gw1.seal.router-sealed.refused", False, Verdict.FAIL),
        (10, "router.gw1.seal", {}, Verdict.HOLD),
        (10, "routes.gw1.watches.amanah", {**CLEAN, "verdict": "bad"}, Verdict.FAIL),
    ],
)
def test_what_holds_and_what_fails(day: int, path: str, value: Any, expected: Verdict) -> None:
    assert verdict(day, path, value) is expected
