"""From the guard's decision to the routers' traffic: nobody asks the hot GPU's models any more.

Real processes but for the sealed router, which runs here: as a process it refuses to serve without the kernel's seal.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpu_cutover.router.files import TableFile
from gpu_cutover.router.inbound import Listener
from gpu_cutover.router.server import Router
from router.tables import table, tenant
from router.upstreams import Upstream

from .real_guard import Board, Engines, Guard, free_port

PATIENCE_S = 30.0
CHAT = {"messages": [{"role": "user", "content": "a cough"}]}


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path)
    yield made
    made.close()


@pytest.fixture
def guard(board: Board, engines: Engines, tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path)
    engines.place(made.placements)
    made.start()
    yield made
    made.kill()


def route_table(pool: str, onprem: str, cloud: str, guard: Guard) -> dict[str, Any]:
    """`chat` is the model that a de-rate without GPU 2 starts anew, `vision` is given one that it does not touch."""
    policy = "sensitive" if pool == "sealed" else "standard"
    tenants = {"zam": tenant(policy, chat="onprem", vision="onprem")}
    made = table(pool, onprem, cloud, tenants, source=f"http://127.0.0.1:{guard.port}/placement")
    legs = made["onprem"]["healthy"]
    legs["chat"]["model"], legs["vision"]["model"] = "llama", "bge"
    return {**made, "onprem": {"healthy": legs, "without-gpu2": legs}}


@asynccontextmanager
async def router(folder: Path, content: dict[str, Any]) -> AsyncIterator[str]:
    """One router process; its address."""
    port, metrics, file = free_port(), free_port(), folder / "hybrid.json"
    file.write_text(json.dumps(content))
    words = ["--table", file, "--pool", "hybrid", "--port", port, "--metrics-port", metrics, "--log-dir", folder]
    command = [sys.executable, "-m", "gpu_cutover.router.main", *map(str, words), "--metrics-host", "127.0.0.1"]
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


@asynccontextmanager
async def sealed_router(folder: Path, content: dict[str, Any]) -> AsyncIterator[str]:
    """A sealed pool's router in this process; its address."""
    (folder / "sealed.json").write_text(json.dumps(content))
    made = Router(TableFile(folder / "sealed.json"), folder / "sealed")
    async with made.running():
        listener = Listener(made.handle, socket.create_server(("127.0.0.1", 0)))
        listener.start()
        try:
            yield f"http://127.0.0.1:{listener.address[1]}"
        finally:
            await listener.close(2)


async def ask(client: aiohttp.ClientSession, url: str, route: str = "chat") -> tuple[int, str, str]:
    """Status, who answered, Retry-After."""

    async with client.post(f"{url}/{route}", json=CHAT, headers={"x-tenant": "zam"}) as response:
        await response.read()
        return response.status, response.headers.get("x-served-by", ""), response.headers.get("retry-after", "")


async def becomes(client: aiohttp.ClientSession, url: str, wanted: tuple[int, str, str]) -> None:
    deadline, said = time.monotonic() + PATIENCE_S, (0, "", "")
    while time.monotonic() < deadline:
        try:
            said = await ask(client, url)
        except aiohttp.ClientError:
            said = (0, "", "")
        if said == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{url} says {said}, not {wanted}")


async def drill(folder: Path, guard: Guard, engines: Engines) -> None:
    async with (
        Upstream("own") as own,
        Upstream("cloud") as cloud,
        router(folder, route_table("hybrid", own.url, cloud.url, guard)) as hybrid,
        sealed_router(folder, route_table("sealed", own.url, cloud.url, guard)) as sealed,
        aiohttp.ClientSession() as client,
    ):
        for url in (hybrid, sealed):
            await becomes(client, url, (200, "onprem", ""))
        engines.healthy.clear()
        await asyncio.to_thread(guard.ask, "derate 2 drill")
        await becomes(client, hybrid, (200, "cloud", ""))
        await becomes(client, sealed, (503, "", "15"))
        asked = len(own.bodies)
        for _ in range(20):
            assert await ask(client, hybrid) == (200, "cloud", "")
            assert await ask(client, sealed) == (503, "", "15")
        assert len(own.bodies) == asked
        assert (await ask(client, sealed, "vision"))[:2] == (200, "onprem")
        engines.healthy.set()
        for url in (hybrid, sealed):
            await becomes(client, url, (200, "onprem", ""))


def test_while_an_engine_starts_anew_the_permitted_go_to_the_cloud_and_the_sensitive_wait(
    tmp_path: Path, guard: Guard, engines: Engines
) -> None:
    asyncio.run(drill(tmp_path, guard, engines))
