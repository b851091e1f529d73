"""Shadows: the same question asked of the other leg after the caller has its answer; only scores are kept.

A mirrored request was answered by the cloud and its copy goes on-prem; a reverse shadow the other way round. Nothing
here can slow or fail the primary: the queue is bounded in count and bytes, each copy in time; what does not fit is
dropped and counted. A copy carries nothing that could have an effect, and says what it is (`x-shadow: 1`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..compare.kinds import kind_of
from .body import JSON_TYPES, sterile
from .comparing import Comparer, DroppedError, Pair
from .metrics import Metrics
from .table import Leg
from .upstream import SHADOW, Answer, Asker, LegFailedError, Question

QUEUE_LENGTH = 256
QUEUE_BYTES = 256 * 1024 * 1024
WORKERS = 64  # a copy of 12 notes and 30 chats at once must meet the engines at once, too


@dataclass(frozen=True, slots=True)
class Copy:
    """A request whose answer is complete, with that answer (in memory only), and the leg that is asked the same."""

    tenant: str
    workload: str
    question: Question
    leg: Leg
    reverse: bool  # the answer came from on-prem, the cloud is asked
    answer: bytes
    content_type: str
    total_ms: float
    first_byte_ms: float

    @property
    def size(self) -> int:
        """Bytes held while it waits."""
        return len(self.question.envelope.body) + len(self.answer)


# Told of each finished attempt, so that the server can write the request record.
Attempted = Callable[[Copy, Answer | None, str, float], None]
# Told of each comparison; True: of a reverse shadow.
Compared = Callable[[bool, Mapping[str, Any]], None]


class Mirror:
    """The bounded queue and its workers."""

    def __init__(
        self, asker: Asker, comparer: Comparer, metrics: Metrics, attempted: Attempted, compared: Compared
    ) -> None:
        self._comparer = comparer
        self._asker, self._metrics, self._attempted, self._compared = asker, metrics, attempted, compared
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(QUEUE_LENGTH)
        self._bytes = 0
        self.pending = 0  # mirrored, offered and not yet compared
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    def offer(self, copy: Copy) -> None:
        """Queue a copy, or drop and count it. Never waits."""
        if self._queue.full() or self._bytes + copy.size > QUEUE_BYTES:
            dropped = self._metrics.reverse_dropped if copy.reverse else self._metrics.mirror_dropped
            dropped.labels(copy.question.route).inc()
            return
        self.pending += not copy.reverse
        self._bytes += copy.size
        self._queue.put_nowait(copy)
        self._metrics.mirror_waiting.set(self._queue.qsize())

    async def stop(self) -> None:
        """Forget what waits: a copy is never worth delaying a shutdown."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            try:
                await self._compare(copy)
            finally:
                self.pending -= not copy.reverse
                self._bytes -= copy.size
                self._metrics.mirror_waiting.set(self._queue.qsize())

    async def _compare(self, copy: Copy) -> None:
        started = time.perf_counter()
        answer, outcome, body = await self._ask(copy)
        total_ms = (time.perf_counter() - started) * 1000
        self._attempted(copy, answer, outcome, total_ms)
        counted = self._metrics.reversed if copy.reverse else self._metrics.mirrored
        counted.labels(copy.question.route, outcome).inc()
        second = (body, answer.content_type) if answer and outcome == "ok" else (b"", "")
        pair = _pair(copy, second)
        try:
            compared = await self._comparer.compare(pair)
        except DroppedError:
            self._metrics.compare_dropped.labels(copy.question.route).inc()
            return
        if compared is not None:
            times = _times(copy, answer if outcome == "ok" else None, total_ms)
            self._compared(copy.reverse, _record(pair.kind, copy, compared, times))

    async def _ask(self, copy: Copy) -> tuple[Answer | None, str, bytes]:
        answer: Answer | None = None
        budgets = self._asker.budgets
        try:
            question = dataclasses.replace(copy.question, envelope=sterile(copy.question.envelope))
            async with asyncio.timeout(budgets.copy_s):
                answer = await self._asker.ask(copy.leg, question, budgets.patience_s, not copy.reverse, SHADOW)
                body = await answer.whole()
            return answer, "ok" if answer.status < 400 else "refused", body
        except LegFailedError as failure:
            return answer, failure.outcome, b""
        except TimeoutError:
            return answer, "timeout", b""
        finally:
            if answer is not None:
                answer.close()


def _pair(copy: Copy, second: tuple[bytes, str]) -> Pair:
    first, envelope = (copy.answer, copy.content_type), copy.question.envelope
    cloud, onprem = (second, first) if copy.reverse else (first, second)
    request = envelope.body if envelope.media in JSON_TYPES else b""
    return Pair(kind_of(copy.question.route, copy.workload), request, cloud, onprem)


def _times(copy: Copy, answer: Answer | None, total_ms: float) -> dict[str, float | None]:
    """`answer`: the shadow's, None where there is none."""
    second = (round(total_ms, 1), round(answer.first_byte_ms, 1)) if answer else (None, None)
    first = (round(copy.total_ms, 1), round(copy.first_byte_ms, 1))
    cloud, onprem = (second, first) if copy.reverse else (first, second)
    return {"cloud_ms": cloud[0], "onprem_ms": onprem[0], "onprem_first_byte_ms": onprem[1]}


def _record(kind: str, copy: Copy, compared: Mapping[str, Any], times: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "t": round(time.time(), 3),
        "request_id": copy.question.request_id,
        "tenant": copy.tenant,
        "route": copy.question.route,
        "kind": kind,
        "scores": compared["scores"],
        "critical": compared["critical"],
        **times,
    }
