"""What a request costs the router: CPU of its process, latency added, memory; beside the same request without it.

`python bench/router_cpu.py` prints a line per kind of request. A stand-in engine, the router and the caller are three
processes on this machine. CPU is user and system time of the router's process (of its helper that compares answers in a
column of its own), from /proc/<pid>/task/*/schedstat. With `--against TREE` the routers of both trees take turns, so
that both meet the same neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

TREE = Path(__file__).resolve().parents[1]
EVENTS, GAP_S = 20, 0.002  # a stream of twenty tokens, apart
ROUTES = {
    "audio": "/v1/audio/transcriptions",
    **dict.fromkeys(("chat", "reason", "vision"), "/v1/chat/completions"),
    **{"embed": "/v1/embeddings", "rerank": "/v1/rerank"},
}
TEXT = "The patient takes 500 mg of metformin daily, has no fever, and sleeps well since the change of dose. "


# --- the engine and the cloud: one stand-in ---------------------------------------------------------------------------


def _event(number: int) -> bytes:
    delta = {"content": f"word{number} "}
    finish = "stop" if number == EVENTS - 1 else None
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795300000, "model": "m"}
    told = {**chunk, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def _whole() -> bytes:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 40, "completion_tokens": EVENTS, "total_tokens": 40 + EVENTS}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Engine(asyncio.Protocol):
    """Answers each request as soon as it is complete; a stream event by event."""

    PIECES = tuple(_chunk(_event(number)) for number in range(EVENTS))
    END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(_whole()),
        _whole(),
    )

    def __init__(self) -> None:
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, found, rest = self.held.partition(b"\r\n\r\n")
        if not found or len(rest) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        self.held = b""
        if b'"stream": true' in rest:
            self.transport.write(self.HEAD + self.PIECES[0])
            asyncio.get_running_loop().call_later(GAP_S, self.next, 1)
        else:
            self.transport.write(self.WHOLE)

    def next(self, number: int) -> None:
        if self.transport.is_closing():
            return
        if number == EVENTS:
            self.transport.write(self.END)
            return
        self.transport.write(self.PIECES[number])
        asyncio.get_running_loop().call_later(GAP_S, self.next, number + 1)


async def _engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


# --- the caller -------------------------------------------------------------------------------------------------------


async def _ask(port: int, request: bytes, count: int, took: list[float]) -> None:
    """One kept connection, one request after the other. Raises ValueError at anything but a whole answer of 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(count):
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise ValueError(head.decode())
        if b"chunked" in head:
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            if b"[DONE]" not in body:
                raise ValueError("half a stream")
        else:
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
        took.append(time.perf_counter() - began)
    writer.close()


