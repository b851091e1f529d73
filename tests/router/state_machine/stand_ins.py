"""The engine, the cloud and the GPU host's guard on real sockets, with faults that come and go while they serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

from ..matrix.faulty import Reply, Seen, told_of

FAULTS = {"500": "status_500", "silent": "silent", "cut": "cut"}  # and `refuse`: nobody listens


class StandIn:
    """One server. Counts connections at accept and requests by id; answers GETs as LiteLLM and the guard do.

    A request whose id ends with `.held` is answered by half, and by the rest once it is released.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault = ""
        self.accepted = 0
        self.asked: Counter[str] = Counter()
        self.seen: dict[str, Seen] = {}
        self.under_way = 0
        self.placement = "healthy"
        self._held: dict[str, asyncio.Event] = {}
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, limit=1 << 20)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Nobody listens any more; what is open is reset."""
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def become(self, fault: str) -> None:
        """`refuse`, one of FAULTS, or "" for a server that is well."""
        if (fault == "refuse") == (self._server is not None):
            await (self.stop() if fault == "refuse" else self.listen())
        self.fault = fault

    def release(self, request_id: str) -> None:
        """Give the rest of a held answer."""
        self._event(request_id).set()

    def _event(self, request_id: str) -> asyncio.Event:
        return self._held.setdefault(request_id, asyncio.Event())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request_id = headers.get("x-request-id", "")
        if method == "POST":
            self.asked[request_id] += 1
            self.seen[request_id] = told_of(headers, path, body)
        self.under_way += 1
        try:
            return await self._answered(method, path, headers, body, writer, reader)
        finally:
            self.under_way -= 1

    async def _answered(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        writer: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
    ) -> bool:
        gone = asyncio.Event()
        watcher = asyncio.create_task(self._watch(reader, gone))
        reply = Reply(self.name, "", told_of(headers, path, body), writer, gone)
        request_id = headers.get("x-request-id", "")
        try:
            if path == "/placement":
                return await self._json(reply, {"name": self.placement})
            if method == "GET" and self.fault in ("", "cut"):
                return await self._json(reply, {"status": "ready"})
            if self.fault:
                return bool(await getattr(reply, FAULTS.get(self.fault, "silent"))()) and method == "POST"
            if request_id.endswith(".held"):
                return await self._by_half(reply, self._event(request_id))
            return await reply.well()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)  # two may not read at once

    async def _by_half(self, reply: Reply, released: asyncio.Event) -> bool:
        await reply.head()
        events = reply.events()
        for event in events[:4]:
            await reply.chunk(event)
        await released.wait()
        for event in events[4:]:
            await reply.chunk(event)
        await reply.send(b"0\r\n\r\n")
        return True

    @staticmethod
    async def _json(reply: Reply, data: dict[str, str]) -> bool:
        body = json.dumps(data).encode()
        await reply.head(media="application/json", length=len(body))
        await reply.send(body)
        return False

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            if not await reader.read(1):
                gone.set()
