"""A model server over raw sockets that fails in one chosen way, and counts who came, at accept.

The fault is named by the request's id (`<leg>.<fault>.<anything>`); a server of another name answers well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

WORDS = ("the ", "patient ", "takes ", "500 ", "mg ", "daily ")
LONG_WORDS = tuple(f"word {number:04} ".ljust(4000, ".") for number in range(300))  # 1.2 MB
PIECE_S = 0.06  # thirty of them take longer than the budget to the first byte
RETRY_AFTER = "7"
JSON = "application/json"
EVENTS = "text/event-stream"


def text_of(leg: str, fault: str) -> str:
    """The whole text that this leg answers with."""
    return "".join(words_of(leg, fault))


def words_of(leg: str, fault: str) -> tuple[str, ...]:
    return (f"{leg}: ", *(LONG_WORDS if fault == "slow_client" else WORDS))


@dataclass
class Seen:
    """A request as it arrived."""

    headers: dict[str, str]
    path: str
    sha256: str
    streamed: bool


def told_of(headers: dict[str, str], path: str, body: bytes) -> Seen:
    streamed = b'"stream": true' in body[:400] + body[-400:]
    return Seen(headers, path, hashlib.sha256(body).hexdigest(), streamed)


@dataclass
class Faulty:
    """One listening stand-in."""

    name: str
    accepted: int = 0
    open: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Seen] = field(default_factory=dict)
    left_alone: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Faulty]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request_id = headers.get("x-request-id", "")
        self.asked[request_id] += 1
        self.seen[request_id] = seen = told_of(headers, head[0].split()[1], body)
        leg, _, rest = request_id.partition(".")
        fault = rest.partition(".")[0] if leg == self.name else "none"
        reply = Reply(self.name, fault, seen, writer, self.left_alone[request_id])
        watcher = asyncio.create_task(self._watch(reader, request_id))
        try:
            return await getattr(reply, fault, reply.well)()
        finally:
            watcher.cancel()

    async def _watch(self, reader: asyncio.StreamReader, request_id: str) -> None:
        """Notice that the router left while the answer was under way."""
        with contextlib.suppress(ConnectionError):
            if not await reader.read(1):
                self.left_alone[request_id].set()


class Reply:
    """The ways to answer. Each returns whether the connection lives on."""

    def __init__(
        self, leg: str, fault: str, seen: Seen, writer: asyncio.StreamWriter, left_alone: asyncio.Event
    ) -> None:
        self.leg, self.fault, self.seen, self.writer, self.left_alone = leg, fault, seen, writer, left_alone
        self.words = words_of(leg, fault)

    # --- what a good answer is ---------------------------------------------------------------------------------

    @property
    def is_chat(self) -> bool:
        return self.seen.path.endswith("completions")

    @property
    def is_stream(self) -> bool:
        return self.is_chat and self.seen.streamed

    def whole(self, finish: str = "stop") -> bytes:
        text = "".join(self.words)
        if self.seen.path.endswith("embeddings"):
            return json.dumps({"object": "list", "model": text, "data": [{"index": 0, "embedding": [0.1]}]}).encode()
        if self.seen.path.endswith("transcriptions"):
            return json.dumps({"text": text}).encode()
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return json.dumps({"id": "1", "choices": [choice], "usage": {"completion_tokens": len(self.words)}}).encode()

    def events(self, finish: str = "stop") -> list[bytes]:
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": word}, None) for word in self.words]
        deltas.append(({}, finish))
        chunks = [{"id": "1", "choices": [{"index": 0, "delta": one, "finish_reason": end}]} for one, end in deltas]
        return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]

    # --- sending -------------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str = "200 OK", media: str = "", length: int | None = None, more: str = "") -> None:
        media = media or (EVENTS if self.is_stream else JSON)
        size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        await self.send(f"HTTP/1.1 {status}\r\ncontent-type: {media}\r\n{size}\r\n{more}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def pieces(self, finish: str = "stop", pause_s: float = 0.0) -> None:
        await self.head()
        whole = self.whole(finish)
        parts = (
            self.events(finish) if self.is_stream else [whole[at : at + 60_000] for at in range(0, len(whole), 60_000)]
        )
        if pause_s and not self.is_stream:
            step = max(1, len(whole) // 30)
            parts = [whole[at : at + step] for at in range(0, len(whole), step)]
        for part in parts:
            await self.chunk(part)
            if pause_s:
                await asyncio.sleep(pause_s)
        await self.send(b"0\r\n\r\n")

    async def half(self) -> None:
        """The beginning of an answer: three words of a stream, half of a whole one."""
        if self.is_stream:
            await self.head()
            for event in self.events()[:4]:
                await self.chunk(event)
        else:
            whole = self.whole()
            await self.head(length=len(whole))
            await self.send(whole[: len(whole) // 2])

    async def error(self, status: str, code: str, more: str = "") -> bool:
        body = json.dumps({"error": {"message": f"said by {self.leg}", "code": code}}).encode()
        await self.head(status, JSON, len(body), more)
        await self.send(body)
        return True

    async def forever(self) -> bool:
        """Until the router goes away."""
        async with asyncio.timeout(20):
            await self.left_alone.wait()
        return False

    # --- the faults --------------------------------------------------------------------------------------------

    async def well(self) -> bool:
        await self.pieces()
        return True

    async def status_500(self) -> bool:
        return await self.error("500 Internal Server Error", "internal")

    async def status_429(self) -> bool:
        return await self.error("429 Too Many Requests", "busy", f"retry-after: {RETRY_AFTER}\r\n")

    async def status_400(self) -> bool:
        return await self.error("400 Bad Request", "wrong")

    async def refusal(self) -> bool:
        if not self.is_chat:
            return await self.error("400 Bad Request", "content_policy_violation")
        await self.pieces("content_filter")
        return True

    async def silent(self) -> bool:
        return await self.forever()

    async def slow_headers(self) -> bool:
        await self.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            await self.send(f"x-slow-{number}: 1\r\n".encode())
            await asyncio.sleep(PIECE_S)
        return False

    async def slow_body(self) -> bool:
        await self.pieces(pause_s=PIECE_S)
        return True

    async def cut(self) -> bool:
        await self.half()
        await asyncio.sleep(0.05)  # so that the first half arrives before the reset
        self.writer.transport.abort()
        return False

    async def stalled(self) -> bool:
        await self.half()
        return await self.forever()

    async def bad_sse_line(self) -> bool:
        if not self.is_stream:
            body = b"dat{this is no answer"
            await self.head(length=len(body))
            await self.send(body)
            return True
        await self.half()
        await asyncio.sleep(0.05)  # so that the first half is on its way to the caller
        for event in (b'dat{"choices": nothing\n\n', *self.events()[4:]):
            await self.chunk(event)
        await self.send(b"0\r\n\r\n")
        return True

    async def empty_200(self) -> bool:
        await self.head(length=0)
        return True

    async def truncated_json(self) -> bool:
        if not self.is_stream:
            whole = self.whole()[:-9]
            await self.head(length=len(whole))
            await self.send(whole)
            return True
        await self.half()
        await asyncio.sleep(0.05)
        for event in (self.events()[4][:-12] + b"\n\n", *self.events()[5:]):
            await self.chunk(event)
        await self.send(b"0\r\n\r\n")
        return True

    async def wrong_content_length(self) -> bool:
        """Too short for a stream, which is so cut in the middle; too long for a whole answer, which then never ends."""
        body = b"".join(self.events()) if self.is_stream else self.whole()
        cut = len(b"".join(self.events()[:4])) + 9
        await self.head(length=cut if self.is_stream else len(body) + 40)
        await self.send(body[: cut - 20])
        await asyncio.sleep(0.05)
        await self.send(body[cut - 20 : cut] if self.is_stream else body[cut - 20 :])
        return False

    async def huge_header(self) -> bool:
        await self.head(length=2, more="x-huge: " + "h" * 200_000 + "\r\n")
        await self.send(b"{}")
        return False

    async def client_gone(self) -> bool:
        if self.is_stream:
            await self.half()
        return await self.forever()
