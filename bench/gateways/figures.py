"""Percentiles, paired changes with an interval, slopes. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2000
SEED = 1


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share (0..1) does not exceed; nan of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


class Change(NamedTuple):
    """A relative change (0.02 = 2 %) with the ends of its 95 % interval."""

    middle: float
    low: float
    high: float


def paired_change(before: Sequence[float], after: Sequence[float]) -> Change:
    """The median relative change over paired rounds, its interval by resampling whole rounds (percentile bootstrap)."""
    changes = [new / old - 1 for old, new in zip(before, after, strict=True)]
    chance = random.Random(SEED)
    medians = sorted(statistics.median(chance.choices(changes, k=len(changes))) for _ in range(RESAMPLES))
    low, high = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return Change(statistics.median(changes), low, high)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Rise of y per unit of x, by least squares; 0 of fewer than two points."""
    if len(points) < 2:
        return 0.0
    xs, ys = zip(*points, strict=True)
    return statistics.linear_regression(xs, ys).slope
