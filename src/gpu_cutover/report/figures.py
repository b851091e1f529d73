"""Figures, times and lists of samples as text or thinned out for a plot. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..runs.status import moment

MAX_POINTS = 360


def figure(value: Any, unit: str = "") -> str:
    """A figure with its unit; "no figure" for None, yes and no for booleans."""
    if value is None:
        return "no figure"
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{shown} {unit}".rstrip()


def seconds(value: float | None) -> str:
    """A duration for people: 0.421 s, 12.3 s, 4 min 10 s, 23 h 5 min; "no data" for None."""
    if value is None:
        return "no data"
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
        return ", ".join(f"{key}: {_item(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_item(item) for item in value) or "none"
    return "none" if value in (None, "") else figure(value)


def _item(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_item(item)}" for key, item in value.items())
    return "–" if value is None else listed(value) if isinstance(value, list | tuple) else figure(value)


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
