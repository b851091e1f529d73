"""Day 5: is every model file what the lock says, and does every route answer within its target?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import Check, at_least, at_most, equals, first_reading, reading_of, unproven

Plan = Mapping[str, Any]
Readings = Mapping[str, Mapping[str, Mapping[str, Any]]]

LOCK = "records/models.lock.json"
MINIMUM = "site.gates.smoke_requests_min"
TARGETS = "site.targets"
CONTRACT = "either gateway serves everything"
# Judged elsewhere: availability needs days of traffic, not a benchmark.
NOT_HERE = frozenset({"availability"})


def checks(plan: Plan, readings: Readings) -> list[Check]:
    """All checks of day 5. `readings`: `models` of GPU hosts, `doors` of gateways, `smoke` of one of them."""
    found: list[Check] = []
    for host in plan["hosts"]["gpu"]:
        found += _models(plan, host, *reading_of(readings, "models", host))
    where, smoke, why = first_reading(readings, "smoke", plan["hosts"]["gateway"])
    found += _smoke(plan, where, smoke, why)
    for host in plan["hosts"]["gateway"]:
        found += _doors(plan, host, *reading_of(readings, "doors", host))
    return found


def _doors(plan: Plan, host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    """Any gateway alone serves everything: each route answered through its own edge."""
    asked = reading.get("edge", {})
    return [
        equals(f"door.{route}", asked.get(route, {}).get("ok"), True, "", CONTRACT,
               f"{route}: a question to this gateway alone was answered", host,
               why or str(asked.get(route, {}).get("error", "")))
        for route in sorted(plan["placements"]["healthy"]["routes"])
    ]  # fmt: skip


def _models(plan: Plan, host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    found = [
        equals("models.verification", reading.get("verification"), "full", "", LOCK,
               "every byte was read again from the disk", host, why),
        equals("models.altered", len(reading["quarantined"]) if "quarantined" in reading else None, 0, "files", LOCK,
               "no file was altered (an altered one was put aside and restored: run the day again)", host, why),
    ]  # fmt: skip
    for name, engine in sorted(plan["engines"].items()):
        told = reading.get("models", {}).get(name, {})
        files = told.get("files")
        sentence = (
            f"{name}, revision {engine['revision'][:12]}: all {files} files ({told.get('bytes', 0)} bytes) verified"
        )
        reason = why or "the lock has no files of this model"
        if not engine["locked"] or told.get("revision") != engine["revision"] or not files:
            found.append(unproven(f"models.{name}", LOCK, f"{name}: every file verified", host, reason))
        else:
            found.append(equals(f"models.{name}", told.get("verified"), files, "files", LOCK, sentence, host, why))
    return found


def _smoke(plan: Plan, host: str | None, reading: Mapping[str, Any], why: str) -> list[Check]:
    found = []
    workloads = reading.get("workloads", {})
    rolled_back = reading.get("rolled_back", {})
    for workload, route in _workloads(plan):
        if route in rolled_back:
            found.append(_out_of_service(workload, rolled_back[route], host))
        else:
            found += _route(plan, host, workload, workloads.get(workload, {}), why)
    for name, told in sorted(reading.get("burst", {}).items()):
        sentence = f"{told.get('requests')} {name} sessions at once were all answered{_errors(told)}"
        found.append(equals(f"burst.{name}.failed", told.get("failed"), 0, "requests", TARGETS, sentence, host))
    figures = reading.get("figures", {})
    found += [
        _target(target, figures.get(target["name"]), host, why)
        for target in plan["targets"]
        if target["name"] not in NOT_HERE
    ]
    return found


def _workloads(plan: Plan) -> list[tuple[str, str]]:
    """What is asked, and by which route: a note goes the way of a chat."""
    return [*((route, route) for route in sorted(plan["placements"]["healthy"]["routes"])), ("soap", "chat")]


def _out_of_service(workload: str, model: str, host: str | None) -> Check:
    why = f"{model} is rolled back and the cloud answers; give it back with rollback -e model={model} -e clear=true"
    return unproven(f"smoke.{workload}.in_service", TARGETS, f"{workload}: answered by our own model", host, why)


def _errors(told: Mapping[str, Any]) -> str:
    errors = told.get("errors") or []
    return f" ({'; '.join(errors[:3])})" if errors else ""


def _route(plan: Plan, host: str | None, workload: str, told: Mapping[str, Any], why: str) -> list[Check]:
    """Enough requests, none failed; the measured times stand in the sentence."""
    paces = (
        ("first token", "first_token_p50_s", "first_token_p95_s"),
        ("between tokens", "inter_token_p50_s", "inter_token_p95_s"),
        ("in all", "total_p50_s", "total_p95_s"),
    )
    known = [(name, told.get(p50), told.get(p95)) for name, p50, p95 in paces if told.get(p50) is not None]
    times = "; ".join(f"{name} p50 {p50} s, p95 {p95} s" for name, p50, p95 in known) or "no times"
    answered = told["requests"] - told["failed"] if "requests" in told else None
    return [
        at_least(f"smoke.{workload}.answered", answered, plan["gates"]["smoke_requests_min"], "requests", MINIMUM,
                 f"{workload}: {times}", host, why),
        equals(f"smoke.{workload}.failed", told.get("failed"), 0, "requests", MINIMUM,
               f"{workload}: no request failed{_errors(told)}", host, why),
    ]  # fmt: skip


def _target(target: Mapping[str, Any], figure: object, host: str | None, why: str) -> Check:
    """Judged against the accepted figure; the plan's own, and the gap to it, always stand beside it."""
    sentence = f"{target['title']}: {_gap(target, figure)}"
    bound = at_least if target["better"] == "higher" else at_most
    return bound(f"target.{target['name']}", figure, target["accepted"], target["unit"], TARGETS, sentence, host, why)


def _gap(target: Mapping[str, Any], figure: object) -> str:
    unit = target["unit"]
    plan = f"the plan's target is {target['plan']:g} {unit}"
    restated = f", restated to {target['accepted']:g} {unit} by {target['by']}" if target["by"] else ""
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return f"{plan}{restated}; not measured"
    gap = figure - target["plan"] if target["better"] == "lower" else target["plan"] - figure
    return f"{plan}{restated}; " + ("the plan is met" if gap <= 0 else f"gap to the plan {gap:.3g} {unit}")
