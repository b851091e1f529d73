"""Plots as inline SVG: few lines, no library, colours from the page's stylesheet, never colour alone. Pure.

Every plot is made for a width in CSS pixels (WIDE for a screen, NARROW for a phone), so its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

WIDE, NARROW = 1020, 340
DASHES = ("", "7 3", "3 2", "9 3 2 3")
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 30
LETTER = 13  # what the letter of a mark needs, across and up
DAY_S = 86400.0
TIME_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200),
    *(DAY_S, 2 * DAY_S, 7 * DAY_S),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One named line of (x, y) points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A lane's state from `begin` to `end` (epoch seconds)."""

    begin: float
    end: float
    state: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on a time axis, with a letter that the legend explains."""

    at: float
    letter: str
    words: str


def svg(width: float, height: float, label: str, body: Sequence[str]) -> str:
    """The frame: scales down with its column, and says to a screen reader what it shows."""
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" preserveAspectRatio="xMidYMid meet">{"".join(body)}</svg>'
    )


def both_widths(plot: Callable[[int], str]) -> str:
    """The plot for a wide screen and for a phone; the stylesheet shows one of them."""
    return f'<div class="wide">{plot(WIDE)}</div><div class="narrow">{plot(NARROW)}</div>'


def lines(
    width: int,
    label: str,
    unit: str,
    series: Sequence[Series],
    limits: Sequence[tuple[float, str]] = (),
    marks: Sequence[Mark] = (),
) -> str:
    """A line chart over seconds since its first sample. `limits` are drawn across, `marks` as moments."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [limit for limit, _ in limits]
    x_of = _scale(min(xs), max(xs), LEFT, width - RIGHT)
    letters, levels = _spread(marks, x_of)
    top = TOP + 18 + LETTER * levels
    height = 250 + top
    low, high, step = nice_range(min(ys), max(ys))
    y_of = _scale(low, high, height - BOTTOM, top)
    body = [*_y_axis(width, low, high, step, y_of), *_time_axis(height, top, min(xs), max(xs), x_of, width)]
    body.append(_text(2, TOP + 4, unit, "start"))
    for number, (limit, words) in enumerate(sorted(limits)):
        y = y_of(limit)
        body.append(f'<line class="limit" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(_text(LEFT + 4, y + 13 if number == 0 and len(limits) > 1 else y - 4, words, "start", "halo"))
    body += [_mark(mark, x, top - LETTER * level, height - BOTTOM) for mark, x, level in letters]
    legend = (width - LEFT - RIGHT) / max(len(series), 1)
    for number, one in enumerate(series):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in one.points)
        dash = DASHES[number % len(DASHES)]
        body.append(f'<polyline class="line c{number % 4}" stroke-dasharray="{dash}" points="{path}"/>')
        body.append(_legend_line(LEFT + number * min(legend, 90), TOP, one.name, number))
    return svg(width, height, label, body)


def _mark(mark: Mark, x: float, top: float, bottom: float) -> str:
    title = f"<title>{escape(mark.words)}</title>"
    return f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}">{title}</line>' + _text(
        x, top - 4, mark.letter, "middle", "strong"
    )


def shares(width: int, label: str, entries: Sequence[tuple[str, float, float, str, bool]]) -> str:
    """Bars of measured/accepted. An entry: name, measured share, the plan's share, words, good. 1.0: as accepted."""
    two_lines = width < WIDE
    row = 58 if two_lines else 42
    height = TOP + row * len(entries) + BOTTOM
    top = max(1.2, *(min(max(share, plan), 3.0) for _, share, plan, _, _ in entries)) * 1.05
    x_of = _scale(0, top, 4, width - RIGHT)
    body = []
    for number, (name, share, plan, words, good) in enumerate(entries):
        y = TOP + row * number
        named = f"{'✓' if good else '✕'} {name}"
        texts = [named, words] if two_lines else [f"{named}: {words}"]
        body += [_text(x_of(0), y + 10 + 15 * line, text, "start") for line, text in enumerate(texts)]
        body += _share_bar(x_of, y + 15 * len(texts), min(share, top), top, plan, good)
    bottom = TOP + row * len(entries)
    body.append(_text(x_of(1), bottom + 14, "accepted", "middle"))
    body.append(_text(x_of(0), bottom + 14, "0", "start"))
    return svg(width, height, label, body)


def _share_bar(
    x_of: Callable[[float], float], y: float, share: float, top: float, plan: float, good: bool
) -> list[str]:
    start, one = x_of(0), x_of(1)
    wide = max(x_of(share) - start, 1)
    drawn = [
        f'<rect class="track" x="{start:.1f}" y="{y}" width="{x_of(top) - start:.1f}" height="14"/>',
        f'<rect class="bar {_kind(good)}" x="{start:.1f}" y="{y}" width="{wide:.1f}" height="14"/>',
        f'<line class="limit" x1="{one:.1f}" x2="{one:.1f}" y1="{y - 4}" y2="{y + 18}"/>',
    ]
    if plan <= top:
        at = x_of(plan)
        drawn.append(f'<line class="plan" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 3}" y2="{y + 17}"/>')
    return drawn


