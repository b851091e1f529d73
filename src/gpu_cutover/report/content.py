"""From the sources to what each section of the page says. Pure; a missing part is "no data", never nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from ..evidence.days import day_states
from ..evidence.records import Record
from ..guard.decide import Policy
from ..runs.days import DAYS
from ..runs.status import duration_s, moment, routing
from . import plots
from .figures import figure, listed, measured, numbers, percentile, rounded, rows, seconds, table, thinned, when
from .gather import Sources
from .routing import timeline
from .standins import STAND_INS

STATES = {"onprem": "on-prem", "off": "not served"}
GUARD = Policy()
WHAT = {"burn-in": "Burn-in", "derate": "De-rate", "restore": "Restore"}
SAMPLE_S = 2.0  # an event this long after the last sample still stands at the end of its curve
STEPS = ("current placement ", "engine ", "stopped ", "started ", "healthy ")
MARKS = {"pass": "✓", "fail": "✕", "unproven": "?"}


def build(sources: Sources) -> dict[str, Any]:
    """Everything the template prints."""
    gates = {int(r.data["day"]): r for r in sources.records if r.kind == "gate" and isinstance(r.data.get("day"), int)}
    days = [_day(number, gates, sources.records) for number in DAYS]
    return {
        "name": sources.name,
        "stage": sources.stage,
        "tier": sources.tier,
        "made": when(sources.made),
        "problems": sources.problems,
        "headline": headline(days, sources),
        "now": now(sources),
        "days": days,
        "targets": targets(sources, gates),
        "thermal": thermal(sources),
        "latency": latency(sources),
        "routing": timeline(sources),
        "comparison": comparison(sources),
        "derates": [_derate(record) for record in sources.records if record.kind in ("derate", "restore")],
        "rollbacks": [_route_change(record) for record in sources.records if record.kind == "rollback"],
        "cutovers": [_route_change(record) for record in sources.records if record.kind == "cutover"],
        "drills": [_drill(record) for record in sources.records if record.kind in ("drill", "watch", "hold")],
        "waivers": [_waiver(record) for record in sources.records if record.kind == "waiver"],
        "evidence": _evidence(sources),
        "stand_ins": STAND_INS if sources.stage == "twin" else [],
    }


def headline(days: Sequence[Mapping[str, Any]], sources: Sources) -> dict[str, str]:
    """One word, one sentence for the whole: a broken chain decides first, then the first day that is not behind us."""
    damaged = [words for level, words in sources.findings if level == "broken"]
    if damaged:
        return {"kind": "fail", "word": "Not trustworthy", "sentence": f"The evidence does not verify: {damaged[0]}"}
    behind = [day for day in days if day["verdict"] == "promote" or day["waived"]]
    waived = [str(day["number"]) for day in days if day["verdict"] != "promote" and day["waived"]]
    if len(behind) == len(days):
        if waived:
            sentence = f"All ten days are behind this site, but day {', '.join(waived)} only by waiver."
            return {"kind": "hold", "word": "Promoted with waivers", "sentence": sentence}
        return {"kind": "promote", "word": "Promoted", "sentence": "All ten days are behind this site."}
    first = next(day for day in days if day not in behind)
    if first["verdict"] is None:
        sentence = f"{len(behind)} of ten days are behind this site; next is day {first['number']}, {first['title']}."
        return {"kind": "hold", "word": "Under way", "sentence": sentence}
    open_checks = sorted((check for check in first["checks"] if check["status"] != "pass"), key=_open_first)
    because = _because(open_checks[0]) if open_checks else ""
    word = "Failed" if first["verdict"] == "fail" else "On hold"
    sentence = f"Day {first['number']}, {first['title']}, says {first['verdict']}.{because}"
    return {"kind": str(first["verdict"]), "word": word, "sentence": sentence}


def _because(check: Mapping[str, Any]) -> str:
    where = f" on {check['host']}" if check["host"] else ""
    return f" {check['sentence']}: {check['figure']}{where}, {check['limit']}."


def now(sources: Sources) -> list[tuple[str, str]]:
    """(tenant, where it is answered after the last record); a synthetic tenant serves nobody and is left out."""
    found = []
    for tenant, routes in sorted(routing(sources.records).items()):
        if table(sources.tenants.get(tenant)).get("synthetic"):
            continue
        states = sorted(set(routes.values()), key=list(routes.values()).count, reverse=True)
        others = [f"{route} {STATES.get(state, state)}" for route, state in routes.items() if state != states[0]]
        words = STATES.get(states[0], states[0]) if states else "no route"
        found.append((tenant, words + (f" ({', '.join(others)})" if others else "")))
    return found


def _day(number: int, gates: Mapping[int, Record], records: Sequence[Record]) -> dict[str, Any]:
    gate = gates.get(number)
    state = day_states(records)[number]
    attempts = [record for record in records if record.kind == "gate" and record.data.get("day") == number]
    checks = [_check(check) for check in rows(gate.data.get("checks"))] if gate else []
    return {
        "number": number,
        "title": DAYS[number],
        "verdict": state.verdict,
        "at": when(gate.time) if gate else "",
        "took": seconds(duration_s(gate.data)) if gate else "",
        "open": state.verdict not in ("promote", None),
        "earlier": [f"{r.data.get('verdict')} {when(r.time)} (record {r.sequence})" for r in attempts[:-1]],
        "record": gate.sequence if gate else None,
        "waived": f"by {state.waiver.by} until {state.waiver.until}: {state.waiver.reason}" if state.waiver else "",
        "checks": checks,
        "passed": sum(check["status"] == "pass" for check in checks),
        "hosts": _by_host(checks),
    }


def _by_host(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The checks of each host, of the whole site under "": hosts with open checks first, in them open checks first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for check in sorted(checks, key=_open_first):
        groups.setdefault(check["host"], []).append(check)
    return [
        {"host": host, "checks": group, "passed": sum(check["status"] == "pass" for check in group)}
        for host, group in groups.items()
    ]


def _open_first(check: Mapping[str, Any]) -> tuple[bool, bool]:
    """What failed, then what is unproven, then what passed."""
    return check["status"] == "pass", check["status"] != "fail"


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    unit = str(check.get("unit") or "")
    limit = check.get("limit")
    relation = str(check.get("relation") or "")
    status = str(check.get("status"))
    return {
        "status": status,
        "mark": MARKS.get(status, "?"),
        "id": str(check.get("id")),
        "host": str(check.get("host") or ""),
        "figure": measured(check.get("figure"), unit, limit),
        "limit": "–" if limit is None else f"{relation} {figure(limit, unit)}".strip(),
        "source": str(check.get("source") or ""),
        "sentence": str(check.get("sentence") or ""),
    }


def targets(sources: Sources, gates: Mapping[int, Record]) -> dict[str, Any]:
    """Plan, accepted and measured, and the bars of measured/accepted. Every day that measured one is told; the worst
    of them is drawn and gives the status, so that a light load on a later day cannot hide what a heavy one showed."""
    listed, bars = [], []
    for target in sources.targets:
        found = _measured(target["name"], gates)
        unit = target["unit"] if target["unit"] not in ("ratio", "sessions") else ""
        accepted, plan = figure(target["accepted"], unit), figure(target["plan"], unit)
        told = [f"{measured(c.get('figure'), unit, target['accepted'])} (day {day})" for day, c in found]
        worst = _worst(target, [check for _, check in found])
        value = worst.get("figure") if worst else None
        listed.append(
            {
                "title": target["title"],
                "plan": plan,
                "accepted": accepted,
                "restated": bool(target["reason"]),
                "reason": target["reason"],
                "by": target["by"],
                "measured": told or ["no data"],
                "mark": MARKS.get(str(worst.get("status")), "?") if worst else "?",
                "status": str(worst.get("status")) if worst else "no data",
                "of_plan": _of_plan(target, value) if target["reason"] else "",
            }
        )
        if worst and _is_number(value):
            words = f"{measured(value, unit, target['accepted'])} of {accepted} accepted, plan {plan}"
            shares = (value / target["accepted"], target["plan"] / target["accepted"])
            bars.append((target["title"], *shares, words, worst.get("status") == "pass"))
    label = "Measured figures as a share of the accepted target: " + "; ".join(f"{b[0]}: {b[3]}" for b in bars)
    plot = plots.both_widths(lambda width: plots.shares(width, label, bars)) if bars else ""
    return {"rows": listed, "plot": plot}


def _of_plan(target: Mapping[str, Any], value: Any) -> str:
    """A restated target that passes may still miss the plan: say so beside its status."""
    if not _is_number(value):
        return ""
    met = value <= target["plan"] if target["better"] == "lower" else value >= target["plan"]
    return "plan met" if met else "plan missed"


def _measured(name: str, gates: Mapping[int, Record]) -> list[tuple[int, Mapping[str, Any]]]:
    """(day, check) of every day that judged this target; without a figure only where no day has one."""
    asked = [
        (number, check)
        for number in sorted(gates)
        for check in rows(gates[number].data.get("checks"))
        if str(check.get("id")).endswith(f".{name}")
    ]
    return [(day, check) for day, check in asked if check.get("figure") is not None] or asked[-1:]


def _worst(target: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of the checks with a number the one furthest on the wrong side; without a number the first that did not pass."""
    known = [check for check in checks if _is_number(check.get("figure"))]
    if known:
        return (max if target["better"] == "lower" else min)(known, key=lambda check: float(check["figure"]))
    return min(checks, key=lambda check: str(check.get("status")) == "pass", default=None)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _attached(sources: Sources, fits: Callable[[Mapping[str, Any]], bool]) -> list[tuple[Record, Mapping[str, Any]]]:
    """Attachments of a shape, whatever their name; of a day that was run again only the last run's."""
    newest: dict[tuple[str | int, str], tuple[Record, Mapping[str, Any]]] = {}
    for record in sources.records:
        for item in record.attachments:
            content = table(sources.attachments.get(item.sha256))
            if fits(content):
                newest[(record.name if record.kind == "gate" else record.sequence, item.name)] = (record, content)
    return list(newest.values())


