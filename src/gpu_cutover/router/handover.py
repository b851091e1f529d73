"""One router process takes over from another: it gets the listening sockets themselves, so nobody is turned away.

The serving process listens on a Unix socket. Its successor connects, gets the listening sockets and what the breakers
know, says `ready` when it could serve, and serves from the moment it reads `yours`. Both accept from one queue of
connections, so none is lost between them; the old process keeps its open streams until they end. Only the same user
can ask (the directory is the user's own), and a process that does not hand over in time is ended: it would hold the
port for ever.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 5.0
NAME = "handover.sock"
READY, YOURS = b"ready", b"yours"
_MAX_STATE = 64 * 1024
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a successor got: listening sockets in the order they were given, and the predecessor's state."""

    sockets: list[socket.socket]
    state: dict[str, Any]
    channel: socket.socket

    def take(self) -> None:
        """Say that this process can serve; return once the predecessor has let go. Raises OSError."""
        with self.channel:
            self.channel.sendall(READY)
            if self.channel.recv(len(YOURS)) != YOURS:
                raise OSError("the router before this one did not let go")


def ask(directory: Path, count: int) -> Inherited | None:
    """Ask a serving process for its `count` sockets; None where nobody serves."""
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(PATIENCE_S)
    try:
        channel.connect(str(directory / NAME))
    except OSError:
        channel.close()
        return None
    try:
        told, descriptors, _, _ = socket.recv_fds(channel, _MAX_STATE, count)
        state = json.loads(told)
        if len(descriptors) != count:
            raise ValueError("not every socket came")
    except (OSError, ValueError):
        _end(channel)
        return None
    return Inherited([socket.socket(fileno=one) for one in descriptors], state, channel)


def _end(channel: socket.socket) -> None:
    """End a process that listens and does not answer; return when it is gone."""
    pid, _, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    with channel, contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        while channel.recv(_MAX_STATE):
            pass


class Handover:
    """The serving side: waits for a successor."""

    def __init__(
        self,
        directory: Path,
        sockets: list[socket.socket],
        state: Callable[[], dict[str, Any]],
        let_go: Callable[[], Awaitable[None]],
    ) -> None:
        self._path, self._sockets, self._state, self._let_go = directory / NAME, sockets, state, let_go
        self.done = asyncio.Event()

    async def listen(self) -> None:
        """Take the place of whoever listened here before."""
        channel = socket.socket(socket.AF_UNIX)
        fresh = self._path.with_name(f".{NAME}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        channel.bind(str(fresh))
        fresh.rename(self._path)
        channel.setblocking(False)
        channel.listen(1)
        self._waiting = asyncio.create_task(self._wait(channel))

    async def close(self) -> None:
        """Nobody can take over any more."""
        self._waiting.cancel()
        await asyncio.gather(self._waiting, return_exceptions=True)

    async def _wait(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while not self.done.is_set():
                channel, _ = await loop.sock_accept(listener)
                with channel, contextlib.suppress(OSError, TimeoutError):
                    await self._hand_over(loop, channel)

    async def _hand_over(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        rights = array.array("i", [one.fileno() for one in self._sockets])
        told = json.dumps(self._state()).encode()
        channel.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        async with asyncio.timeout(PATIENCE_S):
            if await loop.sock_recv(channel, len(READY)) != READY:
                return
        await self._let_go()
        try:
            await loop.sock_sendall(channel, YOURS)
        finally:
            self.done.set()
