"""A circuit breaker per on-prem model: sliding window of outcomes, open, probe, close. The clock is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .table import Fallback

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