def _is_telemetry(content: Mapping[str, Any]) -> bool:
    return "t" in content and "gpus" in content


def _has_rows_with(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda content: any(key in table(row) for row in table(content.get("routes")).values() for key in keys)


def thermal(sources: Sources) -> list[dict[str, Any]]:
    """Margin, temperature, power and throughput of every telemetry; what a longer one holds too is left out."""
    curves = _attached(sources, _is_telemetry)
    return [
        _thermal(record, content, [other for _, other in curves if _within(other, content)], sources)
        for record, content in curves
        if not any(_within(content, other) for _, other in curves)
    ]


def _thermal(
    record: Record, content: Mapping[str, Any], inside: Sequence[Mapping[str, Any]], sources: Sources
) -> dict[str, Any]:
    limits = _limits(content, sources)
    marks = _marks(content, inside)

    def curves(*wanted: tuple[str, str, str]) -> list[dict[str, str]]:
        drawn = [_curve(content, *one, marks, limits if one[0] == "margin_celsius" else ()) for one in wanted]
        return [curve for curve in drawn if curve]

    begun = next((at for at in numbers(content.get("t")) if at is not None), None)
    what = "De-rate and restore" if inside else WHAT.get(str(content.get("what")), content.get("what") or record.kind)
    return {
        "title": f"{what}, {content.get('host') or 'host unknown'} (record {record.sequence})",
        "at": when(begun),
        "plots": curves(
            ("margin_celsius", "Margin left to the maximum operating temperature", "°C"),
            ("temperature_celsius", "GPU temperature", "°C"),
        ),
        "more": curves(("power_w", "GPU power", "W"), ("tflops", "GPU throughput", "TFLOP/s")),
        "key": [f"{mark.letter} {plots.elapsed(mark.at)}: {mark.words}" for mark in marks],
    }


def _within(content: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Does another, longer curve of the same host show all of this one?"""
    mine, theirs = ([at for at in numbers(curve.get("t")) if at is not None] for curve in (content, other))
    guards = {content.get("what"), other.get("what")} <= {"derate", "restore"}
    if not mine or not theirs or not guards or content.get("host") != other.get("host"):
        return False
    return theirs[0] <= mine[0] and mine[-1] <= theirs[-1] and theirs[-1] - theirs[0] > mine[-1] - mine[0]


def _limits(content: Mapping[str, Any], sources: Sources) -> list[tuple[float, str]]:
    """A burn-in is judged by the site's margin, a de-rate by the guard's own."""
    if content.get("what") in ("derate", "restore"):
        return [
            (GUARD.act_margin_celsius, f"{GUARD.act_margin_celsius:g} °C: guard acts"),
            (GUARD.critical_margin_celsius, f"{GUARD.critical_margin_celsius:g} °C: critical"),
        ]
    floor = content.get("margin_floor_celsius", sources.limits.get("thermal_margin_min_celsius"))
    return [(float(floor), f"limit {floor:g} °C")] if _is_number(floor) else []


def _marks(content: Mapping[str, Any], inside: Sequence[Mapping[str, Any]]) -> list[plots.Mark]:
    """The events of a telemetry as marks in seconds since its first sample; the steps between are in the timeline."""
    times = [at for at in numbers(content.get("t")) if at is not None]
    told = [mark for curve in (*inside, content) for mark in rows(curve.get("marks"))]
    events = {(at, str(mark.get("event"))) for mark in told if (at := moment(mark.get("t"))) is not None}
    return [
        plots.Mark(min(at, times[-1]) - times[0], letter, event)
        for at, event in sorted(events)
        if times and times[0] <= at <= times[-1] + SAMPLE_S and (letter := _letter(event))
    ]


def _letter(event: str) -> str:
    """The guard's events that a plot marks; "" for the steps that lie between them, "!" for what is no guard's step."""
    if event.startswith(("derate ", "restore ")):
        return event[0].upper()
    if event.startswith("level "):
        return "W" if "→ watch" in event and "normal" in event else ""
    if event.startswith("placement ") and event.endswith("complete"):
        return "C"
    return "" if event.startswith(STEPS) else "!"


def _curve(
    content: Mapping[str, Any],
    key: str,
    title: str,
    unit: str,
    marks: Sequence[plots.Mark],
    limits: Sequence[tuple[float, str]],
) -> dict[str, str] | None:
    times = [at for at in numbers(content.get("t")) if at is not None]
    gpus = table(content.get("gpus"))
    series, words = [], []
    for name in sorted(gpus):
        samples = numbers(table(gpus[name]).get(key))
        points = thinned([at - times[0] for at in times], samples) if times else []
        if points:
            ys = [y for _, y in points]
            series.append(plots.Series(f"GPU {name}", points))
            words.append(f"GPU {name} {_range(ys)}")
    if not series:
        return None
    label = f"{title} over {seconds(times[-1] - times[0])}: {', '.join(words)} {unit}"
    svg = plots.both_widths(lambda width: plots.lines(width, label, unit, series, limits, marks))
    return {"title": f"{title}, {unit}", "svg": svg, "words": f"{', '.join(words)} {unit}"}


def _range(values: Sequence[float]) -> str:
    low, high = rounded(min(values)), rounded(max(values))
    return low if low == high else f"{low} to {high}"


def latency(sources: Sources) -> list[dict[str, Any]]:
    """Rows per route from the latency attachments, and from single timed requests per kind of work."""
    found = []
    for record, content in _attached(sources, _has_rows_with("p50_s", "p95_s")):
        for route, row in table(content.get("routes")).items():
            cells = table(row)
            figures = [cells.get("n"), *(_s(cells.get(key)) for key in ("p50_s", "p95_s", "p99_s", "first_byte_p95_s"))]
            cells_shown = ["no data" if cell is None else cell for cell in figures]
            found.append({"from": record.name, "route": str(route), "cells": cells_shown})
    for record, content in _attached(sources, _is_samples):
        for phase, samples in content.items():
            found += _latency_of(f"{record.name}, {phase}", rows(samples))
    return sorted(found, key=lambda row: str(row["from"]))


def _is_samples(content: Mapping[str, Any]) -> bool:
    return any("total_s" in sample for value in content.values() for sample in rows(value))


def _latency_of(where: str, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per route and kind of work; failed requests have no times and are not counted."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        if not sample.get("error") and isinstance(sample.get("total_s"), int | float):
            kind = [str(sample.get("route")), str(sample.get("workload") or "")]
            groups.setdefault(" ".join(dict.fromkeys(part for part in kind if part)), []).append(sample)
    found = []
    for name, group in groups.items():
        totals = [float(sample["total_s"]) for sample in group]
        firsts = [first for sample in group if (first := numbers([sample.get("first_s")])[0]) is not None]
        shown = [seconds(percentile(totals, share)) for share in (0.5, 0.95, 0.99)]
        cells = [len(totals), *shown, seconds(percentile(firsts, 0.95)) if firsts else "no data"]
        found.append({"from": where, "route": name, "cells": cells})
    return found


def _s(value: Any) -> str | None:
    return seconds(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def comparison(sources: Sources) -> dict[str, Any]:
    """What was compared on day 8: N, score, bound and margin per route."""
    listed: dict[str, dict[str, Any]] = {}
    for _, content in _attached(sources, _has_rows_with("bound", "margin")):
        for route, row in table(content.get("routes")).items():
            listed[str(route)] = {"route": str(route), **table(row)}
    judged = [_compared(row) for row in listed.values()]
    entries = [
        (row["route"], float(row["bound"]), float(row["margin"]), bool(row["bound"] >= -row["margin"]))
        for row in listed.values()
        if all(isinstance(row.get(key), int | float) for key in ("bound", "margin"))
    ]
    label = "Lower bound of on-prem minus cloud per route: " + ", ".join(
        f"{route} {bound:+.3f} with a margin of {margin:g}" for route, bound, margin, _ in entries
    )
    plot = plots.both_widths(lambda width: plots.margins(width, label, entries)) if entries else ""
    return {"rows": judged, "plot": plot}


def _compared(row: Mapping[str, Any]) -> dict[str, str]:
    shown = {
        key: measured(row[key]) if row.get(key) is not None else "no data" for key in ("n", "score", "bound", "margin")
    }
    critical = row.get("critical")
    return {
        **shown,
        "route": str(row["route"]),
        "critical": "no data" if critical is None else str(len(critical) if isinstance(critical, list) else critical),
        "verdict": str(row.get("verdict") or "no data"),
    }


def _derate(record: Record) -> dict[str, Any]:
    data = record.data
    points = [(moment(entry.get("t")), str(entry.get("event"))) for entry in rows(data.get("timeline"))]
    # A restore's list still holds the de-rate before it.
    begun = moment(data.get("started")) if record.kind == "restore" else None
    known = sorted((at, words) for at, words in points if at is not None and (begun is None or at >= begun - SAMPLE_S))
    events = [(at - known[0][0], words) for at, words in known]
    words = "; ".join(f"{number}. {name} at {at:.2f} s" for number, (at, name) in enumerate(events, 1))
    plot = plots.both_widths(lambda width: plots.steps(width, f"Timeline: {words}", events)) if len(events) > 1 else ""
    return {
        "kind": record.kind,
        "at": when(record.time),
        "gpu": figure(data.get("gpu")) if data.get("gpu") is not None else "–",
        "placement": str(data.get("placement") or "no data"),
        "cause": str(data.get("cause") or "no data"),
        "took": seconds(duration_s(data)),
        "off": ", ".join(str(item) for item in data.get("off") or []) or "none",
        "displaced": listed(data.get("displaced")),
        "events": [{"at": f"{at:.2f} s", "event": name} for at, name in events],
        "plot": plot,
    }


def _route_change(record: Record) -> dict[str, str]:
    data = record.data
    who = next((f"{key} {listed(data[key])}" for key in ("tenant", "tenants", "model") if data.get(key)), "all tenants")
    before, after = table(data.get("before")), table(data.get("after"))
    return {
        "at": when(record.time),
        "what": who,
        "routes": listed(data.get("routes") or data.get("route") or _changed(before, after)),
        "change": f"{listed(data.get('from') or _states(before, after))} → {listed(data.get('to'))}",
        "took": seconds(duration_s(data)),
        "readback": _readback(table(data.get("readback")), after),
        "by": record.by,
    }


def _moves(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(route, state before) of everything that changed."""
    return [
        (str(route), str(table(before.get(tenant)).get(route, "off")))
        for tenant, routes in after.items()
        for route, state in table(routes).items()
        if table(before.get(tenant)).get(route) != state
    ]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted({route for route, _ in _moves(before, after)})


def _states(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted({state for _, state in _moves(before, after)})


def _readback(readback: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Per gateway: does the table read back from it say what was ordered?"""
    words = [f"{host}: {'as ordered' if told == after else listed(told)}" for host, told in readback.items()]
    return ", ".join(words) or "no data"


def _drill(record: Record) -> dict[str, str]:
    told = ("timeline", "before", "after", "took_s", "duration_s")
    facts = {key: value for key, value in record.data.items() if key not in told}
    return {
        "kind": record.kind,
        "name": record.name,
        "at": when(record.time),
        "took": seconds(_lasted(record.data)),
        "facts": listed(facts),
    }


def _lasted(data: Mapping[str, Any]) -> float | None:
    """A watch says its times per gateway: the longest of them."""
    known = [duration_s(data)]
    known += [
        duration_s({**table(part), "finished": table(part).get("ended")}) for part in data.values() if table(part)
    ]
    return max((duration for duration in known if duration is not None), default=None)


def _waiver(record: Record) -> dict[str, str]:
    data = record.data
    return {
        "day": str(data.get("day")),
        "by": str(data.get("by")),
        "until": str(data.get("until")),
        "reason": str(data.get("reason")),
        "at": when(record.time),
    }


def _evidence(sources: Sources) -> dict[str, Any]:
    damaged = [words for level, words in sources.findings if level == "broken"]
    last = sources.records[-1] if sources.records else None
    return {
        "count": len(sources.records),
        "whole": not damaged,
        "findings": [f"{level}: {words}" for level, words in sources.findings],
        "last": f"{last.file}, {when(last.time)}" if last else "no data",
    }
