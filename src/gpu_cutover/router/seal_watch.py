"""A sealed router goes on only while it is sealed: asked again and again, told to everybody who asks for its health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from prometheus_client import Gauge

from ..guard.notify import notify
from .inbound import Caller, Handler, Request
from .metrics import PREFIX, Metrics
from .self_test import SelfTest

CANARY_EVERY_S = 1.0  # a flushed ruleset is noticed within it
THOROUGH_EVERY_S = 60.0  # each target outside is tried
RETRY_AFTER_S = 15
JSON = "application/json"
Health = Callable[[], tuple[str, bytes]]


class SealWatch:
    """The last finding, and what follows from it. `problem` is "" while the process is sealed."""

    def __init__(self, test: SelfTest, metrics: Metrics, health: Health) -> None:
        self.problem = ""
        self._test, self._metrics, self._health = test, metrics, health
        self._gauge = Gauge(
            f"{PREFIX}_sealed", "1 while the kernel keeps this router inside", registry=metrics.registry
        )
        self._gauge.set(1)

    async def run(self) -> None:
        """Look for ever. While something is wrong every look is a thorough one: only that may end it."""
        loop = asyncio.get_running_loop()
        due = loop.time() + THOROUGH_EVERY_S
        while True:
            await asyncio.sleep(CANARY_EVERY_S)
            thorough = bool(self.problem) or loop.time() >= due
            if thorough:
                due = loop.time() + THOROUGH_EVERY_S
            self._tell(await asyncio.to_thread(self._test.look, thorough))

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._gauge.set(not problem)
            print(f"gpu-cutover-router: {problem or 'sealed again'}", flush=True)
            notify(f"STATUS={'takes no requests: ' + problem if problem else 'sealed'}")

    def guarded(self, handler: Handler) -> Handler:
        """No request passes while the process is not sealed; `/health` says why, with a status that the edge heeds."""

        async def guard(request: Request, caller: Caller) -> None:
            if not self.problem or request.path == "/metrics":
                await handler(request, caller)
            elif request.path == "/health":
                caller.answer(503, {"content-type": JSON}, self._unsealed())
            else:
                self._metrics.turned_away.labels("unsealed").inc()
                error = {"type": "unavailable", "message": "this tenant's router is not sealed at the moment"}
                headers = {"content-type": JSON, "retry-after": str(RETRY_AFTER_S)}
                caller.answer(503, headers, json.dumps({"error": error}).encode())

        return guard

    def _unsealed(self) -> bytes:
        told = json.loads(self._health()[1])
        return json.dumps(told | {"status": "unsealed", "problems": [*told["problems"], self.problem]}).encode()
