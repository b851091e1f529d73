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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..compare.answers import compare_answers, worst
from ..compare.kinds import kind_of
from ..compare.types import Comparison
from .answers import decoded
from .body import BadBodyError, parse_json, sterile
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

    def __init__(self, asker: Asker, metrics: Metrics, attempted: Attempted, compared: Compared) -> None:
        self._asker, self._metrics, self._attempted, self._compared = asker, metrics, attempted, compared
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(QUEUE_LENGTH)
        self._bytes = 0
        self.pending = 0  # mirrored, offered and not yet compared
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        # A thread of its own: name resolution may fill the loop's.
        self._scoring = ThreadPoolExecutor(1, "compare")

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
        self._scoring.shutdown(wait=False, cancel_futures=True)

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
        kind = kind_of(copy.question.route, copy.workload)
        second = (body, answer.content_type) if answer and outcome == "ok" else (b"", "")
        loop = asyncio.get_running_loop()
        comparison = await loop.run_in_executor(self._scoring, _score, kind, copy, second)
        if comparison is not None:
            self._compared(copy.reverse, _record(kind, copy, comparison, answer if outcome == "ok" else None, total_ms))

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


def _score(kind: str, copy: Copy, second: tuple[bytes, str]) -> Comparison | None:
    """Score the on-prem answer against the cloud's, whichever of them the caller got.

    A missing on-prem answer gets the worst score, else the gate would reward failing; without a readable answer of the
    cloud there is nothing to compare with (None).
    """
    first = (copy.answer, copy.content_type)
    cloud, onprem = (second, first) if copy.reverse else (first, second)
    base = decoded(*cloud)
    if base is None:
        return None
    candidate = decoded(*onprem)
    return worst(kind) if candidate is None else compare_answers(kind, _request(copy.question), base, candidate)


def _request(question: Question) -> dict[str, Any]:
    try:
        return parse_json(question.envelope.body)
    except BadBodyError:
        return {}  # multipart: the comparison of transcripts does not need the audio


def _record(kind: str, copy: Copy, comparison: Comparison, answer: Answer | None, total_ms: float) -> dict[str, Any]:
    """`answer`: the shadow's, None where there is none."""
    second = (round(total_ms, 1), round(answer.first_byte_ms, 1)) if answer else (None, None)
    first = (round(copy.total_ms, 1), round(copy.first_byte_ms, 1))
    cloud, onprem = (second, first) if copy.reverse else (first, second)
    return {
        "t": round(time.time(), 3),
        "request_id": copy.question.request_id,
        "tenant": copy.tenant,
        "route": copy.question.route,
        "kind": kind,
        "scores": {name: round(score, 6) for name, score in comparison.scores.items()},
        "critical": list(comparison.critical),
        "cloud_ms": cloud[0],
        "onprem_ms": onprem[0],
        "onprem_first_byte_ms": onprem[1],
    }
