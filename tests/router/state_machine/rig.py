"""Two gateways with both their routers as real processes, and what can be done to them.

A fork server starts a router in a few hundredths of a second; what runs in it is `serving.run`, with short budgets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from gpu_cutover.router import readiness
from gpu_cutover.router.orders import Answer, Order, Place, carry_out

from .stand_ins import StandIn

T = TypeVar("T")
FORK = multiprocessing.get_context("forkserver")
LEGS_S = 0.5  # a leg that is silent is found out
POOLS = ("hybrid", "sealed")


def serve(words: dict[str, Any]) -> None:
    """One router's process, as the supervisor's child: it ends when it was told to, or handed over."""
    from gpu_cutover.router import placement, server, serving, upstream
    from gpu_cutover.router.files import TableFile

    upstream.KEEPALIVE_S = 0.2
    server.POLL_S = placement.POLL_S = 0.05  # type: ignore[attr-defined]
    budgets = upstream.Budgets(patience_s=4.0, stall_s=30.0, connect_s=2.0, read_s=5.0, write_s=5.0, copy_s=6.0)
    serving.Router = functools.partial(server.Router, budgets=budgets)  # type: ignore[misc, assignment]
    arguments = argparse.Namespace(**words)
    os._exit(serving.run(TableFile(arguments.table), arguments))


def links(folder: Path) -> list[str]:
    """Where the descriptors of a process lead; one that is closed meanwhile leads nowhere."""
    found = []
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            if condition():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class RouterProcess:
    """One pool's router of one gateway, over all the processes that serve for it."""

    def __init__(self, folder: Path, pool: str) -> None:
        self.pool, self.port, self.metrics_port = pool, free_port(), free_port()
        self.log = folder / "log"
        self._runtime = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))  # a socket's path must be short
        self._words = {
            "table": folder / f"{pool}.json",
            "pool": pool,
            "host": "127.0.0.1",
            "port": self.port,
            "metrics_host": "127.0.0.1",
            "metrics_port": self.metrics_port,
            "log_dir": self.log,
            "log_key": None,
            "runtime_dir": self._runtime,
            "max_in_flight": 512,
            "max_body_mib": 256,
            "idle_s": 0.2,
            "life": None,
        }
        self._processes: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def health(self) -> dict[str, Any]:
        return readiness.health(self.metrics_port, 5.0)

    def start(self) -> None:
        """A new process; where one serves already it takes over. Returns once the new one serves."""
        process = FORK.Process(target=serve, args=(self._words,), daemon=True)
        process.start()
        self._processes.append(process)
        wait_for(lambda: self.health()["pid"] == process.pid, f"the {self.pool} router serves")

    def serves(self) -> bool:
        return bool(self._processes)

    def kill(self) -> None:
        """SIGKILL to all that serve or drain here."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes.clear()

    def drained(self) -> bool:
        """Have the processes that handed over ended, each as it should?"""
        over = [process for process in self._processes[:-1] if not process.is_alive()]
        for process in over:
            assert process.exitcode == 0
            self._processes.remove(process)
        return len(self._processes) == 1

    def descriptors(self) -> int:
        """Open connections and files; not what leads to the process that compares, which starts when it is needed."""
        folder = Path(f"/proc/{self._processes[-1].pid}/fd")
        local = {f"socket:[{line.split()[6]}]" for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
        return len([one for one in links(folder) if not one.startswith("pipe:") and one not in local])

    def end(self) -> int:
        """SIGTERM; the exit code."""
        process = self._processes.pop()
        process.terminate()
        process.join(20)
        return int(process.exitcode)

    def clear(self) -> None:
        """Whatever happened: nothing of it is left."""
        self.kill()
        shutil.rmtree(self._runtime)


class Gateway:
    """Tables, journal and the routers that live by them."""

    def __init__(self, folder: Path) -> None:
        (folder / "log").mkdir(parents=True)
        self.folder = folder
        self.routers = {pool: RouterProcess(folder, pool) for pool in POOLS}
        self.place = self._place(0)
        self._good: dict[str, bytes] = {}

    def _place(self, example: int) -> Place:
        ports = {pool: router.metrics_port for pool, router in self.routers.items()}
        return Place(self.folder, self.folder / f"changes-{example}.jsonl", self.folder / "log", ports)

    def install(self, example: int, tables: dict[str, Any]) -> None:
        """Begin an example: these tables, an empty journal. Written as day 4 writes them."""
        self.place = self._place(example)
        for pool in POOLS:
            self.place.table(pool).unlink(missing_ok=True)
        told = carry_out(Order(do="install", id="install", by="test", path="ansible", tables=tables), self.place)
        assert told["changed"]

    def order(self, do: str, **more: Any) -> Answer:
        number = f"{time.monotonic_ns()}"
        return self.carry_out(Order(**{"do": do, "id": number, "by": "test", "path": "break-glass", **more}))

    def carry_out(self, order: Order) -> Answer:
        return carry_out(order, self.place)

    def spoil(self, pool: str, content: bytes | dict[str, Any]) -> None:
        """Somebody writes a table by hand, and wrongly."""
        path = self.place.table(pool)
        self._good[pool] = path.read_bytes()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def repair(self, pool: str) -> None:
        """And puts back what was there."""
        fresh = self.place.table(pool).with_suffix(".fresh")
        fresh.write_bytes(self._good[pool])
        fresh.replace(self.place.table(pool))

    def table(self, pool: str) -> dict[str, Any]:
        return dict(json.loads(self.place.table(pool).read_bytes()))


class Rig:
    """Everything: an event loop in a thread for the stand-ins and the callers, two gateways beside it."""

    def __init__(self, folder: Path) -> None:
        self.engine, self.cloud, self.guard = StandIn("onprem"), StandIn("cloud"), StandIn("guard")
        self.gateways = {name: Gateway(folder / name) for name in ("gw1", "gw2")}
        self.examples = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stand-ins")

    @contextlib.contextmanager
    def running(self) -> Iterator[Rig]:
        readiness.LEG_S, before = LEGS_S, readiness.LEG_S
        FORK.set_forkserver_preload(["gpu_cutover.router.serving", "gpu_cutover.compare.text"])
        self._thread.start()
        try:
            for stand_in in (self.engine, self.cloud, self.guard):
                self.do(stand_in.listen())
            yield self
        finally:
            readiness.LEG_S = before
            for router in self.routers():
                router.clear()
            for stand_in in (self.engine, self.cloud, self.guard):
                self.do(stand_in.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.begin(coroutine).result(60)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, act: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(act)

    def routers(self) -> list[RouterProcess]:
        return [router for gateway in self.gateways.values() for router in gateway.routers.values()]
