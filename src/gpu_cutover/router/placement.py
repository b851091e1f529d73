"""Follow the guard's placement, without any controller: a question that the guard answers when it has news.

The guard holds the question until the placement is another one, so a de-rate is known within milliseconds; it answers
after `HOLD_S` all the same, so a guard that is gone is noticed. One that is silent, or knows no such question, is
asked every `POLL_S`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from .machine import Machine, machine_of
from .outbound import Client

POLL_S = 1.0
TIMEOUT_S = 2.0
HOLD_S = 3.0
SHORTEST_S = 0.02  # between two questions, should the guard have news without end


class PlacementFollower:
    """The placement last heard from the guard; until then, and while the guard is silent, the last one known stands."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.heard_at: float | None = None
        self.problem: str | None = None
        self.machine = Machine()
        self.away: frozenset[str] = frozenset()  # models whose engines start anew: not to be asked meanwhile
        self._tag, self._source = "", ""

    async def follow(self, client: Client, source: str) -> None:
        """Ask once and wait as long as is right before the next question."""
        await self.pull(client, source)
        await asyncio.sleep(SHORTEST_S if self._tag and not self.problem else POLL_S)

    async def pull(self, client: Client, source: str) -> None:
        """Ask once."""
        if source != self._source or self.problem:
            self._tag, self._source = "", source
        held = "?" + urlencode({"after": self._tag, "wait": f"{HOLD_S:g}"}) if self._tag else ""
        try:
            document = json.loads(await client.get(source + held, TIMEOUT_S + (HOLD_S if held else 0.0)))
            name = document["name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.problem = f"{source}: {type(error).__name__}"
            return
        if not isinstance(name, str):
            self.problem = f"{source}: no placement name in the answer"
            return
        self.name, self.heard_at, self.problem = name, time.time(), None
        self.away, self._tag = _away(document), str(document.get("tag", ""))
        self.machine = machine_of(document, self.machine)

    def age_s(self) -> float | None:
        """Seconds since the guard was last heard; None: never."""
        return None if self.heard_at is None else time.time() - self.heard_at


def _away(document: Mapping[str, Any]) -> frozenset[str]:
    told = document.get("away")
    return frozenset(map(str, told)) if isinstance(told, list) else frozenset()