def _request(tenant: str, streamed: bool) -> bytes:
    question = {"role": "user", "content": TEXT * 3}
    body = json.dumps({"model": "gpt-4o", "messages": [question], "max_tokens": EVENTS, "stream": streamed}).encode()
    head = (
        f"POST /chat HTTP/1.1\r\nhost: ai.clinic.test\r\nx-tenant: {tenant}\r\nx-request-id: bench-0123456789\r\n"
        "user-agent: openai/1.0\r\naccept: application/json\r\nx-workload: soap\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- the router -------------------------------------------------------------------------------------------------------


def _table(engine: int) -> dict[str, object]:
    def legs(name: str) -> dict[str, dict[str, object]]:
        url = f"http://127.0.0.1:{engine}"
        more = {"version": "ab" * 32, "gpus": [2, 3], "engine": "vllm", "engine_version": "0.20.2"}
        return {route: {"url": url, "path": path, "model": name, **more} for route, path in ROUTES.items()}

    return {
        **{"schema": 1, "version": 1, "pool": "hybrid", "changed": "2026-12-30T10:00:00Z", "reason": "bench"},
        **{"placement": "healthy", "placement_source": None, "models_rolled_back": []},
        **{"onprem": {"healthy": legs("own")}, "cloud": legs("theirs")},
        "tenants": {
            state: {"policy": "standard", "routes": {"chat": state}} for state in ("cloud", "mirror", "onprem")
        },
        "fallback": {"first_byte_s": 10, "error_rate": 0.05, "window_s": 60, "minimum_requests": 20, "open_s": 30},
    }


@dataclass
class Router:
    """One tree's router as a process."""

    pid: int
    port: int
    folder: Path

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        return _cpu_s(self.pid)

    def helpers_cpu_s(self) -> float:
        """The same of the processes that it started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(_cpu_s(int(child)) for child in children)

    def rss_mb(self, which: str = "VmRSS") -> float:
        """Resident memory of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024


def _cpu_s(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _process(words: list[str], port: int, source: Path) -> Iterator[int]:
    path = os.pathsep.join([str(source / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "PYTHONPATH": path})
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words} does not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@contextlib.contextmanager
def router(tree: Path, engine: int) -> Iterator[Router]:
    """The router of a source tree, with a table of one tenant per state."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), _free_port()
        (folder / "table.json").write_text(json.dumps(_table(engine)))
        subprocess.run(
            [sys.executable, "-m", "gpu_cutover.router.log_key", str(folder / "hybrid.key")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree / "src"), os.environ.get("PYTHONPATH", "")])},
            check=True,
        )
        words = ["-m", "gpu_cutover.router.main", "--pool", "hybrid", "--table", str(folder / "table.json")]
        words += ["--port", str(port), "--metrics-port", str(_free_port()), "--metrics-host", "127.0.0.1"]
        words += ["--log-dir", name, "--log-key", str(folder / "hybrid.key")]
        with _process(words, port, tree) as pid:
            yield Router(pid, port, folder)


@contextlib.contextmanager
def engine() -> Iterator[int]:
    """The stand-in engine's port."""
    port = _free_port()
    with _process([__file__, "--engine", str(port)], port, TREE):
        yield port


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of request: its tenant's state, and how many are asked in a round."""

    name: str
    tenant: str
    streamed: bool
    count: int


KINDS = (
    Kind("whole, passed on", "cloud", False, 2000),
    Kind("whole, folded from a stream", "onprem", False, 500),
    Kind("streamed, 20 events apart", "onprem", True, 500),
    Kind("whole, with mirror", "mirror", False, 500),
)
AT_ONCE = 4


@dataclass
class Figures:
    """Rounds of one kind at one router: CPU ms a request, and each request's seconds."""

    cpu_ms: list[float] = field(default_factory=list)
    helpers_ms: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)


async def _round(port: int, kind: Kind) -> list[float]:
    took: list[float] = []
    each = kind.count // AT_ONCE
    await asyncio.gather(*(_ask(port, _request(kind.tenant, kind.streamed), each, took) for _ in range(AT_ONCE)))
    return took


def measure(trees: list[Path], rounds: int, kinds: tuple[Kind, ...] = KINDS) -> None:
    """Print what each tree's router costs, a line per kind of request."""
    with engine() as behind, contextlib.ExitStack() as stack:
        routers = [stack.enter_context(router(tree, behind)) for tree in trees]
        print(
            f"{'':<30}{'CPU a request':>14}{'helpers':>9}{'p50':>9}{'p99':>9}{'direct p50':>12}{'p99':>9}", flush=True
        )
        for kind in kinds:
            direct, figures = _interleaved(behind, routers, kind, rounds)
            for tree, told in zip(trees, figures, strict=True):
                _show(kind.name if tree == trees[0] else f"  {tree.name}", told, direct)
        for one in routers:
            print(f"{'memory of the router':<30}{one.rss_mb():>11.0f} MB   (at most {one.rss_mb('VmHWM'):.0f} MB)")
    print(
        f"{AT_ONCE} callers; load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {rounds} rounds"
    )


def _interleaved(behind: int, routers: list[Router], kind: Kind, rounds: int) -> tuple[list[float], list[Figures]]:
    figures, direct = [Figures() for _ in routers], list[float]()
    # What the engine itself takes: the on-prem leg of a whole answer is asked as a stream.
    alone = Kind(kind.name, kind.tenant, kind.streamed or kind.tenant == "onprem", min(kind.count, 500))
    for one in routers:
        uvloop.run(_round(one.port, Kind("warm", kind.tenant, kind.streamed, 100)))
    for _ in range(rounds):
        direct += uvloop.run(_round(behind, alone))
        for one, told in zip(routers, figures, strict=True):
            before = one.cpu_s(), one.helpers_cpu_s()
            told.took += uvloop.run(_round(one.port, kind))
            time.sleep(
                0.5 if kind.tenant == "mirror" else 0.25
            )  # what is left to do for these requests: copies, records
            told.cpu_ms.append((one.cpu_s() - before[0]) / kind.count * 1000)
            told.helpers_ms.append((one.helpers_cpu_s() - before[1]) / kind.count * 1000)
    return direct, figures


def _show(name: str, told: Figures, direct: list[float]) -> None:
    def at(values: list[float], share: float) -> float:
        return sorted(values)[int(share * (len(values) - 1))] * 1000

    cpu, helpers = statistics.median(told.cpu_ms), statistics.median(told.helpers_ms)
    print(
        f"{name:<30}{cpu:>11.3f} ms{helpers:>9.3f}{at(told.took, 0.5):>9.2f}{at(told.took, 0.99):>9.2f}"
        f"{at(direct, 0.5):>12.2f}{at(direct, 0.99):>9.2f}",
        flush=True,
    )


def main() -> int:
    """Measure, or be the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="a second source tree, measured in turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", type=int, action="append", help="only these kinds, counted from 0")
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        uvloop.run(_engine(arguments.engine))
        return 0
    kinds = tuple(KINDS[number] for number in arguments.kind) if arguments.kind else KINDS
    measure([TREE, *filter(None, [arguments.against])], arguments.rounds, kinds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
