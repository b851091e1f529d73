"""A circuit breaker per on-prem model: sliding window of outcomes, open, probe, close. The clock is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .table import Fallback, Table

PROBE_EVERY_S = 1.0
CLOSE_AFTER = 3  # successful probes in a row


@dataclass(slots=True)
class Breaker:
    """Counts outcomes of one model. Opens above `error_rate` with at least `minimum_requests` in `window_s`."""

    limits: Fallback
    outcomes: deque[tuple[float, bool]] = field(default_factory=deque)
    opened_at: float | None = None
    last_probe: float = float("-inf")
    good_probes: int = 0

    def permits(self, now: float) -> bool:
        """May a request go to the model now? While open: one probe a second once `open_s` have passed."""
        if self.opened_at is None:
            return True
        return now - self.opened_at >= self.limits.open_s and now - self.last_probe >= PROBE_EVERY_S

    def started(self, now: float) -> None:
        """A request was sent to the model: while open it is the probe."""
        if self.opened_at is not None:
            self.last_probe = now

    def record(self, now: float, ok: bool) -> bool:
        """Note an outcome; returns True when this outcome opened or closed the breaker."""
        if self.opened_at is not None:
            return self._probe_result(now, ok)
        self.outcomes.append((now, ok))
        while self.outcomes[0][0] < now - self.limits.window_s:
            self.outcomes.popleft()
        if ok or not self._too_many_errors():
            return False
        self.opened_at, self.good_probes = now, 0
        return True

    def _too_many_errors(self) -> bool:
        failures = sum(not ok for _, ok in self.outcomes)
        count = len(self.outcomes)
        return count >= self.limits.minimum_requests and failures > self.limits.error_rate * count

    def _probe_result(self, now: float, ok: bool) -> bool:
        if self.last_probe < (self.opened_at or 0.0):
            return False  # a request that was under way when the breaker opened says nothing new
        self.good_probes = self.good_probes + 1 if ok else 0
        if not ok:
            self.opened_at = now
        elif self.good_probes >= CLOSE_AFTER:
            self.opened_at = None
            self.outcomes.clear()
            return True
        return False


class Breakers:
    """The breakers of one router. Times are of the machine's monotonic clock, so that a successor understands them."""

    def __init__(self) -> None:
        self._of: dict[str, Breaker] = {}

    def closed_to(self, overrides: Mapping[str, str], now: float) -> frozenset[str]:
        """Models that get no request now, where somebody else may answer it. An operator's word beats the figures."""
        measured = {model for model, breaker in self._of.items() if not breaker.permits(now)}
        forced = {model for model, state in overrides.items() if state == "open"}
        return frozenset((measured | forced) - {model for model, state in overrides.items() if state == "closed"})

    def started(self, table: Table, model: str, now: float) -> None:
        """A request was sent to the model."""
        self._one(table, model).started(now)

    def record(self, table: Table, model: str, now: float, ok: bool) -> bool:
        """Note an outcome; returns True when this outcome opened or closed the model's breaker."""
        return self._one(table, model).record(now, ok)

    def is_open(self, model: str) -> bool:
        """Has this model's breaker opened by itself?"""
        return model in self._of and self._of[model].opened_at is not None

    def names_open(self, overrides: Mapping[str, str]) -> list[str]:
        """Models whose breaker is open, by itself or by an operator's word."""
        names = {model for model in self._of if self.is_open(model)} | set(overrides)
        return sorted(name for name in names if overrides.get(name, "open") == "open")

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """What a successor must know: which are open, since when, how far their probes came."""
        return {
            model: {"opened_at": breaker.opened_at, "good_probes": breaker.good_probes}
            for model, breaker in self._of.items()
            if breaker.opened_at is not None
        }

    def restore(self, limits: Fallback, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from a predecessor's snapshot."""
        for model, state in told.items():
            self._of[model] = Breaker(
                limits, opened_at=float(state["opened_at"]), good_probes=int(state["good_probes"])
            )

    def _one(self, table: Table, model: str) -> Breaker:
        breaker = self._of.get(model)
        if breaker is None:
            breaker = self._of[model] = Breaker(table.fallback)
        breaker.limits = table.fallback
        return breaker
