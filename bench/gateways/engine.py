"""An engine that costs next to nothing: what stands behind every gateway while it is measured.

Answers any POST by its path: `…/embed…` with a vector, `…audio…` with a transcript, else a chat, streamed if
the body asks for it. Two segments anywhere in the path change its pace: `d20` waits 20 ms before the answer, `g1`
leaves 1 ms between the events of a stream. `GET /count` tells how many POSTs came. Runs in the bench's own environment:
`python engine.py PORT NAME [DELAY_MS]`; with a delay every answer waits that long.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

import httptools
import uvloop

EVENTS = 20
DIMENSIONS = 1024  # of a vector, as bge-m3's
KEPT_BYTES = 65536  # of a body: enough of every JSON; a recording is only counted
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _json(data: object) -> bytes:
    content = json.dumps(data).encode()
    return JSON_HEAD % len(content) + content


def _chunk(text: str) -> bytes:
    content = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(content), content)


class Answers:
    """Everything this engine ever says, made once."""

    def __init__(self, name: str) -> None:
        usage = {"prompt_tokens": 90, "completion_tokens": EVENTS, "total_tokens": 90 + EVENTS}
        common = {"id": "chatcmpl-1", "created": 1795300000, "model": name}
        words = " ".join([name] * EVENTS)
        choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
        self.chat = _json({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
        vector = {"object": "embedding", "index": 0, "embedding": [round(0.001 * n, 6) for n in range(DIMENSIONS)]}
        self.embed = _json({"object": "list", "model": name, "data": [vector], "usage": usage})
        self.audio = _json({"text": "the patient takes 500 mg twice daily"})
        self.models = _json({"object": "list", "data": [{"id": name, "object": "model"}]})
        self._common, self._name, self._usage = {**common, "object": "chat.completion.chunk"}, name, usage

    def events(self, count: int, with_usage: bool) -> list[bytes]:
        """The chunks of a stream of so many words."""
        said = [self._event(number, number == count - 1) for number in range(count)]
        if with_usage:
            said.append(_chunk(json.dumps({**self._common, "choices": [], "usage": self._usage})))
        return [*said, _chunk("[DONE]") + b"0\r\n\r\n"]

    def _event(self, number: int, last: bool) -> bytes:
        delta = {"role": "assistant", "content": self._name} if number == 0 else {"content": f" {self._name}"}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else None}
        return _chunk(json.dumps({**self._common, "choices": [choice]}))


class Engine:
    """What the connections of one engine share."""

    def __init__(self, name: str, delay_ms: int) -> None:
        self.answers, self.delay_ms = Answers(name), delay_ms
        self.posts = 0
        self._streams: dict[tuple[int, bool], list[bytes]] = {}

    def stream(self, body: bytes) -> list[bytes]:
        """The chunks that this question is answered with."""
        count = int(json.loads(body).get("max_tokens", EVENTS))
        key = (count, b'"include_usage": true' in body or b'"include_usage":true' in body)
        if key not in self._streams:
            self._streams[key] = self.answers.events(*key)
        return self._streams[key]


class Connection(asyncio.Protocol):
    """One caller: a request at a time, kept alive."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._size = "", 0
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport:
                self._transport.abort()

    def on_message_begin(self) -> None:
        self._path, self._body, self._size = "", [], 0

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        if self._size < KEPT_BYTES:
            self._body.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._get()
            return
        self._engine.posts += 1
        delay_ms, gap_ms = _pace(self._path)
        delay_ms = self._engine.delay_ms or delay_ms
        answer = self._answer(b"".join(self._body))
        act: Callable[[], None] = lambda: self._send(answer, gap_ms)  # noqa: E731 - bound to this request
        if delay_ms:
            self._loop.call_later(delay_ms / 1000, act)
        else:
            act()

    def _get(self) -> None:
        told = _json({"posts": self._engine.posts}) if self._path == "/count" else self._engine.answers.models
        if self._transport:
            self._transport.write(told)

    def _answer(self, body: bytes) -> bytes | list[bytes]:
        answers = self._engine.answers
        if "embed" in self._path:
            return answers.embed
        if "audio" in self._path:
            return answers.audio
        if b'"stream": true' in body or b'"stream":true' in body:
            return self._engine.stream(body)
        return answers.chat

    def _send(self, answer: bytes | list[bytes], gap_ms: int) -> None:
        if self._transport is None:
            return
        if isinstance(answer, bytes):
            self._transport.write(answer)
        elif not gap_ms:
            self._transport.write(STREAM_HEAD + b"".join(answer))
        else:
            self._transport.write(STREAM_HEAD)
            self._next(answer, 0, gap_ms)

    def _next(self, events: list[bytes], number: int, gap_ms: int) -> None:
        if self._transport is None:
            return
        self._transport.write(events[number])
        if number + 1 < len(events):
            self._loop.call_later(gap_ms / 1000, self._next, events, number + 1, gap_ms)


def _pace(path: str) -> tuple[int, int]:
    """(delay, gap) in milliseconds that a path asks for."""
    found = {"d": 0, "g": 0}
    for part in path.split("/"):
        if part[:1] in found and part[1:].isdigit():
            found[part[0]] = int(part[1:])
    return found["d"], found["g"]


async def _serve(port: int, name: str, delay_ms: int) -> None:
    engine = Engine(name, delay_ms)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
