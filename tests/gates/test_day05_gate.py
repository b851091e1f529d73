"""Day 5's gate: the accepted figure judges, the plan's figure always stands beside it, nothing unmeasured passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpu_cutover.gates.check import Verdict, verdict_of
from gpu_cutover.gates.day05 import checks

REVISION = "a" * 40
TIMES = {
    "first_token_p50_s": 1.0,
    "first_token_p95_s": 1.2,
    "inter_token_p50_s": 0.04,
    "total_p50_s": 2.0,
    "total_p95_s": 2.4,
}
GOOD = {"requests": 3, "failed": 0, "errors": [], **TIMES}


def target(name: str, plan: float, accepted: float, better: str = "lower", by: str = "") -> dict[str, Any]:
    return {"name": name, "title": name, "plan": plan, "accepted": accepted, "unit": "s", "better": better, "by": by}


PLAN: dict[str, Any] = {
    "hosts": {"gpu": ["gpu1"], "gateway": ["gw1"]},
    "gates": {"smoke_requests_min": 3},
    "engines": {"bge-m3": {"revision": REVISION, "locked": True}},
    "placements": {"healthy": {"routes": {"chat": "m", "embed": "bge-m3"}}},
    "targets": [
        target("soap_p95_s", 2.0, 45.0, by="Founder"),
        target("concurrent_soap", 12, 12, "higher"),
        target("availability", 0.999, 0.999, "higher"),
    ],
}
READINGS: dict[str, Any] = {
    "models": {
        "gpu1": {
            "verification": "full",
            "quarantined": [],
            "models": {"bge-m3": {"revision": REVISION, "files": 4, "bytes": 400, "verified": 4}},
        }
    },
    "doors": {"gw1": {"edge": {"chat": {"ok": True}, "embed": {"ok": True}}}},
    "smoke": {
        "gw1": {
            "workloads": {"chat": GOOD, "soap": GOOD, "embed": GOOD},
            "burst": {"soap": {**GOOD, "requests": 12}, "chat": {**GOOD, "requests": 30}},
            "figures": {"soap_p95_s": 24.0, "concurrent_soap": 12},
        }
    },
}


def judged(path: tuple[str, ...] = (), value: object = None) -> tuple[Verdict, list[str], str]:
    readings = copy.deepcopy(READINGS)
    place = readings
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    elif path:
        place[path[-1]] = value
    found = checks(PLAN, readings)
    lines = "\n".join(check.line() for check in found)
    return verdict_of(found), [check.id for check in found if check.status != "pass"], lines


def test_targets_met_are_promoted_and_the_gap_to_the_plan_is_stated() -> None:
    verdict, ids, lines = judged()
    assert (verdict, ids) == (Verdict.PROMOTE, [])
    assert "the plan's target is 2 s, restated to 45 s by Founder; gap to the plan 22 s" in lines
    assert "the plan's target is 12 s; the plan is met" in lines


def test_a_model_that_is_rolled_back_is_not_timed_against_the_cloud_but_holds() -> None:
    reading = copy.deepcopy(READINGS["smoke"]["gw1"])
    del reading["workloads"]["embed"]
    verdict, ids, lines = judged(("smoke", "gw1"), {**reading, "rolled_back": {"embed": "bge-m3"}})
    assert (verdict, ids) == (Verdict.HOLD, ["smoke.embed.in_service"])
    assert "bge-m3 is rolled back" in lines


def test_a_rolled_back_chat_model_takes_the_notes_with_it() -> None:
    assert judged(("smoke", "gw1", "rolled_back"), {"chat": "m"})[1] == [
        "smoke.chat.in_service",
        "smoke.soap.in_service",
    ]


def test_availability_is_not_judged_by_a_benchmark() -> None:
    assert "availability" not in judged()[2]


@pytest.mark.parametrize(
    ("path", "value", "verdict", "check"),
    [
        (("smoke", "gw1", "figures", "soap_p95_s"), 45.1, "fail", "target.soap_p95_s"),
        (("smoke", "gw1", "figures", "soap_p95_s"), None, "hold", "target.soap_p95_s"),
        (("smoke", "gw1", "figures", "concurrent_soap"), 11, "fail", "target.concurrent_soap"),
        (("smoke", "gw1", "figures"), {}, "hold", "target.concurrent_soap"),
        (
            ("smoke", "gw1", "workloads", "chat"),
            {**GOOD, "failed": 1, "errors": ["answered 500"]},
            "fail",
            "smoke.chat.failed",
        ),
        (("smoke", "gw1", "workloads", "embed"), {**GOOD, "requests": 2}, "fail", "smoke.embed.answered"),
        (("smoke", "gw1", "workloads", "embed"), ..., "hold", "smoke.embed.answered"),
        (("smoke", "gw1", "burst", "chat"), {**GOOD, "failed": 2}, "fail", "burst.chat.failed"),
        (("smoke", "gw1"), {"error": "a dry run sends nothing"}, "hold", "smoke.chat.answered"),
        (("models", "gpu1", "models", "bge-m3", "verified"), 3, "fail", "models.bge-m3"),
        (("models", "gpu1", "models", "bge-m3", "revision"), "b" * 40, "hold", "models.bge-m3"),
        (("models", "gpu1", "models"), {}, "hold", "models.bge-m3"),
        (("models", "gpu1", "quarantined"), ["/srv/models/x"], "fail", "models.altered"),
        (("models", "gpu1", "verification"), "new", "fail", "models.verification"),
        (("models", "gpu1"), {"error": "disk"}, "hold", "models.verification"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_what_falls_short_or_is_missing_is_found(
    path: tuple[str, ...], value: object, verdict: str, check: str
) -> None:
    got, ids, _ = judged(path, value)
    assert (got, check in ids) == (verdict, True), ids


def test_the_benchmark_runs_once_and_every_gateway_answers_every_route_alone() -> None:
    plan = {**PLAN, "hosts": {**PLAN["hosts"], "gateway": ["gw1", "gw2"]}}
    readings = copy.deepcopy(READINGS)
    readings["doors"]["gw2"] = {"edge": {"chat": {"ok": True}, "embed": {"ok": False, "error": "answered 503"}}}
    failed = [(check.id, check.host) for check in checks(plan, readings) if check.status != "pass"]
    assert failed == [("door.embed", "gw2")]
    del readings["doors"]["gw2"]
    assert verdict_of(checks(plan, readings)) is Verdict.HOLD
