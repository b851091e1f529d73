"""The mirror: a copy goes on-prem after the cloud's answer is complete; only scores of the comparison are kept.

Nothing here can slow or fail the primary: the queue is bounded in count and bytes; what does not fit is dropped and
counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from ..compare.answers import compare_answers, worst
from ..compare.kinds import kind_of
from ..compare.types import Comparison
from .body import BadBodyError, parse_json
from .metrics import Metrics
from .record import RecordLog
from .table import Leg
from .upstream import PATIENCE_S, Answer, LegFailedError, Question, ask, decoded

QUEUE_LENGTH = 256
QUEUE_BYTES = 256 * 1024 * 1024
WORKERS = 64  # a copy of 12 notes and 30 chats at once must meet the engines at once, too


@dataclass(slots=True)
class Copy:
    """A request whose cloud answer is complete, with that answer (in memory only)."""

    tenant: str
    workload: str
    question: Question
    leg: Leg
    cloud_answer: bytes
    cloud_content_type: str
    cloud_ms: float

    @property
    def size(self) -> int:
        return len(self.question.body) + len(self.cloud_answer)


# Told of each finished attempt of the mirror, so that the server can write the request record.
Attempted = Callable[[Copy, Answer | None, str, float], None]


class Mirror:
    """The bounded queue and its workers."""

    def __init__(self, session: aiohttp.ClientSession, log: RecordLog, metrics: Metrics, attempted: Attempted) -> None:
        self._session, self._log, self._metrics, self._attempted = session, log, metrics, attempted
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(QUEUE_LENGTH)
        self._bytes = 0
        self.pending = 0  # offered and not yet compared
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    def offer(self, copy: Copy) -> None:
        """Queue a copy, or drop and count it. Never waits."""
        if self._queue.full() or self._bytes + copy.size > QUEUE_BYTES:
            self._metrics.mirror_dropped.labels(copy.question.route).inc()
            return
        self.pending += 1
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
                self.pending -= 1
                self._bytes -= copy.size
                self._metrics.mirror_waiting.set(self._queue.qsize())

    async def _compare(self, copy: Copy) -> None:
        started = time.perf_counter()
        answer, outcome, body = await self._ask(copy)
        total_ms = (time.perf_counter() - started) * 1000
        self._attempted(copy, answer, outcome, total_ms)
        self._metrics.mirrored.labels(copy.question.route, outcome).inc()
        kind = kind_of(copy.question.route, copy.workload)
        comparison = await asyncio.to_thread(_compared, kind, copy, answer, body if outcome == "ok" else b"")
        if comparison is not None:
            self._log.add(_record(kind, copy, comparison, answer if outcome == "ok" else None, total_ms))

    async def _ask(self, copy: Copy) -> tuple[Answer | None, str, bytes]:
        answer: Answer | None = None
        try:
            answer = await ask(self._session, copy.leg, copy.question, PATIENCE_S, onprem=True)
            body = await answer.whole()
            return answer, "ok" if answer.status < 400 else "refused", body
        except LegFailedError as failure:
            return answer, failure.outcome, b""
        except BadBodyError:
            return None, "refused", b""
        finally:
            if answer is not None:
                answer.close()


def _compared(kind: str, copy: Copy, answer: Answer | None, body: bytes) -> Comparison | None:
    """Score the on-prem answer. A missing one gets the worst score, else the gate would reward failing."""
    base = decoded(copy.cloud_answer, copy.cloud_content_type)
    if base is None:
        return None  # the baseline itself is unreadable: says nothing about the candidate
    candidate = decoded(body, answer.content_type) if answer and body else None
    if candidate is None:
        return worst(kind)
    return compare_answers(kind, _request(copy.question), base, candidate)


def _request(question: Question) -> dict[str, Any]:
    try:
        return parse_json(question.body)
    except BadBodyError:
        return {}  # multipart: the comparison of transcripts does not need the audio


def _record(kind: str, copy: Copy, comparison: Comparison, answer: Answer | None, total_ms: float) -> dict[str, Any]:
    return {
        "t": round(time.time(), 3),
        "request_id": copy.question.request_id,
        "tenant": copy.tenant,
        "route": copy.question.route,
        "kind": kind,
        "scores": {name: round(score, 6) for name, score in comparison.scores.items()},
        "critical": list(comparison.critical),
        "cloud_ms": round(copy.cloud_ms, 1),
        "onprem_ms": round(total_ms, 1) if answer else None,
        "onprem_first_byte_ms": round(answer.first_byte_ms, 1) if answer else None,
    }
