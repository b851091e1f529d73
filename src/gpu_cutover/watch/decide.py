"""Is the tenant well on-prem? Pure: counts in, one word out. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# A tenant goes back when the evidence against "at most this share is bad" reaches 100,000 : 1. So much, because each
# sum is restarted at zero and gets a fresh chance with every request: at 1000 : 1 a healthy 1 % of errors was an alarm
# about once in 100,000 requests (tests/watch). Four failures in a row are an alarm, three are not.
ALARM = math.log(100_000)
BETS = (0.1, 0.2, 0.5, 0.9)
SLOW_SHARE = 0.05  # p95 within a limit means at most 5 % over it


@dataclass(slots=True)
class Drift:
    """Evidence that a share is above `limit`: the best of several likelihood-ratio sums, each restarted at zero.

    The restart keeps a day of good answers from outweighing a bad hour at its end.
    """

    limit: float
    sums: list[float] = field(default_factory=lambda: [0.0] * len(BETS))

    def add(self, bad: bool) -> None:
        for index, bet in enumerate(BETS):
            if bet > self.limit:
                ratio = bet / self.limit if bad else (1 - bet) / (1 - self.limit)
                self.sums[index] = max(0.0, self.sums[index] + math.log(ratio))

    @property
    def alarm(self) -> bool:
        return max(self.sums) >= ALARM


@dataclass(frozen=True, slots=True)
class Limits:
    """What the watch allows. `slow_s`: by workload, seconds that 95 % of answers must stay within."""

    requests_min: int
    error_rate_max: float
    slow_s: Mapping[str, float]


@dataclass(slots=True)
class Counts:
    """What was seen since the watch began. Everything needed to go on after a restart."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    timed: int = 0
    critical: int = 0
    error_drift: Drift = field(default_factory=lambda: Drift(0.05))
    slow_drift: Drift = field(default_factory=lambda: Drift(SLOW_SHARE))

    @property
    def error_rate(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Counts:
        drifts = {name: Drift(**data[name]) for name in ("error_drift", "slow_drift")}
        return cls(**{**data, **drifts})


def count(counts: Counts, records: Iterable[Mapping[str, Any]], tenant: str, since: float, limits: Limits) -> None:
    """Add request records of the tenant's on-prem routes to the counts; anything else is passed over."""
    for record in records:
        if record.get("tenant") != tenant or record.get("state") != "onprem" or float(record.get("t", 0)) < since:
            continue
        bad = _is_error(record)
        if bad is None:
            continue
        counts.requests += 1
        counts.errors += bad
        counts.error_drift.add(bad)
        limit = limits.slow_s.get(str(record.get("workload")))
        if limit is not None and not bad:
            slow = float(record.get("total_ms") or 0) > limit * 1000
            counts.timed += 1
            counts.slow += slow
            counts.slow_drift.add(slow)


def _is_error(record: Mapping[str, Any]) -> bool | None:
    """True: our machine failed this request. None: says nothing about our machine (the caller left, cloud's answer)."""
    if record.get("leg") == "onprem":
        return {"ok": False, "refused": False, "error": True, "timeout": True}.get(str(record.get("outcome")))
    if record.get("leg") is None and int(record.get("status") or 0) >= 500:
        return True  # refused: no on-prem model runs and nothing else is permitted
    return None


def count_critical(counts: Counts, comparisons: Iterable[Mapping[str, Any]], tenant: str, since: float) -> None:
    """Add critical differences of the tenant's answers (its routes that are still compared)."""
    for comparison in comparisons:
        if comparison.get("tenant") == tenant and float(comparison.get("t", 0)) >= since:
            counts.critical += bool(comparison.get("critical"))


def decide(
    counts: Counts, limits: Limits, now: float, deadline: float, longest: float, elsewhere: int = 0
) -> tuple[str, str]:
    """(verdict, reason). Verdicts: `bad` (take the tenant back), `clean`, `short` (too few requests), `running`.

    With too few requests at the `deadline` the watch goes on until `longest`: a quiet hour proves nothing. Requests
    that the other gateways' watches saw (`elsewhere`) count as seen: clinics talk to one gateway at a time.
    """
    if counts.critical:
        return "bad", f"{counts.critical} critical differences"
    if counts.error_drift.alarm:
        return "bad", f"{counts.errors} of {counts.requests} requests failed"
    if counts.slow_drift.alarm:
        return "bad", f"{counts.slow} of {counts.timed} answers over their limit"
    if now < deadline:
        return "running", f"{counts.requests} requests so far"
    seen = counts.requests + elsewhere
    if seen < limits.requests_min:
        if now < longest:
            return "running", f"{seen} requests so far, {limits.requests_min} needed"
        return "short", f"{seen} requests, {limits.requests_min} needed"
    rate = counts.error_rate or 0.0
    if rate > limits.error_rate_max:
        return "bad", f"{counts.errors} of {counts.requests} requests failed"
    others = f", {elsewhere} on other gateways" if elsewhere else ""
    return "clean", f"{counts.requests} requests{others}, {counts.errors} failed"
