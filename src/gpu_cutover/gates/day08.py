"""Day 8: are our answers not worse than the cloud's, fast enough, and enough at once? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .check import FAIL, Check, at_least, at_most, first_reading, reading_of, unproven
from .sequential import lower_bound

SOURCE_MARGIN = "site.gates.mirror_margins"


def route_row(scores: Sequence[float], critical: int, margin: float, minimum: int, alpha: float) -> dict[str, Any]:
    """A route's comparison as the gate sees it and the report shows it.

    `score` is the mean (1 = as good as the cloud's answer); `bound` the anytime-valid lower bound of on-prem minus
    cloud; `best` the upper one. `verdict`: pass, fail (proven worse than the margin, or any critical
    difference) or unproven.
    """
    count = len(scores)
    if count == 0:
        return {
            "n": 0,
            "score": None,
            "bound": None,
            "best": None,
            "margin": margin,
            "critical": critical,
            "verdict": "unproven",
        }
    bound = lower_bound(scores, alpha) - 1.0
    best = -lower_bound([1.0 - score for score in scores], alpha)
    verdict = "pass" if bound >= -margin and count >= minimum else "unproven"
    if best < -margin or critical:
        verdict = "fail"
    return {
        "n": count,
        "score": sum(scores) / count,
        "bound": bound,
        "best": best,
        "margin": margin,
        "critical": critical,
        "verdict": verdict,
    }


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """Every check of the day. What the gateways compared counts together: clinics talk to one of them at a time."""
    gateways = plan["hosts"]["gateway"]
    host = gateways[0] if len(gateways) == 1 else None
    mirror, why = together(readings, gateways)
    found: list[Check] = []
    for route in plan["gates"]["mirror_margins"]:
        found += _route(plan["gates"], route, mirror, why, host)
    found.append(_coverage(plan["gates"], mirror, why, host))
    found += _latency(plan, mirror, why, host)
    return found + _capacity(plan, readings, gateways)


def together(readings: Mapping[str, Any], gateways: Sequence[str]) -> tuple[Mapping[str, Any], str]:
    """(what all gateways' mirrors showed, why it is missing). One gateway that cannot be read may hide anything."""
    parts = []
    for host in gateways:
        reading, why = reading_of(readings, "mirror", host)
        if why:
            return {}, why
        parts.append(reading)
    if len(parts) == 1:
        return parts[0], ""
    routes: dict[str, dict[str, Any]] = {}
    for part in parts:
        for route, row in _mapping(part.get("routes")).items():
            whole = routes.setdefault(route, {"scores": [], "critical": {}})
            whole["scores"] += row.get("scores") or []
            for kind, count in _mapping(row.get("critical")).items():
                whole["critical"][kind] = whole["critical"].get(kind, 0) + count
    coverages = [_mapping(part.get("coverage")) for part in parts]
    due = sum(one.get("eligible") or 0 for one in coverages)
    share = sum(one.get("compared") or 0 for one in coverages) / due if due else None
    return {"routes": routes, "coverage": {"share": share}, "latency": _slowest(parts)}, ""


def _slowest(parts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The slower gateway's figures, by workload: percentiles do not add up."""
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        for workload, figures in _mapping(part.get("latency")).items():
            mine = found.setdefault(workload, {})
            for name, figure in figures.items():
                if figure is not None:
                    mine[name] = max(figure, mine.get(name, figure))
    return found


def _route(gates: Mapping[str, Any], route: str, mirror: Mapping[str, Any], why: str, host: str | None) -> list[Check]:
    row = _mapping(_mapping(mirror.get("routes")).get(route))
    margin, minimum = gates["mirror_margins"][route], gates["mirror_comparisons_min"][route]
    scores = row.get("scores") if isinstance(row.get("scores"), list) else []
    critical = sum(_mapping(row.get("critical")).values())
    judged = route_row(scores or [], critical, margin, minimum, gates["confidence_alpha"])
    sentence = f"{route}: on-prem answers are not worse than the cloud's by more than the margin"
    enough = at_least(
        f"mirror.{route}.compared", judged["n"] if row else None, minimum, "", "site.gates.mirror_comparisons_min",
        f"{route}: enough answers were compared", host, why,
    )  # fmt: skip
    if enough.status == FAIL:  # too few is not bad, only not enough
        missing = f"{minimum - judged['n']} more answers needed"
        enough = unproven(enough.id, enough.source, enough.sentence, host, missing, limit=minimum)
    bound = at_least(
        f"mirror.{route}.bound", judged["bound"], -margin, "", SOURCE_MARGIN, sentence, host, why or "nothing compared"
    )
    if bound.status == FAIL and judged["best"] >= -margin:
        reason = f"bound {judged['bound']:.3f} after {judged['n']} answers, more are needed"
        bound = unproven(bound.id, SOURCE_MARGIN, sentence, host, reason, limit=-margin, relation="at least")
    harm = at_most(
        f"mirror.{route}.critical", critical if row else None, 0, "", "facts: a changed dose or number is no style",
        f"{route}: no critical difference (dose, number, negation, drug, refusal, truncation)", host, why,
    )  # fmt: skip
    return [enough, bound, harm]


def _coverage(gates: Mapping[str, Any], mirror: Mapping[str, Any], why: str, host: str | None) -> Check:
    share = _mapping(mirror.get("coverage")).get("share")
    sentence = "share of the clinics' requests that were compared"
    return at_least(
        "mirror.coverage",
        share,
        gates["mirror_coverage_min"],
        "",
        "site.gates.mirror_coverage_min",
        sentence,
        host,
        why,
    )


def _latency(plan: Mapping[str, Any], mirror: Mapping[str, Any], why: str, host: str | None) -> list[Check]:
    by_workload = _mapping(mirror.get("latency"))
    soap, audio = _mapping(by_workload.get("soap")), _mapping(by_workload.get("audio"))
    # Notes and recordings are as long as the clinics made them: only the first token measures a target of the plan.
    # Notes of 400 tokens and recordings of 10 minutes are timed on day 5; longer than those targets nothing may take.
    figures = {
        "soap_first_token_p95_s": ("soap_first_token_p95_s", soap.get("first_byte_p95_s"), "first token of SOAP notes"),
        "soap_own_length": ("soap_p95_s", soap.get("p95_s"), "whole SOAP notes at the clinics' own length"),
        "audio_own_length": ("whisper_p95_s", audio.get("p95_s"), "recordings at the clinics' own length"),
    }
    return [
        at_most(
            f"mirror.{name}", figure, _accepted(plan, target), "s", "site.targets",
            f"{sentence}, under the clinics' own load, p95", host, why,
        )
        for name, (target, figure, sentence) in figures.items()
    ]  # fmt: skip


def _capacity(plan: Mapping[str, Any], readings: Mapping[str, Any], gateways: Sequence[str]) -> list[Check]:
    host, reading, why = first_reading(readings, "capacity", gateways)
    return [
        at_least(
            f"mirror.{name}", reading.get(name), _accepted(plan, name), "sessions", "site.targets",
            f"{words} held at the same time, first token in time", host, why,
        )
        for name, words in (("concurrent_soap", "SOAP sessions"), ("concurrent_chat", "chat sessions"))
    ]  # fmt: skip


def _accepted(plan: Mapping[str, Any], name: str) -> float | None:
    return next((target["accepted"] for target in plan["targets"] if target["name"] == name), None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
