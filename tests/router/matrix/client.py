"""A caller over raw sockets, so that a clean end and a broken one can be told apart byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

BOUNDARY = "matrix"


@dataclass
class Got:
    """An answer as it arrived. `clean`: it ended as HTTP says that it ends."""

    status: int
    headers: dict[str, str]
    body: bytes
    clean: bool

    def text(self) -> str:
        """The words of an answer, of whichever kind."""
        if self.headers["content-type"].startswith("text/event-stream"):
            return "".join(_words(self.body))
        data = json.loads(self.body)
        if "choices" in data:
            return str(data["choices"][0]["message"]["content"])
        return str(data["text"] if "text" in data else data["model"])

    def finish(self) -> str | None:
        """Why the model ended."""
        if self.headers["content-type"].startswith("text/event-stream"):
            ends = [choice["finish_reason"] for choice in _choices(self.body) if choice.get("finish_reason")]
            return ends[-1] if ends else None
        return str(json.loads(self.body)["choices"][0]["finish_reason"])


def _choices(stream: bytes) -> list[dict[str, object]]:
    found = []
    for line in stream.splitlines():
        if line.startswith(b'data: {"id"'):
            found += json.loads(line[6:])["choices"]
    return found


def _words(stream: bytes) -> list[str]:
    return [str(choice["delta"].get("content", "")) for choice in _choices(stream)]  # type: ignore[attr-defined]


@functools.cache
def question(kind: str, size: int) -> tuple[str, str, bytes]:
    """Path, content type and body of a request of this kind, with about `size` bytes of content in it."""
    content = "x" * max(4, size)
    if kind == "audio":
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head.encode() + content.encode() + f"\r\n--{BOUNDARY}--\r\n".encode()
        return "/audio", f"multipart/form-data; boundary={BOUNDARY}", body
    if kind == "embed":
        return "/embed", "application/json", json.dumps({"model": "mine", "input": [content]}).encode()
    data = {"model": "mine", "messages": [{"role": "user", "content": content}], "stream": kind == "chat_stream"}
    return "/chat", "application/json", json.dumps(data).encode()


async def ask(
    url: str,
    tenant: str,
    request_id: str,
    kind: str,
    size: int = 0,
    leave: Callable[[], bool] | None = None,
    slow: bool = False,
) -> Got | None:
    """Put one question; None for a caller that left before the end, as soon as it was told to."""
    path, media, body = question(kind, size)
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await _connect(host, int(port), slow)
    head = [
        f"POST {path} HTTP/1.1",
        "host: router",
        f"x-tenant: {tenant}",
        f"x-request-id: {request_id}",
        f"content-type: {media}",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    try:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        if leave:
            while not leave():
                await asyncio.sleep(0.01)
            if kind == "chat_stream":
                await reader.readuntil(b"data: ")
            writer.transport.abort()
            return None
        return _parsed(await _everything(reader, slow))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _connect(host: str, port: int, slow: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not slow:
        return await asyncio.open_connection(host, port)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, (host, port))
    return await asyncio.open_connection(sock=small, limit=4096)


async def _everything(reader: asyncio.StreamReader, slow: bool) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            pieces.append(piece)
            if slow and len(pieces) % 20 == 0:
                await asyncio.sleep(0.01)
    return b"".join(pieces)


def _parsed(raw: bytes) -> Got:
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body, clean = _dechunked(rest)
    else:
        body, clean = rest, len(rest) == int(headers.get("content-length", "-1"))
    return Got(int(first.split()[1]), headers, body, clean)


def _dechunked(rest: bytes) -> tuple[bytes, bool]:
    pieces, at = [], 0
    while (line := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:line], 16)
        if size == 0:
            return b"".join(pieces), True
        pieces.append(rest[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return b"".join(pieces), False
