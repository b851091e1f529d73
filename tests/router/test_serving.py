"""The router as real processes: replaced under load without a dropped stream or a refused request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .tables import table, tenant
from .upstreams import Upstream

CHAT = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
TENANTS = {"std": tenant(chat="onprem", audio="onprem")}
READY_S = 60.0


@dataclass
class Gateway:
    """A place for routers to run one after the other, as units of systemd do."""

    directory: Path
    runtime: Path
    port: int
    metrics_port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        words = ["--table", self.directory / "table.json", "--pool", "hybrid", "--log-dir", self.directory]
        words += ["--port", self.port, "--metrics-port", self.metrics_port, "--metrics-host", "127.0.0.1"]
        words += ["--idle-s", 4.0, *more]
        command = [sys.executable, "-m", "gpu_cutover.router.main", *map(str, words)]
        process = subprocess.Popen([*command, "--runtime-dir", str(self.runtime)])
        self.started.append(process)
        return process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def health(self, client: aiohttp.ClientSession) -> dict[str, Any]:
        async with client.get(f"http://127.0.0.1:{self.metrics_port}/health") as response:
            return dict(await response.json())

    async def ready(self, client: aiohttp.ClientSession) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                await self.health(client)
                return
            await asyncio.sleep(0.05)
        raise AssertionError("no router is ready")

    def servers(self) -> list[int]:
        """Processes that serve or drain here: children of those started, and those that lost their parent."""
        mine = str(self.runtime).encode()
        return [pid for pid in _processes() if mine in _command(pid) and b"--life" in _command(pid)]


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    runtime = Path(f"/tmp/gpu-cutover-{os.getpid()}-{ports[0]}")  # a socket's path must be short
    runtime.mkdir(mode=0o700)
    made = Gateway(tmp_path, runtime, *ports)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
    for pid in made.servers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in runtime.iterdir():
        path.unlink()
    runtime.rmdir()


@contextlib.asynccontextmanager
async def served(
    gateway: Gateway, onprem: str = "ok", more: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Upstream, aiohttp.ClientSession]]:
    async with Upstream("onprem", onprem) as engine, Upstream("cloud") as cloud, aiohttp.ClientSession() as client:
        data = table(onprem=engine.url, cloud=cloud.url, tenants=TENANTS)
        data["fallback"]["first_byte_s"] = 30  # the machine that runs this may be busy
        (gateway.directory / "table.json").write_text(json.dumps(data))
        gateway.start(*more)
        await gateway.ready(client)
        yield engine, client


async def post(gateway: Gateway, client: aiohttp.ClientSession, **more: Any) -> aiohttp.ClientResponse:
    return await client.post(f"{gateway.url}/chat", json={**CHAT, **more}, headers={"x-tenant": "std"})


@dataclass
class Load:
    """Requests one after the other, on connections that are kept and on new ones."""

    statuses: list[int] = field(default_factory=list)
    stop: bool = False

    async def run(self, gateway: Gateway, keep: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep)
        async with aiohttp.ClientSession(connector=connector) as client:
            while not self.stop:
                try:
                    async with await post(gateway, client) as response:
                        await response.read()
                        self.statuses.append(response.status)
                except aiohttp.ClientError as error:
                    self.statuses.append(-1)
                    print(f"{type(error).__name__}: {error} (kept: {keep}, {time.monotonic():.2f})")


async def new_process(gateway: Gateway, before: list[int]) -> int:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        fresh = [pid for pid in gateway.servers() if pid not in before]
        if fresh:
            return fresh[0]
        await asyncio.sleep(0.05)
    raise AssertionError("no new process")


async def taken_over(gateway: Gateway, client: aiohttp.ClientSession, before: list[int]) -> None:
    """Wait until a process that was not there before serves."""
    newest = await new_process(gateway, before)
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        health = await gateway.health(client)
        if health["pid"] == newest:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the new process does not serve")


async def drained(gateway: Gateway, pid: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if pid not in gateway.servers():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the old process is still there")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
def test_a_router_is_replaced_and_nobody_notices(gateway: Gateway, number: signal.Signals) -> None:
    """As systemd does it: the known process ends, a new one starts; twice, with streams open and requests coming."""

    async def test() -> None:
        async with served(gateway) as (engine, client):
            engine.chunks, engine.chunk_s = 60, 0.1
            streams = [await post(gateway, client, stream=True) for _ in range(8)]
            for response in streams:
                await response.content.readany()
            engine.chunks, engine.chunk_s = 3, 0.0
            load = Load()
            running = [asyncio.create_task(load.run(gateway, keep)) for keep in (True, False, True, False)]
            for _ in range(2):
                before = gateway.servers()
                gateway.started[-1].send_signal(number)
                gateway.started[-1].wait()
                gateway.start()
                await taken_over(gateway, client, before)
                print(f"taken over at {time.monotonic():.2f}")
            load.stop = True
            await asyncio.gather(*running)
            assert len(load.statuses) > 50
            assert set(load.statuses) == {200}
            for response in streams:
                assert (await response.read()).endswith(b"data: [DONE]\n\n")

    asyncio.run(asyncio.wait_for(test(), 110))


def test_the_old_process_ends_when_its_streams_have(gateway: Gateway) -> None:
    async def test() -> None:
        async with served(gateway) as (engine, client):
            [old] = gateway.servers()
            engine.chunks, engine.chunk_s = 30, 0.1
            stream = await post(gateway, client, stream=True)
            gateway.started[0].terminate()
            gateway.started[0].wait()
            gateway.start()
            await new_process(gateway, [old])
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
            await drained(gateway, old, 60)
            assert len(gateway.servers()) == 1
            assert (await post(gateway, client)).status == 200

    asyncio.run(asyncio.wait_for(test(), 110))


def test_without_a_successor_it_ends_by_itself(gateway: Gateway) -> None:
    async def test() -> None:
        async with served(gateway) as (_, client):
            [old] = gateway.servers()
            gateway.started[0].terminate()
            assert gateway.started[0].wait() == 0
            assert (await post(gateway, client)).status == 200  # a successor may be on its way
            await drained(gateway, old, 60)
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get(gateway.url)

    asyncio.run(asyncio.wait_for(test(), 110))


def test_a_process_that_hangs_is_replaced_all_the_same(gateway: Gateway) -> None:
    async def test() -> None:
        async with served(gateway) as (_, client):
            [old] = gateway.servers()
            os.kill(old, signal.SIGSTOP)
            gateway.started[0].kill()
            gateway.started[0].wait()
            gateway.start()
            await drained(gateway, old, 60)
            await gateway.ready(client)
            assert (await post(gateway, client)).status == 200

    asyncio.run(asyncio.wait_for(test(), 110))


def test_a_serving_process_that_dies_takes_its_parent_along(gateway: Gateway) -> None:
    """So that systemd sees it and starts another."""

    async def test() -> None:
        async with served(gateway):
            os.kill(gateway.servers()[0], signal.SIGKILL)
            assert gateway.started[0].wait(10) == 128 + signal.SIGKILL

    asyncio.run(asyncio.wait_for(test(), 110))


def test_an_open_breaker_stays_open_across_a_replacement(gateway: Gateway) -> None:
    async def test() -> None:
        async with served(gateway, onprem="500") as (engine, client):
            for _ in range(20):
                await post(gateway, client)
            assert (await gateway.health(client))["breakers_open"] == ["own-chat"]
            before = gateway.servers()
            gateway.started[0].terminate()
            gateway.started[0].wait()
            gateway.start()
            await drained(gateway, before[0], 60)
            asked = len(engine.bodies)
            assert (await gateway.health(client))["breakers_open"] == ["own-chat"]
            assert (await post(gateway, client)).headers["x-served-by"] == "cloud"
            assert len(engine.bodies) == asked

    asyncio.run(asyncio.wait_for(test(), 110))


def test_all_its_records_are_in_one_chain(gateway: Gateway) -> None:
    """The old process and the new one write the same log while the old one drains."""

    async def test() -> None:
        async with served(gateway) as (engine, client):
            engine.chunks, engine.chunk_s = 20, 0.1
            stream = await post(gateway, client, stream=True)
            before = gateway.servers()
            gateway.started[0].terminate()
            gateway.started[0].wait()
            gateway.start()
            await new_process(gateway, before)
            engine.chunks, engine.chunk_s = 3, 0.0
            for _ in range(20):
                assert (await post(gateway, client)).status == 200
            await stream.read()
            await drained(gateway, before[0], 60)
            gateway.started[-1].terminate()
            await drained(gateway, gateway.servers()[0], 60)

    asyncio.run(asyncio.wait_for(test(), 110))
    lines = [json.loads(line) for line in (gateway.directory / "requests-hybrid.jsonl").read_text().splitlines()]
    assert len([line for line in lines if line.get("outcome") == "ok"]) == 21
    assert [line["n"] for line in lines] == list(range(lines[0]["n"], lines[0]["n"] + len(lines)))


def test_a_flood_of_large_recordings_is_bounded_in_memory(gateway: Gateway) -> None:
    """60 recordings of 25 MB at once: what does not fit is told to come back, memory stays where it was declared."""
    recording = b"\0" * 25_000_000

    async def send(client: aiohttp.ClientSession) -> int:
        form = aiohttp.FormData()
        form.add_field("file", recording, filename="a.wav")
        async with client.post(f"{gateway.url}/audio", data=form, headers={"x-tenant": "std"}) as response:
            await response.read()
            return response.status

    async def test() -> None:
        async with served(gateway, more=("--max-body-mib", "100")) as (engine, client):
            engine.delay_s = 2.0
            before = resident_mb(gateway, "VmRSS")
            statuses = await asyncio.gather(*(send(client) for _ in range(60)))
            assert statuses.count(200) >= 3
            assert set(statuses) == {200, 429}
            assert resident_mb(gateway, "VmHWM") < before + 3 * 105  # as it came, as it is sent, and on its way
            health = await gateway.health(client)
            assert health["in_flight"] == 0

    asyncio.run(asyncio.wait_for(test(), 110))


def resident_mb(gateway: Gateway, which: str) -> float:
    [pid] = gateway.servers()
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(which))
    return int(line.split()[1]) / 1024
