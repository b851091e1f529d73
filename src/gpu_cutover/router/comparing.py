"""The process that compares answers (`compare_process`), as the router sees it: asked, never waited for by a request.

Comparing two long transcripts takes longer than answering many requests. So it happens elsewhere, with what processor
time is left over; what does not fit into the pipe and a bounded buffer is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import struct
import sys
from collections import deque
from typing import Any, NamedTuple

LENGTH = struct.Struct(">I")
MAX_WAITING = 256
MAX_WAITING_BYTES = 64 * 1024 * 1024
MAX_CPU_S = 20.0  # of one comparison; then the process ends and another is started
RESTART_S = 1.0
COMMAND = (sys.executable, "-P", "-m", "gpu_cutover.router.compare_process")


class DroppedError(Exception):
    """This comparison was not made."""


class Pair(NamedTuple):
    """Two answers to one request, each with its media type. The request is empty where no comparison needs it."""

    kind: str
    request: bytes
    cloud: tuple[bytes, str]
    onprem: tuple[bytes, str]


def packed(pair: Pair) -> bytes:
    """A pair as the process reads it."""
    data = pickle.dumps(tuple(pair))
    return LENGTH.pack(len(data)) + data


class Comparer:
    """Starts the process with the first pair. Results come in the order of the pairs."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[dict[str, Any] | None]] = deque()
        self._process: asyncio.subprocess.Process | None = None
        self._running: asyncio.Task[None] | None = None
        self._early: list[bytes] = []  # while it starts

    async def compare(self, pair: Pair) -> dict[str, Any] | None:
        """`{scores, critical}`; None where there is nothing to compare with. Raises DroppedError."""
        data = packed(pair)
        if len(self._waiting) >= MAX_WAITING or self._held() + len(data) > MAX_WAITING_BYTES:
            raise DroppedError("too much waits to be compared")
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        result: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(result)
        stdin = self._process.stdin if self._process else None
        if stdin is None:
            self._early.append(data)
        else:
            stdin.write(data)
        return await result

    async def stop(self) -> None:
        """End it; what waits is dropped."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _held(self) -> int:
        if self._process is None or self._process.stdin is None:
            return sum(map(len, self._early))
        return int(self._process.stdin.transport.get_write_buffer_size())

    async def _run(self) -> None:
        """The process's life."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *COMMAND, str(MAX_CPU_S), stdin=pipe, stdout=pipe
            )
            try:
                await self._follow(process)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        finally:
            self._drop()
        await asyncio.sleep(RESTART_S)
        self._running = None

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both were asked for")
        for data in self._early:
            process.stdin.write(data)
        self._early.clear()
        while line := await process.stdout.readline():
            result = self._waiting.popleft()
            if not result.done():
                result.set_result(json.loads(line))

    def _drop(self) -> None:
        self._process = None
        self._early.clear()
        while self._waiting:
            result = self._waiting.popleft()
            if not result.done():
                result.set_exception(DroppedError("the process that compares has ended"))
