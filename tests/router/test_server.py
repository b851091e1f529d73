"""The router over real sockets, with upstreams that fail in every way a model server fails."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from gpu_cutover.router.files import TableFile
from gpu_cutover.router.inbound import Listener
from gpu_cutover.router.server import Limits, Router
from gpu_cutover.router.upstream import Budgets

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
async def stage(
    directory: Path, pool: str = "hybrid", tenants: Any = None, settings: dict[str, Any] | None = None, **modes: str
) -> AsyncIterator[Stage]:
    onprem, cloud = Upstream("onprem", modes.get("onprem", "ok")), Upstream("cloud", modes.get("cloud", "ok"))
    async with onprem, cloud, aiohttp.ClientSession() as client:
        write(directory / "table.json", table(pool, onprem.url, cloud.url, TENANTS if tenants is None else tenants))
        router = Router(TableFile(directory / "table.json"), directory, **settings or {})
        async with served(router) as url:
            yield Stage(router, url, onprem, cloud, client, directory)


@contextlib.asynccontextmanager
async def served(router: Router) -> AsyncIterator[str]:
    """The router's address while it serves."""
    async with router.running():
        listener = Listener(router.handle, socket.create_server(("127.0.0.1", 0)))
        listener.start()
        try:
            yield f"http://127.0.0.1:{listener.address[1]}"
        finally:
            await listener.close(2)


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop of the real process
        runner.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]


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
    placement: dict[str, Any] = {"name": "healthy", "gpu_uuids": {"0": "GPU-a", "1": "GPU-b"}}

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
            data = table(onprem=it.onprem.url, cloud=it.cloud.url, tenants=TENANTS, source=source)
            data["onprem"]["without-gpu0"]["chat"]["gpus"] = [1]
            write(tmp_path / "table.json", data)
            await settled(lambda: it.router.placement.name == "healthy")
            assert (await it.post("std")).headers["x-served-by"] == "onprem"
            placement["name"] = "without-gpu0"  # no audio there, and chat on another GPU
            placement["engines"] = {"own-chat": {"engine_version": "0.25.1"}}
            await settled(lambda: it.router.placement.name == "without-gpu0")
            form = aiohttp.FormData()
            form.add_field("file", b"x", filename="a.wav")
            response = await it.post("std", "/audio", data=form)
            assert response.headers["x-served-by"] == "cloud"
            assert it.requests()[-1]["why"] == "derate"
            await it.post("std")
            chats = [one for one in it.requests() if one["route"] == "chat"]
            assert [(one["engine_version"], one["gpu_uuids"]) for one in chats] == [
                ("", ["GPU-a"]),
                ("0.25.1", ["GPU-b"]),
            ]
            await runner.cleanup()
            await settled(lambda: it.router.placement.problem is not None)
            assert it.router.live(it.router.table.get()).placement == "without-gpu0"

    run(test)


def test_silence_in_the_middle_ends_with_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"budgets": Budgets(stall_s=0.2)}) as it:
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
            await settled(lambda: it.router.admission.requests.used == 0)
            text = it.router.expose().decode()
            assert 'gpu_cutover_router_attempts_total{leg="onprem",outcome="ok"' in text
            assert "gpu_cutover_router_table_version 1.0" in text

    run(test)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_onprem_answers_is_asked_again_of_the_cloud(tmp_path: Path, share: float) -> None:
    rolls = iter([number / 10 for number in range(10)])

    async def test() -> None:
        async with stage(tmp_path, settings={"chance": lambda: next(rolls)}) as it:
            data = table(onprem=it.onprem.url, cloud=it.cloud.url, tenants=TENANTS)
            write(tmp_path / "table.json", data | ({"reverse_shadow": {"share": share}} if share else {}))
            for _ in range(10):
                assert (await it.post("std")).headers["x-served-by"] == "onprem"
            wanted = round(10 * share)
            await settled(lambda: len(it.log("reverse-hybrid.jsonl")) == wanted)
            assert len(it.cloud.bodies) == wanted
            assert all(one["X-Shadow"] == "1" for one in map(titled, it.cloud.headers))
            reverse = [one for one in it.requests() if one["why"] == "reverse"]
            assert [(one["leg"], one["state"], one["outcome"]) for one in reverse] == [
                ("cloud", "onprem", "ok")
            ] * wanted
            assert it.log("comparisons-hybrid.jsonl") == []
            for one in it.log("reverse-hybrid.jsonl"):
                assert one["scores"]["answered"] == 1.0
                assert one["onprem_first_byte_ms"] <= one["onprem_ms"]

    run(test)


