"""Tenant × route over time, from the records that changed a route table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evidence.records import Record
from ..runs.status import moment
from . import plots
from .figures import table, when
from .gather import Sources

MARKED = {"rollback": "R", "derate": "D", "restore": "S"}
WORDS = {"R": "rollback", "D": "de-rate", "S": "restore"}

Changes = dict[tuple[str, str], list[tuple[float, str]]]


def timeline(sources: Sources) -> dict[str, Any]:
    """The plot, its legend and the table of changes; plot "" where no record changed a route."""
    records = [
        record for record in sources.records if record.kind in (*MARKED, "cutover") and moment(record.time) is not None
    ]
    changes = _changes(records)
    if not changes:
        return {"plot": "", "letters": []}
    begin, end = _span(records)
    marks = [
        plots.Mark(_at(r), MARKED[r.kind], f"{r.kind} {r.name}, {when(r.time)}") for r in records if r.kind in MARKED
    ]
    lanes = _lanes(changes, sources, begin, end)
    if not lanes:
        return {"plot": "", "letters": []}
    label = "Where each tenant's routes were answered: " + "; ".join(
        f"{tenant} ends with " + ", ".join(f"{route} {segments[-1].state}" for route, segments in group)
        for tenant, group in lanes
    )
    drawn = [(tenant, together(group)) for tenant, group in lanes]
    plot = plots.both_widths(lambda width: plots.lanes(width, label, drawn, marks))
    used = [letter for letter in WORDS if any(mark.letter == letter for mark in marks)]
    return {
        "plot": plot,
        "letters": [f"{letter} {WORDS[letter]}" for letter in used],
        "begin": when(begin),
        "end": when(end),
    }


def _at(record: Record) -> float:
    return moment(record.data.get("finished")) or moment(record.time) or 0.0


def _span(records: list[Record]) -> tuple[float, float]:
    times = [_at(record) for record in records]
    margin = max((max(times) - min(times)) * 0.04, 1.0)
    return min(times) - margin, max(times) + margin


def _changes(records: list[Record]) -> Changes:
    """{(tenant, route): [(when, state)]}; the first entry is the state before the first change, at minus infinity."""
    found: Changes = {}
    for record in records:
        before, after = table(record.data.get("before")), table(record.data.get("after"))
        for tenant, routes in after.items():
            for route, state in table(routes).items():
                history = found.setdefault((str(tenant), str(route)), [])
                if not history:
                    history.append((float("-inf"), _state(before, tenant, route)))
                history.append((_at(record), str(state)))
    return found


def _state(before: Mapping[str, Any], tenant: str, route: str) -> str:
    return str(table(before.get(tenant)).get(route, "off"))


def _lanes(
    changes: Changes, sources: Sources, begin: float, end: float
) -> list[tuple[str, list[tuple[str, list[plots.Segment]]]]]:
    tenants = list(dict.fromkeys([*sources.cutover_order, *sorted({tenant for tenant, _ in changes})]))
    tenants = [tenant for tenant in tenants if not table(sources.tenants.get(tenant)).get("synthetic")]
    lanes = []
    for tenant in tenants:
        group = [
            (route, _segments(changes[(tenant, route)], begin, end)) for t, route in sorted(changes) if t == tenant
        ]
        if group:
            lanes.append((tenant, group))
    return lanes


def together(group: list[tuple[str, list[plots.Segment]]]) -> list[tuple[str, list[plots.Segment]]]:
    """Routes with one and the same history share a lane: "all 6", or "other 5" where one went its own way."""
    histories: list[tuple[list[str], list[plots.Segment]]] = []
    for route, segments in group:
        known = next((routes for routes, other in histories if other == segments), None)
        if known is None:
            histories.append(([route], segments))
        else:
            known.append(route)
    if len(histories) == 1 and len(group) > 1:
        return [(f"all {len(group)}", histories[0][1])]
    widest = max(histories, key=lambda entry: len(entry[0]))
    apart = [(route, segments) for routes, segments in histories if routes is not widest[0] for route in routes]
    if len(widest[0]) == 1:
        return [*apart, (widest[0][0], widest[1])]
    return [*apart, (f"other {len(widest[0])}", widest[1])]


def _segments(history: list[tuple[float, str]], begin: float, end: float) -> list[plots.Segment]:
    segments: list[plots.Segment] = []
    for number, (at, state) in enumerate(history):
        until = history[number + 1][0] if number + 1 < len(history) else end
        start = max(at, begin)
        if segments and segments[-1].state == state:
            segments[-1] = plots.Segment(segments[-1].begin, until, state)
        elif until > start:
            segments.append(plots.Segment(start, until, state))
    return segments
