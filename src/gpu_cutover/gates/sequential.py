"""Tests that stay valid however often one looks at them: no peeking problem, no fixed sample size. Pure.

`lower_bound`, for the mean of scores: asymptotic confidence sequences, Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas,
arXiv 2103.06476, one-sided form. Asymptotic means: for the first hundred or so of samples it promises nothing, which
is why every use has a minimum count beside it (`site.gates.mirror_comparisons_min`; 100 to 300 in production).

`rare_event`, for "at most 5 % of the answers take longer" and for error rates: e-processes, Ramdas, Grünwald, Vovk,
Shafer: "Game-theoretic statistics and safe anytime-valid inference" (2022). They promise at every length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

TUNED_FOR = 500  # samples at which the bound is tightest; the mirror usually decides there

# Alternatives the e-processes bet on, as shares of the limit and of the way from it to 1: no tuning to the true rate.
RARER = (0.02, 0.1, 0.25, 0.5, 0.75)
MORE_FREQUENT = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


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


@dataclass(frozen=True, slots=True)
class RareEvent:
    """Evidence about how often an event happens against a limit, gathered one observation after the other.

    `log_rarer` speaks against "it happens at least as often as the limit says", `log_more_frequent` against "at most as
    often"; both are the largest log e-value so far. While the claim it speaks against is true, an e-value's chance to
    ever reach 1/alpha is at most alpha.
    """

    count: int
    events: int
    limit: float
    log_rarer: float
    log_more_frequent: float

    def verdict(self, alpha: float) -> Literal["pass", "fail", "unproven"]:
        """pass: proven rarer than the limit. fail: proven more frequent. Each is wrong with chance alpha at most."""
        threshold = -math.log(alpha)
        if self.log_more_frequent >= threshold:
            return "fail"
        return "pass" if self.log_rarer >= threshold else "unproven"


def rare_event(observations: Iterable[bool], limit: float) -> RareEvent:
    """Follow the evidence over the observations in order (True: it happened). ValueError for a limit outside 0..1."""
    if not 0.0 < limit < 1.0:
        raise ValueError("limit must be between 0 and 1")
    rarer, more = _Mixture(_rarer_than(limit), limit), _Mixture(_more_than(limit), limit)
    count = events = 0
    for happened in observations:
        count, events = count + 1, events + bool(happened)
        rarer.see(happened)
        more.see(happened)
    return RareEvent(count, events, limit, rarer.best, more.best)


def over_target(latencies: Iterable[float], target: float, quantile: float = 0.95) -> RareEvent:
    """Is the `quantile` of latency at most `target`? Then at most 1 - quantile of the answers take longer.

    An answer that failed belongs in as infinity or NaN, both over any target: leaving it out would reward failure.
    """
    return rare_event((not latency <= target for latency in latencies), 1.0 - quantile)


def observations_needed(limit: float, alpha: float) -> int:
    """How many observations without a single event prove that it is rarer than `limit`."""
    rarer, count = _Mixture(_rarer_than(limit), limit), 0
    while rarer.best < -math.log(alpha):
        rarer.see(happened=False)
        count += 1
    return count


def _rarer_than(limit: float) -> list[float]:
    return [limit * share for share in RARER]


def _more_than(limit: float) -> list[float]:
    return [limit + (1.0 - limit) * share for share in MORE_FREQUENT]


class _Mixture:
    """The average likelihood ratio of some alternatives against the limit; `best` is the log of its maximum so far."""

    def __init__(self, alternatives: Sequence[float], limit: float) -> None:
        self._if_so = [math.log(alternative / limit) for alternative in alternatives]
        self._if_not = [math.log((1.0 - alternative) / (1.0 - limit)) for alternative in alternatives]
        self._logs = [0.0] * len(alternatives)
        self.best = 0.0

    def see(self, happened: bool) -> None:
        steps = self._if_so if happened else self._if_not
        self._logs = [log + step for log, step in zip(self._logs, steps, strict=True)]
        largest = max(self._logs)
        now = largest + math.log(math.fsum(math.exp(log - largest) for log in self._logs) / len(self._logs))
        self.best = max(self.best, now)