def titled(headers: dict[str, str]) -> dict[str, str]:
    return {name.title(): value for name, value in headers.items()}


def test_a_failing_cloud_says_nothing_about_an_onprem_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"chance": lambda: 0.0}, cloud="500") as it:
            data = table(onprem=it.onprem.url, cloud=it.cloud.url, tenants=TENANTS)
            write(tmp_path / "table.json", data | {"reverse_shadow": {"share": 0.5}})
            assert (await it.post("std")).status == 200
            await settled(lambda: [one["why"] for one in it.requests()] == ["policy", "reverse"])
            assert it.log("reverse-hybrid.jsonl") == []

    run(test)


def test_a_copy_has_no_tools_and_says_what_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            await it.post("mir", json={**CHAT, "tools": [{"type": "function"}], "webhook": "http://x"})
            await settled(lambda: len(it.onprem.bodies) == 1)
            assert "tools" in json.loads(it.cloud.bodies[0])
            assert not {"tools", "webhook"} & set(json.loads(it.onprem.bodies[0]))
            assert titled(it.onprem.headers[0])["X-Shadow"] == "1"
            assert "X-Shadow" not in titled(it.cloud.headers[0])

    run(test)


def test_a_synthetic_tenants_requests_are_drills(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            it.write_table(tenants={"drill": tenant(chat="onprem") | {"synthetic": True}})
            assert (await it.post("drill")).status == 200
            assert [one["why"] for one in it.requests()] == ["drill"]

    run(test)


def test_a_record_says_who_computed_the_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            data = table(onprem=it.onprem.url, cloud=it.cloud.url, tenants=TENANTS)
            data["onprem"]["healthy"]["chat"] |= {"engine": "vllm", "engine_version": "0.25.1", "gpu_uuids": ["GPU-1"]}
            write(tmp_path / "table.json", data)
            await it.post("std", json={**CHAT, "model": "gpt-4o"})
            await it.post("cloudy")
            first, second = it.requests()
            assert (first["engine"], first["engine_version"], first["gpu_uuids"]) == ("vllm", "0.25.1", ["GPU-1"])
            assert (first["requested_model"], first["model"], first["attempt"]) == ("gpt-4o", "own-chat", 0)
            assert (second["engine"], second["engine_version"], second["gpu_uuids"]) == ("", "", [])

    run(test)


@pytest.mark.parametrize(("word", "served"), [("open", "cloud"), ("closed", "onprem")])
def test_an_operators_word_beats_the_breaker(tmp_path: Path, word: str, served: str) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            if word == "closed":
                it.onprem.mode = "500"
                for _ in range(25):
                    await it.post("std")
                it.onprem.mode = "ok"
                assert (await it.post("std")).headers["x-served-by"] == "cloud"
            data = table(onprem=it.onprem.url, cloud=it.cloud.url, tenants=TENANTS)
            write(tmp_path / "table.json", data | {"overrides": {"own-chat": word}})
            assert (await it.post("std")).headers["x-served-by"] == served
            health = await (await it.client.get(it.url + "/health")).json()
            assert health["breakers_open"] == (["own-chat"] if word == "open" else [])

    run(test)


def test_one_tenants_flood_is_turned_away_and_another_tenant_is_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"limits": Limits(requests=10, body_bytes=1 << 20)}) as it:
            it.onprem.chunks, it.onprem.chunk_s = 10, 0.05
            flood = await asyncio.gather(*(it.post("std", json={**CHAT, "stream": True}) for _ in range(30)))
            turned_away = [response for response in flood if response.status == 429]
            assert len(turned_away) == 22
            assert all(int(response.headers["retry-after"]) > 0 for response in turned_away)
            assert (await it.post("cloudy")).status == 200
            for response in flood:
                body = await response.read()
                assert response.status == 429 or body.endswith(b"data: [DONE]\n\n")
            assert [one["status"] for one in it.requests()].count(429) == 22
            assert (await it.post("std")).status == 200

    run(test)


