"""Stand-in upstreams over real sockets: each behaves well or badly in one chosen way, and counts who came."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class Upstream:
    """Answers every path. `mode`: ok | 500 | 400 | silent | cut | empty | no-done."""

    def __init__(self, name: str, mode: str = "ok") -> None:
        self.name, self.mode = name, mode
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.delay_s = 0.0
        self.chunks = 3
        self.chunk_s = 0.0
        self.padding = ""
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Upstream:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.mode == "silent":
            await asyncio.sleep(30)
        await asyncio.sleep(self.delay_s)
        if self.mode in ("500", "400"):
            return web.json_response({"error": f"{self.name} internals"}, status=int(self.mode))
        if self.mode == "empty":
            return web.Response(body=b"", content_type="application/json")
        if request.content_type == "application/json" and json.loads(body).get("stream"):
            return await self._stream(request)
        return web.json_response(self._answer(request.path), headers={"x-litellm-model-api-base": "secret"})

    def _answer(self, path: str) -> dict[str, Any]:
        if path.endswith("transcriptions"):
            return {"text": "the patient takes 500 mg daily", "by": self.name}
        message = {"role": "assistant", "content": f"hello from {self.name}"}
        return {
            "id": "1",
            "model": "internal",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 3},
        }

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunks, pause_s = self.chunks, self.chunk_s  # a test may ask the next one otherwise
        for number in range(chunks):
            finish = "stop" if number == chunks - 1 else None
            choice = {"index": 0, "delta": {"content": f"{self.name}{number} {self.padding}"}, "finish_reason": finish}
            await response.write(b"data: " + json.dumps({"id": "1", "choices": [choice]}).encode() + b"\n\n")
            await asyncio.sleep(pause_s)
            if self.mode == "cut" and number == 1:
                assert request.transport
                request.transport.abort()
                return response
        if self.mode != "no-done":
            await response.write(b"data: [DONE]\n\n")
        return response
