"""From the sources to what each section of the page says. Pure; a missing part is "no data", never nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..evidence.days import day_states
from ..evidence.records import Record
from ..runs.days import DAYS
from ..runs.status import duration_s, moment
from . import plots
from .figures import figure, listed, numbers, percentile, rows, seconds, table, thinned, when
from .gather import Sources
from .routing import timeline
from .standins import STAND_INS

FEW_MARKS = 3
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
    open_checks = [check for check in first["checks"] if check["status"] != "pass"]
    because = " {sentence}: {figure}, {limit}.".format(**open_checks[0]) if open_checks else ""
    word = "Failed" if first["verdict"] == "fail" else "On hold"
    sentence = f"Day {first['number']}, {first['title']}, says {first['verdict']}.{because}"
    return {"kind": str(first["verdict"]), "word": word, "sentence": sentence}


def _day(number: int, gates: Mapping[int, Record], records: Sequence[Record]) -> dict[str, Any]:
    gate = gates.get(number)
    state = day_states(records)[number]
    attempts = sum(record.kind == "gate" and record.data.get("day") == number for record in records)
    return {
        "number": number,
        "title": DAYS[number],
        "verdict": state.verdict,
        "at": when(gate.time) if gate else "",
        "took": seconds(duration_s(gate.data)) if gate else "",
        "attempts": attempts,
        "record": gate.sequence if gate else None,
        "waived": f"by {state.waiver.by} until {state.waiver.until}: {state.waiver.reason}" if state.waiver else "",
        "checks": _checks(gate) if gate else [],
    }


def _checks(gate: Record) -> list[dict[str, Any]]:
    """What failed, then what is unproven, then what passed; each in the gate's own order."""
    listed = [_check(check) for check in rows(gate.data.get("checks"))]
    return sorted(listed, key=lambda check: (check["status"] == "pass", check["status"] != "fail"))


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
        "figure": figure(check.get("figure"), unit),
        "limit": "–" if limit is None else f"{relation} {figure(limit, unit)}".strip(),
        "source": str(check.get("source") or ""),
        "sentence": str(check.get("sentence") or ""),
    }


def targets(sources: Sources, gates: Mapping[int, Record]) -> dict[str, Any]:
    """Plan, accepted and measured, and the bars of measured/accepted."""
    measured = _measured(sources.targets, gates)
    listed, bars = [], []
    for target in sources.targets:
        day, check = measured.get(target["name"], (None, None))
        unit = target["unit"] if target["unit"] not in ("ratio", "sessions") else ""
        value = check.get("figure") if check else None
        listed.append(
            {
                "title": target["title"],
                "plan": figure(target["plan"], unit),
                "accepted": figure(target["accepted"], unit),
                "restated": bool(target["reason"]),
                "reason": target["reason"],
                "by": target["by"],
                "measured": f"{figure(value, unit)} (day {day})" if check else "no data",
                "mark": MARKS.get(str(check.get("status")), "?") if check else "?",
                "status": str(check.get("status")) if check else "no data",
            }
        )
        if check and isinstance(value, int | float) and not isinstance(value, bool):
            accepted, plan = figure(target["accepted"], unit), figure(target["plan"], unit)
            words = f"{figure(value, unit)} of {accepted} accepted, plan {plan}"
            good = check.get("status") == "pass"
            bars.append((target["title"], value / target["accepted"], target["plan"] / target["accepted"], words, good))
    label = "Measured figures as a share of the accepted target: " + "; ".join(f"{b[0]}: {b[3]}" for b in bars)
    plot = plots.both_widths(lambda width: plots.shares(width, label, bars)) if bars else ""
    return {"rows": listed, "plot": plot}


def _measured(
    wanted: Sequence[Mapping[str, Any]], gates: Mapping[int, Record]
) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """{target: (day, check)}: the last day that has a figure for it, else the last that asked for one."""
    found: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for number in sorted(gates):
        for check in rows(gates[number].data.get("checks")):
            for target in wanted:
                known = found.get(target["name"])
                fits = str(check.get("id")).endswith(target["name"])
                if fits and (known is None or check.get("figure") is not None or known[1].get("figure") is None):
                    found[target["name"]] = (number, check)
    return found


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
    """A temperature plot, and where known a margin plot, for every telemetry attachment."""
    found = []
    for record, content in _attached(sources, _is_telemetry):
        floor = content.get("margin_floor_celsius", sources.limits.get("thermal_margin_min_celsius"))
        parts = [
            _curve(content, "temperature_celsius", "GPU temperature", "°C"),
            _curve(content, "margin_celsius", "Margin to the slowdown limit", "°C", floor),
            _curve(content, "power_w", "GPU power", "W"),
            _curve(content, "tflops", "GPU throughput", "TFLOP/s"),
        ]
        title = f"{content.get('what') or record.kind}, {content.get('host') or 'host unknown'} ({record.name})"
        found.append({"title": title, "at": when(record.time), "plots": [part for part in parts if part]})
    return found


def _curve(
    content: Mapping[str, Any], key: str, title: str, unit: str, floor: float | None = None
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
            words.append(f"GPU {name} {min(ys):.1f} to {max(ys):.1f} {unit}")
    if not series:
        return None
    label = f"{title} over {seconds(times[-1] - times[0])}: {', '.join(words)}"
    marks = [
        plots.Mark(at - times[0], "!", str(mark.get("event")))
        for mark in rows(content.get("marks"))
        if (at := moment(mark.get("t"))) is not None and times[0] <= at <= times[-1]
    ]
    svg = plots.both_widths(lambda width: plots.lines(width, label, unit, series, floor, marks))
    if len(marks) <= FEW_MARKS:
        words += [f"! {mark.words} at {seconds(mark.at)}" for mark in marks]
    else:
        words.append(f"! {len(marks)} events, listed in the record's timeline")
    return {"title": title, "svg": svg, "words": "; ".join(words)}


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
    return found


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
        key: figure(row[key]) if row.get(key) is not None else "no data" for key in ("n", "score", "bound", "margin")
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
    known = sorted((at, words) for at, words in points if at is not None)
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
    facts = {key: value for key, value in record.data.items() if key not in ("timeline", "before", "after")}
    return {
        "kind": record.kind,
        "name": record.name,
        "at": when(record.time),
        "took": seconds(duration_s(record.data)),
        "facts": listed(facts),
    }


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
