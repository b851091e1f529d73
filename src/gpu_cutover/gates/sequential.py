"""Bounds that stay valid however often one looks at them: no peeking problem, no fixed sample size. Pure.

Source: asymptotic confidence sequences, Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, arXiv 2103.06476, one-sided form.
Asymptotic means: for the first hundred or so of samples it promises nothing, which is why every use has a minimum count
beside it (`site.gates.mirror_comparisons_min`; 100 to 300 in production).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TUNED_FOR = 500  # samples at which the bound is tightest; the mirror usually decides there


def lower_bound(scores: Sequence[float], alpha: float) -> float:
    """Lower bound of the mean of `scores` (each 0..1) that holds at all sample sizes at once with 1 - `alpha`.

    Raises ValueError for no scores, a score outside 0..1 or an `alpha` outside 0..1. Never below 0.
    """
    if not scores or not all(0.0 <= score <= 1.0 for score in scores):
        raise ValueError("scores must be between 0 and 1, at least one")
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must be between 0 and 1")
    count = len(scores)
    mean = math.fsum(scores) / count
    variance = math.fsum((score - mean) ** 2 for score in scores) / max(1, count - 1)
    return max(0.0, mean - math.sqrt(variance) * _width(count, alpha))


def _width(count: int, alpha: float) -> float:
    """Half-width of the one-sided sequence for unit variance."""
    rho2 = _rho2(alpha)
    spread = count * rho2 + 1
    return math.sqrt(2 * spread / (count * count * rho2) * math.log(1 + math.sqrt(spread) / (2 * alpha)))


def _rho2(alpha: float) -> float:
    """The mixture's parameter that makes the sequence tightest at `TUNED_FOR` samples."""
    term = -2 * math.log(2 * alpha)
    return (term + math.log(term + 1)) / TUNED_FOR
