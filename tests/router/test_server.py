"""The router over real sockets, with upstreams that fail in every way a model server fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gpu_cutover.router import upstream as upstream_module
from gpu_cutover.router.files import TableFile
from gpu_cutover.router.server import Router

from .tables import table, tenant
from .upstreams import Upstream

CHAT = {"model": "any", "messages": [{"role": "user", "content": "hi"}]}
TENANTS = {
    "std": tenant(chat="onprem", audio="onprem", embed="onprem"),
    "cloudy": tenant(chat="cloud", audio="cloud"),
    "mir": tenant(chat="mirror", audio="mirror"),
    "none": tenant(chat="off"),
}


@dataclass
class Stage:
    """A running router with both upstreams."""

    router: Router
    url: str
    onprem: Upstream
    cloud: Upstream
    client: aiohttp.ClientSession
    directory: Path

    async def post(self, tenant_name: str, path: str = "/chat", **kwargs: Any) -> aiohttp.ClientResponse:
        headers = {"x-tenant": tenant_name, **kwargs.pop("headers", {})}
        kwargs = kwargs or {"json": CHAT}
        return await self.client.post(self.url + path, headers=headers, **kwargs)

    def write_table(self, **kwargs: Any) -> None:
        write(self.directory / "table.json", table(onprem=self.onprem.url, cloud=self.cloud.url, **kwargs))

    def log(self, name: str) -> list[dict[str, Any]]:
        self.router.requests.flush()
        self.router.comparisons.flush()
        path = self.directory / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if "entry" not in record]  # not the log's own lines

    def requests(self) -> list[dict[str, Any]]:
        return self.log(f"requests-{self.router.pool}.jsonl")


def write(path: Path, data: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(data))
    os.replace(fresh, path)  # noqa: PTH105 - the same rename that the product makes


@contextlib.asynccontextmanager
async def stage(directory: Path, pool: str = "hybrid", tenants: Any = None, **modes: str) -> AsyncIterator[Stage]:
    onprem, cloud = Upstream("onprem", modes.get("onprem", "ok")), Upstream("cloud", modes.get("cloud", "ok"))
    async with onprem, cloud, aiohttp.ClientSession() as client:
        write(directory / "table.json", table(pool, onprem.url, cloud.url, TENANTS if tenants is None else tenants))
        router = Router(TableFile(directory / "table.json"), directory)
        runner = web.AppRunner(router.application(), handler_cancellation=True, shutdown_timeout=2, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield Stage(router, url, onprem, cloud, client, directory)
        finally:
            await runner.cleanup()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not happen in 4 s")


def test_an_onprem_answer_names_who_answered_and_hides_the_inside(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            response = await it.post("std", headers={"x-request-id": "r-1", "authorization": "Bearer secret"})
            answer = await response.json()
            assert (response.status, response.headers["x-served-by"]) == (200, "onprem")
            assert response.headers["x-model"] == "own-chat"
            assert response.headers["x-request-id"] == "r-1"
            assert "x-litellm-model-api-base" not in response.headers
            assert answer["choices"][0]["message"]["content"] == "onprem0 onprem1 onprem2 "
            sent = {name.lower() for name in it.onprem.headers[0]}
            assert sent.isdisjoint({"authorization", "x-tenant"})
            assert json.loads(it.onprem.bodies[0])["model"] == "own-chat"
            record = it.requests()[0]
            assert (record["leg"], record["why"], record["outcome"]) == ("onprem", "policy", "ok")
            assert (record["request_id"], record["version"], record["gpus"]) == ("r-1", "w1", [0])
            assert it.cloud.bodies == []

    run(test)


@pytest.mark.parametrize("mode", ["500", "silent", "empty", "cut", "no-done"])
def test_every_failure_before_the_first_byte_is_answered_by_the_cloud(tmp_path: Path, mode: str) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem=mode) as it:
            response = await it.post("std")
            assert (response.status, response.headers["x-served-by"]) == (200, "cloud")
            assert (await response.json())["choices"][0]["message"]["content"] == "hello from cloud"
            first, second = it.requests()
            assert first["outcome"] == ("timeout" if mode == "silent" else "error")
            assert (second["leg"], second["why"], second["outcome"]) == ("cloud", "fallback", "ok")
            assert first["request_id"] == second["request_id"]

    run(test)


@pytest.mark.parametrize("mode", ["500", "empty", "cut", "no-done"])
def test_a_sensitive_tenant_gets_an_error_and_no_connection_ever_goes_to_the_cloud(tmp_path: Path, mode: str) -> None:
    async def test() -> None:
        tenants = {"sens": tenant("sensitive", chat="onprem")}
        async with stage(tmp_path, pool="sealed", tenants=tenants, onprem=mode) as it:
            response = await it.post("sens")
            assert response.status == 503
            assert response.headers["retry-after"]
            assert it.cloud.bodies == []
            assert [record["leg"] for record in it.requests()] == ["onprem"]

    run(test)


def test_a_refused_connection_falls_over_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
            async with stage(tmp_path) as it:
                write(tmp_path / "table.json", table(onprem=dead, cloud=it.cloud.url, tenants=TENANTS))
                response = await it.post("std")
                assert response.headers["x-served-by"] == "cloud"
                assert it.requests()[0]["total_ms"] < 400

    run(test)


def test_a_refusal_of_the_request_never_falls_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem="400") as it:
            response = await it.post("std")
            assert (response.status, response.headers["x-served-by"]) == (400, "onprem")
            assert it.cloud.bodies == []
            assert it.requests()[0]["outcome"] == "refused"

    run(test)


def test_embeddings_never_fall_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem="500") as it:
            response = await it.post("std", "/embed", json={"input": ["a"]})
            assert response.status == 503
            assert it.cloud.bodies == []

    run(test)


def test_a_stream_cut_in_the_middle_ends_with_an_error_event_and_no_clean_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem="cut") as it:
            response = await it.post("std", json={**CHAT, "stream": True})
            received = b""
            with pytest.raises(aiohttp.ClientPayloadError):
                async for part in response.content.iter_any():
                    received += part
            assert b"event: error" in received
            assert b"[DONE]" not in received
            assert it.cloud.bodies == []  # a byte was out: nobody else may continue the sentence
            assert it.requests()[0]["outcome"] == "error"

    run(test)


def test_a_stream_without_its_end_mark_is_not_taken_for_whole(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem="no-done") as it:
            response = await it.post("std", json={**CHAT, "stream": True})
            received = b""
            with pytest.raises(aiohttp.ClientPayloadError):
                async for part in response.content.iter_any():
                    received += part
            assert b"event: error" in received

    run(test)


def test_a_slow_first_token_falls_over_but_a_long_answer_does_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            it.onprem.chunks, it.onprem.chunk_s = 8, 0.1  # 0.8 s in all, budget 0.5 s to the first byte
            response = await it.post("std")
            assert response.headers["x-served-by"] == "onprem"
            it.onprem.delay_s = 1.0
            assert (await it.post("std")).headers["x-served-by"] == "cloud"

    run(test)


def test_audio_reaches_the_engine_byte_for_byte_with_the_model_renamed(tmp_path: Path) -> None:
    async def test() -> None:
        audio = os.urandom(20 * 1024 * 1024)
        async with stage(tmp_path) as it:
            form = aiohttp.FormData()
            form.add_field("file", audio, filename="a.wav", content_type="audio/wav")
            form.add_field("model", "whisper-1")
            response = await it.post("std", "/audio", data=form)
            assert response.status == 200
            assert audio in it.onprem.bodies[0]
            assert b"own-audio" in it.onprem.bodies[0]
            assert b"whisper-1" not in it.onprem.bodies[0]

    run(test)


def test_no_tenant_unknown_tenant_and_off_are_told_to_come_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            for name in ("", "nobody", "none"):
                response = await it.post(name)
                assert (response.status, "retry-after" in response.headers) == (503, True)
                assert (await response.json())["error"]["type"] == "unavailable"
            assert {record["why"] for record in it.requests()} == {"refused"}

    run(test)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": '])
def test_a_broken_body_is_the_callers_error(tmp_path: Path, body: bytes) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            response = await it.post("std", data=body, headers={"content-type": "application/json"})
            assert response.status == 400
            assert it.onprem.bodies == it.cloud.bodies == []

    run(test)


def test_a_flip_moves_the_next_request_and_leaves_running_streams_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            it.onprem.chunks, it.onprem.chunk_s = 10, 0.05
            streams = [await it.post("std", json={**CHAT, "stream": True}) for _ in range(4)]
            it.write_table(tenants={"std": tenant(chat="cloud")})
            after = await it.post("std")
            assert after.headers["x-served-by"] == "cloud"
            for response in streams:
                body = await response.read()
                assert response.headers["x-served-by"] == "onprem"
                assert body.count(b"onprem") == 10
                assert body.endswith(b"data: [DONE]\n\n")

    run(test)


def test_a_wrong_table_leaves_the_last_good_one_in_force_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            (tmp_path / "table.json").write_text("{half a tab")
            assert (await it.post("std")).headers["x-served-by"] == "onprem"
            health = await (await it.client.get(it.url + "/health")).json()
            assert "not JSON" in health["problems"][0]
            it.write_table(tenants={"std": tenant(chat="cloud")})
            assert (await it.post("std")).headers["x-served-by"] == "cloud"

    run(test)


def test_the_breaker_moves_a_failing_model_to_the_cloud_after_its_minimum_count(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem="500") as it:
            for _ in range(25):
                assert (await it.post("std")).status == 200
            assert len(it.onprem.bodies) == 20
            assert it.requests()[-1]["why"] == "breaker"

    run(test)


def test_a_mirrored_request_is_answered_by_the_cloud_and_compared(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            response = await it.post("mir")
            assert response.headers["x-served-by"] == "cloud"
            await settled(lambda: len(it.log("comparisons-hybrid.jsonl")) == 1)
            comparison = it.log("comparisons-hybrid.jsonl")[0]
            assert comparison["kind"] == "text"
            assert comparison["scores"]["answered"] == 1.0
            assert comparison["onprem_first_byte_ms"] <= comparison["onprem_ms"]
            assert "hello" not in json.dumps(it.log("comparisons-hybrid.jsonl") + it.requests())
            assert [record["why"] for record in it.requests()] == ["policy", "mirror"]

    run(test)


@pytest.mark.parametrize("mode", ["500", "silent"])
def test_a_broken_mirror_does_not_touch_the_primary(tmp_path: Path, mode: str) -> None:
    async def test() -> None:
        async with stage(tmp_path, onprem=mode) as it:
            took = []
            for _ in range(20):
                started = asyncio.get_running_loop().time()
                response = await it.post("mir")
                await response.read()
                took.append(asyncio.get_running_loop().time() - started)
                assert (response.status, response.headers["x-served-by"]) == (200, "cloud")
            assert sorted(took)[10] < 0.1
            if mode == "500":
                await settled(lambda: len(it.log("comparisons-hybrid.jsonl")) == 20)
                assert {tuple(one["scores"].values()) for one in it.log("comparisons-hybrid.jsonl")} == {
                    (0.0, 0.0, 0.0)
                }

    run(test)


def test_a_full_mirror_queue_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_cutover.router.mirror.QUEUE_LENGTH", 2)
    monkeypatch.setattr("gpu_cutover.router.mirror.WORKERS", 1)

    async def test() -> None:
        async with stage(tmp_path, onprem="silent") as it:
            for _ in range(6):
                assert (await it.post("mir")).status == 200
            await asyncio.sleep(0.1)
            dropped = it.router.metrics.registry.get_sample_value(
                "gpu_cutover_router_mirror_dropped_total", {"route": "chat"}
            )
            assert dropped is not None
            assert dropped >= 3

    run(test)


def test_a_client_that_goes_away_stops_the_engine_and_is_recorded(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            it.onprem.chunks, it.onprem.chunk_s = 100, 0.05
            response = await it.post("std", json={**CHAT, "stream": True})
            await response.content.readany()
            response.close()
            await settled(lambda: [record["outcome"] for record in it.requests()] == ["client_gone"])

    run(test)


def test_a_derate_reaches_the_router_by_itself(tmp_path: Path) -> None:
    placement = {"name": "healthy"}

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(placement)

    async def test() -> None:
        guard = web.Application()
        guard.router.add_get("/placement", answer)
        runner = web.AppRunner(guard, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        source = f"http://127.0.0.1:{runner.addresses[0][1]}/placement"
        async with stage(tmp_path) as it:
            it.write_table(tenants=TENANTS, source=source)
            await settled(lambda: it.router.placement.name == "healthy")
            placement["name"] = "without-gpu0"  # no audio there
            await settled(lambda: it.router.placement.name == "without-gpu0")
            form = aiohttp.FormData()
            form.add_field("file", b"x", filename="a.wav")
            response = await it.post("std", "/audio", data=form)
            assert response.headers["x-served-by"] == "cloud"
            assert it.requests()[-1]["why"] == "derate"
            await runner.cleanup()
            await settled(lambda: it.router.placement.problem is not None)
            assert it.router.live(it.router.table.get()).placement == "without-gpu0"

    run(test)


def test_silence_in_the_middle_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "STALL_S", 0.2)

    async def test() -> None:
        async with stage(tmp_path) as it:
            it.onprem.chunk_s = 1.0
            response = await it.post("std", json={**CHAT, "stream": True})
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            assert it.requests()[0]["outcome"] == "timeout"

    run(test)


def test_metrics_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            await (await it.post("std")).read()
            text = bytes((await it.router.expose(None)).body).decode()  # type: ignore[arg-type]
            assert 'gpu_cutover_router_attempts_total{leg="onprem",outcome="ok"' in text
            assert "gpu_cutover_router_table_version 1.0" in text

    run(test)
