"""Day 7's gate: everything scraped, every drill back in time with its alert."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpu_cutover.gates import day07
from gpu_cutover.gates.check import Verdict, verdict_of

PLAN = {
    "hosts": {"gpu": ["gpu1"], "gateway": ["gw1"], "monitor": ["mon1"]},
    "gates": {"recovery_max_s": 30, "alert_max_s": 60},
}


def drill(**changes: Any) -> dict[str, Any]:
    return {
        "unit": "u",
        "t": 1.0,
        "detection_s": 0.1,
        "recovery_s": 2.0,
        "alert": "UnitRestarted",
        "alert_s": 3.0,
    } | changes


def good() -> dict[str, Any]:
    return {
        "monitoring": {
            "mon1": {
                "expected": ["a", "b"],
                "up": ["a", "b"],
                "down": {},
                "unknown": [],
                "rules": ["HostLost", "Watchdog"],
                "rules_missing": [],
                "rules_foreign": [],
                "rules_broken": [],
                "rules_shipped": True,
                "rules_taken_up": True,
                "alertmanagers": ["x"],
                "certificate_days": 396.0,
            }
        },
        "alarms": {
            "mon1": {
                "wanted": ["UnitRestarted"],
                "listeners": {
                    "gw1": {"watchdog_age_s": 2.0, "patience_s": 25.0, "heard": ["UnitRestarted"], "missing": []}
                },
            }
        },
        "recovery": {"gpu1": {"drills": {"engine": drill(), "guard": drill()}}, "gw1": {"drills": {"router": drill()}}},
        "engine_health": {"gpu1": {"engines": {"m": {"active": True, "healthy": True}}}},
    }


def verdict(readings: dict[str, Any]) -> Verdict:
    return verdict_of(day07.checks(PLAN, readings))


def test_all_good_promotes() -> None:
    assert verdict(good()) is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["monitoring", "mon1", "up"], ["a"], Verdict.FAIL),
        (["monitoring", "mon1", "expected"], [], Verdict.HOLD),
        (["monitoring", "mon1"], {"error": "no answer"}, Verdict.HOLD),
        (["monitoring", "mon1", "rules"], [], Verdict.HOLD),
        (["monitoring", "mon1", "rules_missing"], ["HostLost"], Verdict.FAIL),
        (["monitoring", "mon1", "rules_foreign"], ["SomebodyElses"], Verdict.FAIL),
        (["monitoring", "mon1", "rules_shipped"], False, Verdict.FAIL),
        (["monitoring", "mon1", "rules_taken_up"], False, Verdict.FAIL),
        (["alarms", "mon1"], {"error": "dry run"}, Verdict.HOLD),
        (["alarms", "mon1", "wanted"], [], Verdict.HOLD),
        (["alarms", "mon1", "listeners"], {}, Verdict.HOLD),
        (["alarms", "mon1", "listeners", "gw1"], {"error": "refused"}, Verdict.HOLD),
        (["alarms", "mon1", "listeners", "gw1", "watchdog_age_s"], None, Verdict.HOLD),
        (["alarms", "mon1", "listeners", "gw1", "watchdog_age_s"], 26.0, Verdict.FAIL),
        (["alarms", "mon1", "listeners", "gw1", "heard"], [], Verdict.FAIL),
        (["monitoring", "mon1", "rules_broken"], ["TargetDown"], Verdict.FAIL),
        (["monitoring", "mon1", "alertmanagers"], [], Verdict.FAIL),
        (["recovery", "gpu1", "drills", "engine", "recovery_s"], 31.0, Verdict.FAIL),
        (["recovery", "gpu1", "drills", "engine", "recovery_s"], None, Verdict.FAIL),
        (["recovery", "gpu1", "drills", "guard", "alert_s"], None, Verdict.FAIL),
        (["recovery", "gpu1", "drills", "guard", "alert_s"], 61.0, Verdict.FAIL),
        (["recovery", "gpu1", "drills", "engine"], {"error": "was not healthy", "t": 0.0}, Verdict.HOLD),
        (["recovery", "gpu1", "drills"], {}, Verdict.HOLD),
        (["recovery", "gw1"], {"error": "dry run"}, Verdict.HOLD),
        (["engine_health", "gpu1", "engines", "m", "healthy"], False, Verdict.FAIL),
        (["engine_health", "gpu1"], {"error": "no placements"}, Verdict.HOLD),
    ],
)
def test_one_defect_never_promotes(path: list[str], value: Any, expected: Verdict) -> None:
    readings = copy.deepcopy(good())
    place = readings
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert verdict(readings) is expected


def test_no_readings_hold() -> None:
    assert {check.status for check in day07.checks(PLAN, {})} == {"unproven"}
