"""Processes that the bench starts: where they run, what they cost, how they end.

The gateway that is measured has one core to itself (its whole tree of processes), the engines and the load the others.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import install

CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE = CORES[-1]
OTHER_CORES = CORES[:-1] or CORES
_LIBC = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    """A port of loopback that nobody holds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A program and whatever it starts, on given cores, its output in a file."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        *,
        cores: Iterable[int] = (GATEWAY_CORE,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "output.log"
        words = ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    def wait_for(self, port: int, seconds: float = 15.0) -> None:
        """Until it listens. Raises NotAtHandError with its last words."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            time.sleep(0.05)
        said = self.log.read_text(errors="replace").strip().splitlines() or ["(nothing)"]
        raise install.NotAtHandError(f"did not come up: {said[-1][:200]}")

    @property
    def pids(self) -> list[int]:
        """Of the program and all that it started."""
        return tree(self._process.pid)

    def cpu_s(self) -> float:
        """Processor time of the tree so far, user and system, in seconds."""
        return sum(cpu_s(pid) for pid in self.pids)

    def rss_mib(self) -> list[float]:
        """Resident memory of each process of the tree, largest first."""
        return sorted((rss_mib(pid) for pid in self.pids), reverse=True)

    def stop(self) -> None:
        """End the tree: politely, then not."""
        pids = self.pids
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def tree(pid: int) -> list[int]:
    """A process and its descendants, as far as they live."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def cpu_s(pid: int) -> float:
    """Processor time of all threads of a process, those that ended too, to the nanosecond; 0 of one that is gone.

    Source: clock_getcpuclockid(3). /proc counts in ticks of 10 ms.
    """
    clock, now = ctypes.c_int(), _Timespec()
    if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)) or _LIBC.clock_gettime(clock, ctypes.byref(now)):
        return 0.0
    return float(now.seconds) + float(now.nanoseconds) / 1e9


def rss_mib(pid: int) -> float:
    """Resident memory of a process in MiB; 0 of one that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


class Load:
    """The load generator: one process, told what to do."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).with_name("load.py")
        command = ["taskset", "-c", ",".join(map(str, OTHER_CORES)), str(python), str(script)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, order: Mapping[str, Any]) -> None:
        """Begin."""
        assert self._process.stdin  # noqa: S101 - tells the type checker
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def read(self) -> Any:
        """One line of its answer. Raises RuntimeError when it ended."""
        assert self._process.stdout  # noqa: S101 - tells the type checker
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        return json.loads(line)

    def run(self, order: Mapping[str, Any]) -> Any:
        """Send and read."""
        self.send(order)
        return self.read()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
