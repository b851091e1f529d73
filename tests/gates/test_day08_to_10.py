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


TWO = {**PLAN, "hosts": {"gateway": ["gw1", "gw2"]}}


def two(day: int, **second: Any) -> tuple[Verdict, list[str]]:
    """A second gateway that no clinic talked to; `second` says what it tells otherwise, by subject."""
    readings = copy.deepcopy(READINGS)
    readings["mirror"]["gw2"] = {
        "routes": {route: {"n": 0, "scores": [], "critical": {}} for route in ROUTES},
        "latency": {},
        "coverage": {"eligible": 0, "compared": 0, "share": None},
    }
    readings["mirror"]["gw1"]["coverage"] = {"eligible": 100, "compared": 99, "share": 0.99}
    quiet = {"verdict": "clean", "reason": "", "requests": 0, "errors": 0, "error_rate": None}
    readings["routes"]["gw2"] = {**readings["routes"]["gw1"], "watches": {"zam": quiet, "amanah": quiet}}
    readings["drill"]["gw2"], readings["router"]["gw2"] = readings["drill"]["gw1"], readings["router"]["gw1"]
    for subject, reading in second.items():
        if reading is None:
            del readings[subject]["gw2"]
        else:
            readings[subject]["gw2"] = {**readings[subject]["gw2"], **reading}
    found = DAYS[day].checks(TWO, readings)
    return verdict_of(found), [check.id for check in found if check.status != "pass"]


@pytest.mark.parametrize("day", DAYS)
def test_a_gateway_that_no_clinic_talked_to_holds_nothing_up(day: int) -> None:
    assert two(day) == (Verdict.PROMOTE, [])


def test_what_two_gateways_compared_counts_together() -> None:
    split = {"routes": {route: {"n": 4, "scores": [1.0] * 4, "critical": {}} for route in ROUTES}}
    assert two(8, mirror=split)[0] is Verdict.PROMOTE
    harm = {"routes": {"chat": {"n": 1, "scores": [1.0], "critical": {"a dose differs": 1}}}}
    assert two(8, mirror=harm) == (Verdict.FAIL, ["mirror.chat.critical"])
    missed = {"coverage": {"eligible": 100, "compared": 80, "share": 0.8}}
    assert two(8, mirror=missed) == (Verdict.FAIL, ["mirror.coverage"])
    slow = {"latency": {"soap": {"p95_s": 46.0, "first_byte_p95_s": 1.0}}}
    assert two(8, mirror=slow) == (Verdict.FAIL, ["mirror.soap_own_length"])


@pytest.mark.parametrize("day", [8, 9, 10])
def test_a_gateway_that_cannot_be_read_holds_the_day(day: int) -> None:
    subject = {8: "mirror", 9: "routes", 10: "routes"}[day]
    assert two(day, **{subject: None})[0] is Verdict.HOLD


def test_a_gateway_whose_table_says_otherwise_fails_the_day() -> None:
    behind = {"states": {name: {"chat": "cloud"} for name in ("zam", "amanah")}}
    assert two(9, routes=behind) == (Verdict.FAIL, ["routes.zam"])


def test_watches_are_one_watch() -> None:
    few = {"verdict": "clean", "reason": "", "requests": 4, "errors": 0, "error_rate": 0.0}
    assert two(9, routes={"watches": {"zam": {**few, "verdict": "rolled_back"}}})[0] is Verdict.FAIL
    assert two(9, routes={"watches": {"zam": {**few, "errors": 4}}}) == (Verdict.FAIL, ["watch.zam.error_rate"])
    assert two(9, routes={"watches": {}})[0] is Verdict.HOLD