def _kind(good: bool) -> str:
    return "good" if good else "bad"


def margins(width: int, label: str, entries: Sequence[tuple[str, float, float, bool]]) -> str:
    """Per route the lower bound of on-prem minus cloud, and the margin. An entry: route, bound, margin, good."""
    row = 40
    height = TOP + row * len(entries) + BOTTOM
    low = min(min(bound, -margin) for _, bound, margin, _ in entries) * 1.2 - 0.01
    high = max(0.02, *(bound for _, bound, _, _ in entries)) * 1.2
    x_of = _scale(low, high, 64, width - RIGHT)
    body = []
    for number, (route, bound, margin, good) in enumerate(entries):
        y = TOP + row * number + row / 2
        kind = _kind(good)
        body.append(_text(58, y + 4, route, "end"))
        body.append(f'<line class="grid" x1="{x_of(low):.1f}" x2="{x_of(high):.1f}" y1="{y}" y2="{y}"/>')
        body.append(
            f'<line class="limit" x1="{x_of(-margin):.1f}" x2="{x_of(-margin):.1f}" y1="{y - 11}" y2="{y + 11}"/>'
        )
        body.append(f'<line class="reach {kind}" x1="{x_of(bound):.1f}" x2="{x_of(high):.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="dot {kind}" cx="{x_of(bound):.1f}" cy="{y}" r="5"/>')
        body.append(_text(x_of(-margin), y - 13, f"{-margin:g}", "middle", "halo"))
        body.append(_text(x_of(bound), y - 9, f"{'✓' if good else '✕'} {bound:+.3f}", "middle", "halo"))
    bottom = TOP + row * len(entries)
    body.insert(0, f'<line class="axis" x1="{x_of(0):.1f}" x2="{x_of(0):.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
    body.append(_text(x_of(0), bottom + 14, "0 = as good as the cloud", "end" if x_of(0) > width * 0.6 else "middle"))
    return svg(width, height, label, body)


def lanes(
    width: int, label: str, rows: Sequence[tuple[str, Sequence[tuple[str, Sequence[Segment]]]]], marks: Sequence[Mark]
) -> str:
    """The routing timeline in UTC: groups (tenants) of lanes (routes); each state has its shape and its letter."""
    lane = 20
    segments = [s for _, group in rows for _, lane_segments in group for s in lane_segments]
    begin, end = min(s.begin for s in segments), max(s.end for s in segments)
    x_of = _scale(begin, end, 66, width - RIGHT)
    letters, levels = _spread(marks, x_of)
    top = TOP + 8 + LETTER * levels
    body: list[str] = []
    height = top + sum(26 + lane * len(group) for _, group in rows) + BOTTOM
    body += _clock_axis(height, top - 4, begin, end, x_of, width)
    y = float(top)
    for tenant, group in rows:
        body.append(_text(2, y + 12, tenant, "start", "strong halo"))
        y += 18
        for route, lane_segments in group:
            body.append(_text(60, y + 12, route, "end"))
            body += [piece for segment in lane_segments for piece in _segment(segment, x_of, y, lane - 4)]
            y += lane
        y += 8
    body += [_mark(mark, x, top - 4 - LETTER * level, y) for mark, x, level in letters]
    return svg(width, height, label, body)


def _spread(marks: Sequence[Mark], x_of: Callable[[float], float]) -> tuple[list[tuple[Mark, float, int]], int]:
    """Marks with their x and level, and the number of levels: letters that would touch stand one above the other."""
    placed: list[tuple[Mark, float, int]] = []
    taken: list[float] = []  # the last letter's x on each level
    for mark in sorted(marks, key=lambda m: m.at):
        x = x_of(mark.at)
        level = next((number for number, last in enumerate(taken) if x - last >= LETTER), len(taken))
        taken[level : level + 1] = [x]
        placed.append((mark, x, level))
    return placed, len(taken)


def steps(width: int, label: str, events: Sequence[tuple[float, str]]) -> str:
    """Events on one line: seconds since the first; numbers, where there is room, that the table explains."""
    height, span = 96, max(events[-1][0], 0.001)
    x_of = _scale(0, span, 16, width - 24)
    body = _time_axis(height, 26, 0, span, x_of, width)
    body += [f'<line class="axis" x1="{x_of(0):.1f}" x2="{width - 24}" y1="34" y2="34"/>']
    last = {22: -99.0, 54: -99.0}  # where the last number above and below the line stands
    for number, (at, _) in enumerate(events, 1):
        x = x_of(at)
        body.append(f'<circle class="dot c0" cx="{x:.1f}" cy="34" r="5"/>')
        y = next((y for y, taken in last.items() if x - taken >= 18), None)
        if y is not None:
            last[y] = x
            body.append(_text(x, y, str(number), "middle", "strong halo"))
    return svg(width, height, label, body)


def nice_range(low: float, high: float) -> tuple[float, float, float]:
    """An axis around the figures: low, high and a step of 1, 2 or 5 times a power of ten."""
    span = max(high - low, abs(high) * 0.05, 1e-9)
    power = 1.0
    while power * 10 <= span:
        power *= 10
    while power > span:
        power /= 10
    step = next(power * factor for factor in (0.2, 0.5, 1.0, 2.0) if span / (power * factor) <= 6)
    return _floor(low, step), _floor(high, step) + step, step


def _floor(value: float, step: float) -> float:
    return math.floor(round(value / step, 6)) * step  # rounded: 5 / 0.05 is not 99.999


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _legend_line(x: float, y: float, name: str, number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return (
        f'<line class="line c{number % 4}" stroke-dasharray="{dash}" x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}"/>'
        + _text(x + 26, y + 4, name, "start")
    )


def _y_axis(width: int, low: float, high: float, step: float, y_of: Callable[[float], float]) -> list[str]:
    body = []
    for index in range(round((high - low) / step) + 1):
        value = low + index * step
        y = y_of(value)
        body.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(_text(LEFT - 4, y + 4, f"{value:g}", "end"))
    return body


def _time_axis(
    height: float, top: float, begin: float, end: float, x_of: Callable[[float], float], width: int
) -> list[str]:
    """Seconds since the first sample, at round times."""
    step = time_step(end - begin, 8 if width >= WIDE else 4)
    count = math.floor((end - begin) / step + 1e-6)
    return [_tick(height, top, x_of(begin + step * n), elapsed(step * n), width) for n in range(count + 1)]


def _clock_axis(
    height: float, top: float, begin: float, end: float, x_of: Callable[[float], float], width: int
) -> list[str]:
    """Times of the day in UTC, at round times; days where the axis spans days."""
    step = time_step(end - begin, 8 if width >= WIDE else 4)
    form = "%d %b" if step >= DAY_S else "%H:%M" if step >= 60 else "%H:%M:%S"
    ticks = [step * n for n in range(math.ceil(begin / step), math.floor(end / step) + 1)]
    if end - begin > DAY_S > step:
        form = "%d %b %H:%M"
        ticks = ticks[:: 1 if width >= WIDE else 2]
    return [_tick(height, top, x_of(at), f"{datetime.fromtimestamp(at, UTC):{form}}", width) for at in ticks]


def _tick(height: float, top: float, x: float, words: str, width: int) -> str:
    half = len(words) * 3.6
    anchor = "end" if x + half > width else "start" if x - half < 0 else "middle"
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{height - BOTTOM + 4:.1f}"/>'
    return line + _text(x, height - 8, words, anchor)


def time_step(span: float, most: int) -> float:
    """The least round step (seconds to days) that makes at most `most` ticks over `span` seconds."""
    return next((step for step in TIME_STEPS if span / step <= most), math.ceil(span / DAY_S / most) * DAY_S)


def elapsed(value: float) -> str:
    """Time since the start of an axis, with its unit: 40 s, 2 min 30 s, 5 h 30 min, from two days on 2.5 days."""
    if value >= 2 * DAY_S:
        return f"{value / DAY_S:.1f} days"
    if value < 1:
        return f"{value:.1g} s"
    hours, rest = divmod(round(value), 3600)
    parts = [(hours, "h"), (rest // 60, "min"), (rest % 60, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


_LETTERS: Mapping[str, str] = {"cloud": "C", "mirror": "M", "onprem": "P", "off": "–"}


def _segment(segment: Segment, x_of: Callable[[float], float], y: float, tall: float) -> list[str]:
    """Cloud: a pale bar. Mirror: pale above a dark stripe, as a copy goes on-prem. On-prem: dark. Off: a thin line."""
    x, span = x_of(segment.begin), max(x_of(segment.end) - x_of(segment.begin), 1.0)
    state = segment.state if segment.state in _LETTERS else "off"
    parts = {"off": [("off", y + tall / 2 - 1, 2.0)], "mirror": [("cloud", y, tall), ("onprem", y + tall - 5, 5.0)]}
    drawn = [
        f'<rect class="state {name}" x="{x:.1f}" y="{at:.1f}" width="{span:.1f}" height="{high:.1f}"/>'
        for name, at, high in parts.get(state, [(state, y, tall)])
    ]
    if span >= 12 and state != "off":
        low = 10 if state == "mirror" else 12
        drawn.append(_text(x + span / 2, y + low, _LETTERS[state], "middle", f"on-{state}"))
    return drawn
