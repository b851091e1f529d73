"""The life of a serving process: take over from a predecessor, serve, hand on to a successor, drain."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from ..errors import EXIT_DONE, EXIT_HOLD
from ..guard.notify import notify
from . import handover
from .files import TableFile
from .inbound import Handler, Listener
from .main import COMING
from .seal_watch import SealWatch
from .self_test import SelfTest
from .server import Limits, Router

DRAIN_S = 60.0  # streams under way get this long after SIGTERM
LONG_DRAIN_S = 600.0  # with a successor in place nobody waits for this process: as long as the edge keeps a stream
LINGER_S = 5.0  # a process without a parent serves on for this long: a successor may start
SUCCESSOR_S = 60.0  # where one has started: for this long, until it is ready
LAST_BYTES_S = 2.0
BIND_S = 5.0
BACKLOG = 1024


def run(table: TableFile, arguments: argparse.Namespace, seal: SelfTest | None = None) -> int:
    """Serve until told to stop; the exit code. A process that must be sealed and is not refuses to run, before it
    listens anywhere or takes over from a predecessor.
    """
    problem = seal.look() if seal else ""
    if problem:
        print(f"gpu-cutover-router: refuses to run: {problem}", file=sys.stderr)
        notify(f"STATUS=refuses to run: {problem}")
        return EXIT_HOLD
    limits = Limits(arguments.max_in_flight, arguments.max_body_mib * 1024 * 1024)
    router = Router(table, arguments.log_dir, arguments.log_key, limits=limits)
    watch = SealWatch(seal, router.metrics, router.health) if seal else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Serving(router, arguments, watch).run())
    return EXIT_DONE


class Serving:
    """One process's two ports and what ends it."""

    def __init__(self, router: Router, arguments: argparse.Namespace, watch: SealWatch | None = None) -> None:
        self._router, self._arguments, self._watch = router, arguments, watch
        self._told = asyncio.Event()  # SIGTERM: stop now
        self._orphaned = asyncio.Event()  # the parent is gone: a successor may be on its way
        self._listeners: list[Listener] = []
        self._own_mark = _mark(arguments)  # my parent's, until a successor's begins

    async def run(self) -> None:
        """Serve, then drain."""
        self._listen_for_the_end()
        inherited = self._inherited()
        sockets = inherited.sockets if inherited else [await _bound(place) for place in self._places()]
        async with self._router.running(), self._looking():
            if inherited:
                await asyncio.to_thread(inherited.take)
            handlers: list[Handler] = [self._router.handle, self._router.look_in]
            if self._watch:
                handlers = [self._watch.guarded(handler) for handler in handlers]
            self._listeners = [Listener(handler, one) for handler, one in zip(handlers, sockets, strict=True)]
            for listener in self._listeners:
                listener.start()
            notify("READY=1")
            await self._until_the_end(sockets)
            for listener in self._listeners:
                await listener.close(LAST_BYTES_S)

    @contextlib.asynccontextmanager
    async def _looking(self) -> AsyncIterator[None]:
        """The seal is watched inside, where there is one."""
        looking = asyncio.create_task(self._watch.run()) if self._watch else None
        try:
            yield
        finally:
            if looking:
                looking.cancel()

    def _listen_for_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        if self._arguments.life is not None:
            loop.add_reader(self._arguments.life, self._parent_is_gone)

    def _parent_is_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._arguments.life)
        os.close(self._arguments.life)
        self._orphaned.set()

    def _inherited(self) -> handover.Inherited | None:
        directory: Path | None = self._arguments.runtime_dir
        inherited = handover.ask(directory, 2) if directory else None
        if inherited:
            self._router.breakers.restore(self._router.table.get().fallback, inherited.state["breakers"])
        return inherited

    def _places(self) -> list[tuple[str, int]]:
        return [
            (self._arguments.host, self._arguments.port),
            (self._arguments.metrics_host, self._arguments.metrics_port),
        ]

    async def _until_the_end(self, sockets: list[socket.socket]) -> None:
        """Wait for a reason to end; on return nothing is under way any more, or its time is over."""
        heir = None
        if self._arguments.runtime_dir:
            heir = handover.Handover(self._arguments.runtime_dir, sockets, self._state, self._let_go)
            await heir.listen()
        handed_over = heir.done if heir else asyncio.Event()
        await _first_of(self._told, self._orphaned, handed_over)
        began = time.monotonic()
        while self._orphaned.is_set() and time.monotonic() - began < self._patience_s():
            if await _first_of(self._told, handed_over, within_s=0.2):
                break
        if heir:
            await heir.close()
        if not handed_over.is_set():
            await self._let_go()
        await self._drained(handed_over.is_set())

    def _patience_s(self) -> float:
        """How long to serve on without a parent."""
        return LINGER_S if _mark(self._arguments) == self._own_mark else SUCCESSOR_S

    def _state(self) -> dict[str, Any]:
        return {"breakers": self._router.breakers.snapshot()}

    async def _let_go(self) -> None:
        """Accept nothing more; what came already is served."""
        self._router.drain()
        for listener in self._listeners:
            listener.stop()

    async def _drained(self, handed_over: bool) -> None:
        began = time.monotonic()
        # The edge keeps idle connections for its next request: it is answered there, with `connection: close`.
        limit_s, idle_s = (LONG_DRAIN_S, self._arguments.idle_s) if handed_over else (DRAIN_S, 0.0)
        while time.monotonic() - began < (DRAIN_S if self._told.is_set() else limit_s):
            quiet = self._told.is_set() or time.monotonic() - began >= idle_s
            if quiet and not self._router.admission.requests.used:
                return
            await asyncio.sleep(0.05)


def _mark(arguments: argparse.Namespace) -> int:
    """When a process last began to start here (ns)."""
    try:
        return int((arguments.runtime_dir / COMING).stat().st_mtime_ns)
    except (OSError, TypeError):
        return 0


async def _bound(place: tuple[str, int]) -> socket.socket:
    """Listen there. A process that was just ended may hold the port for a moment. Raises OSError."""
    deadline = time.monotonic() + BIND_S
    while True:
        try:
            return socket.create_server(place, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _first_of(*events: asyncio.Event, within_s: float | None = None) -> bool:
    """Wait for one of them; False when none came in time."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    return any(event.is_set() for event in events)
