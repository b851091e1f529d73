"""Figures, times and lists of samples as text or thinned out for a plot. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..runs.status import moment

MAX_POINTS = 360
DIGITS = 3
SHORT_S = 0.0995  # told in ms from here down
MOMENTS = frozenset({"started", "finished", "ended", "deadline"})  # told by the columns "when" and "took"


def figure(value: Any, unit: str = "") -> str:
    """A declared figure (a limit, a count) with its unit and all its digits; "no figure" for None, yes and no."""
    if value is None:
        return "no figure"
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{shown} {unit}".rstrip()


def measured(value: Any, unit: str = "", limit: Any = None) -> str:
    """A measured figure with its unit, to 3 digits; to more where those would hide its side of the limit."""
    if isinstance(value, bool) or not isinstance(value, float):
        return figure(value, unit)
    if unit == "s" and 0 < abs(value) < SHORT_S:
        return _short(value)
    against = float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else None
    texts = [rounded(value, digits) for digits in range(DIGITS, 16)]
    shown = next(
        (text for text in texts if against is None or _side(float(text), against) == _side(value, against)), ""
    )
    return f"{shown or repr(value)} {unit}".rstrip()


def rounded(value: float, digits: int = DIGITS) -> str:
    """To significant digits, never with an exponent below a million: 37.9, 0.0912, 351, 12600."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)


def _short(value: float) -> str:
    """Less than 0.1 s, in the unit that has no leading zeros: 91.2 ms, 1 µs."""
    return f"{rounded(value * 1e3)} ms" if abs(value) >= 1e-3 else f"{rounded(value * 1e6)} µs"


def seconds(value: float | None) -> str:
    """A duration for people: 12.4 ms, 0.421 s, 12.3 s, 4 min 10 s, 23 h 5 min; "no data" for None."""
    if value is None:
        return "no data"
    if 0 < value < SHORT_S:
        return _short(value)
    if value < 60:
        return f"{value:.3f} s" if value < 1 else f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def when(value: Any) -> str:
    """UTC to the second: 2026-12-24 10:00:00; "no time" for what is none."""
    at = moment(value)
    return "no time" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def listed(value: Any) -> str:
    """Plain data in a table's cell: "gw1: requests 40, verdict clean"; "none" for nothing at all."""
    if isinstance(value, Mapping):
        return ", ".join(f"{_name(key)}: {_item(item, key)}" for key, item in value.items() if _said(key)) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_item(item) for item in value) or "none"
    return "none" if value in (None, "") else measured(value)


def _item(value: Any, key: Any = "") -> str:
    if isinstance(value, Mapping):
        told = [
            f"{_name(name)} {_item(item, name)}" for name, item in value.items() if item is not None and _said(name)
        ]
        return "; ".join(told) or "none"
    if isinstance(value, list | tuple):
        return listed(value)
    return "–" if value is None else measured(value, "s" if str(key).endswith("_s") else "")


def _name(key: Any) -> str:
    return str(key).removesuffix("_s").replace("_", " ")


def _said(key: Any) -> bool:
    return key not in MOMENTS


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of at least one figure."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1))]


def rows(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; [] for anything else."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def table(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def numbers(values: Any) -> list[float | None]:
    """Samples as numbers, None where one is missing."""
    if not isinstance(values, list | tuple):
        return []
    return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in values]


def thinned(
    times: Sequence[float], values: Sequence[float | None], limit: int = MAX_POINTS
) -> list[tuple[float, float]]:
    """At most about `limit` points that keep every bucket's lowest and highest value, so that no peak is lost."""
    points = [(t, v) for t, v in zip(times, values, strict=False) if v is not None]
    if len(points) <= limit:
        return points
    size = -(-len(points) // (limit // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept
