"""Follow the guard's placement: pulled every second, so a de-rate reaches the router without any controller."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from .machine import Machine, machine_of

POLL_S = 1.0
TIMEOUT_S = 2.0


class PlacementFollower:
    """The placement last heard from the guard; until then, and while the guard is silent, the last one known stands."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.heard_at: float | None = None
        self.problem: str | None = None
        self.machine = Machine()

    async def pull(self, session: aiohttp.ClientSession, source: str) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(TIMEOUT_S), session.get(source) as response:
                document = await response.json()
                name = document["name"]
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
            self.problem = f"{source}: {type(error).__name__}"
            return
        if not isinstance(name, str):
            self.problem = f"{source}: no placement name in the answer"
            return
        self.name, self.heard_at, self.problem = name, time.time(), None
        self.machine = machine_of(document, self.machine)

    def age_s(self) -> float | None:
        """Seconds since the guard was last heard; None: never."""
        return None if self.heard_at is None else time.time() - self.heard_at