def test_large_bodies_are_bounded_together_and_refused_before_they_are_read(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"limits": Limits(requests=100, body_bytes=8 << 20)}) as it:
            it.onprem.delay_s = 0.3
            form = [aiohttp.FormData({"file": io.BytesIO(os.urandom(3 << 20))}) for _ in range(6)]
            answers = await asyncio.gather(*(it.post("std", "/audio", data=one) for one in form))
            assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503, 503]
            assert it.router.admission.body_bytes.used == 0

    run(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("POST /chat HTTP/1.0", 505),  # a broken answer could not be told from a whole one
        ("GET /chat HTTP/1.1", 405),
        ("POST /chatter HTTP/1.1", 404),
        ("GET /metrics HTTP/1.1", 404),  # not for callers
        ("GET /health HTTP/1.0", 200),
        ("POST /chat/completions?x=1 HTTP/1.1", 503),  # the route of a tenant that is not known
    ],
)
def test_what_is_served(tmp_path: Path, sent: str, status: int) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            host, port = it.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            headers = "host: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close"
            writer.write(f"{sent}\r\n{headers}\r\n\r\n{{}}".encode())
            assert (await reader.read()).split()[1] == str(status).encode()
            writer.close()

    run(test)


def test_metrics_and_health_have_a_port_of_their_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            listener = Listener(it.router.look_in, socket.create_server(("127.0.0.1", 0)))
            listener.start()
            url = f"http://127.0.0.1:{listener.address[1]}"
            await it.post("std")
            metrics = await (await it.client.get(f"{url}/metrics")).text()
            assert "gpu_cutover_router_attempts_total" in metrics
            assert 'gen_ai_server_request_duration_seconds_bucket{error_type="",' in metrics
            assert 'le="+Inf"} 1.0' in metrics
            assert (await (await it.client.get(f"{url}/health")).json())["pool"] == "hybrid"
            assert (await it.client.post(f"{url}/chat", json=CHAT)).status == 404
            await listener.close(1)

    run(test)


def test_a_body_of_unknown_length_is_refused(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    async def test() -> None:
        async with stage(tmp_path) as it:
            response = await it.post("std", data=pieces(), headers={"content-type": "application/json"})
            assert response.status == 411

    run(test)


def test_a_caller_that_never_ends_its_request_is_let_go(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"budgets": Budgets(read_s=0.2)}) as it:
            host, port = it.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /chat HTTP/1.1\r\nhost: x\r\nx-tenant: std\r\ncontent-length: 90\r\n\r\nhalf")
            assert b" 408 " in await reader.readline()
            writer.close()
            assert it.router.admission.requests.used == 0

    run(test)


def test_a_caller_that_takes_nothing_does_not_hold_the_engine(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path, settings={"budgets": Budgets(write_s=0.3)}) as it:
            it.onprem.chunks, it.onprem.padding = 4000, "." * 8000  # 32 MB: more than all buffers in between
            host, port = it.url.removeprefix("http://").split(":")
            body = json.dumps({**CHAT, "stream": True}).encode()
            _, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(
                b"POST /chat HTTP/1.1\r\nhost: x\r\nx-tenant: std\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            await settled(lambda: [one["outcome"] for one in it.requests()] == ["client_gone"])
            writer.close()

    run(test)


def test_the_names_of_the_conventions_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with stage(tmp_path) as it:
            await (await it.post("std")).read()
            await settled(lambda: it.router.admission.requests.used == 0)
            text = it.router.expose().decode()
            labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="onprem",gen_ai_request_model="own-chat"'
            assert f"gen_ai_server_time_to_first_token_seconds_count{{{labels}}} 1.0" in text
            assert "gen_ai_server_request_duration_seconds_bucket" in text
            assert "gpu_cutover_router_first_byte_seconds_count" in text
            assert "gpu_cutover_router_in_flight 0.0" in text

    run(test)


def test_a_kept_connection_that_the_engine_just_closed_is_no_failure(tmp_path: Path) -> None:
    """The engine closes an idle connection at the moment the next request is written to it."""
    asked: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(0)
        body = json.dumps({"text": "answered"}).encode()
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            await reader.readuntil(b"\r\n\r\n")  # the second request: never answered here
        writer.close()

    async def test() -> None:
        engine = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}"
        async with engine, stage(tmp_path) as it:
            sealed = {"std": tenant(audio="onprem")}
            write(tmp_path / "table.json", table(onprem=url, cloud=it.cloud.url, tenants=sealed))
            for _ in range(4):
                response = await it.post("std", "/audio", data={"file": io.BytesIO(b"x")})
                assert (response.status, response.headers["x-served-by"]) == (200, "onprem")
            assert len(asked) == 4
            assert it.cloud.bodies == []

    run(test)
