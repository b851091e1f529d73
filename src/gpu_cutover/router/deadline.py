"""A time limit that moves with every sign of life. Moving it costs an assignment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `expired` at the moment `at` (loop time). Whoever begins to wait calls `arm`; then `at` may grow."""

    __slots__ = ("_expired", "_loop", "_timer", "_timer_at", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop, self._expired = loop, expired
        self.at = self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """From now on the moment is watched."""
        if self._timer is not None:
            if self._timer_at <= self.at:
                return
            self._timer.cancel()
        self._timer_at = self.at
        self._timer = self._loop.call_at(self.at, self._ring)

    def clear(self) -> None:
        """No limit any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() < self.at:
            self.arm()
        else:
            self._expired()
