"""The load: bounded loops over kept connections. A process of its own, so that what it costs is nobody else's.

Reads one JSON order a line on standard input and answers one JSON line to each. Runs in the bench's own environment.
An order names `host, port, tls? {ca, cert}`, a list of `requests` (path, headers, json | audio_mb) taken in turn, and

* `how: closed`: `connections` callers ask again as soon as they are answered, until `seconds` or `count` is over;
* `how: paced`: a request every 1/`rate` s for `seconds`, whatever became of those before;
* `how: held`: as closed, with `streams` (requests) open meanwhile; tells start, end, status and `x-served-by` of each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import httptools
import uvloop

PATIENCE_S = 30.0  # for one answer
STREAM_S = 180.0  # for a stream that is held open
BOUNDARY = "bench-boundary-7d1f"


class CallFailedError(Exception):
    """No whole answer came."""


class Caller(asyncio.Protocol):
    """One connection: a request, then its whole answer, then the next."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self.lost = False
        self.first_s, self.served_by = 0.0, ""
        self.body: list[bytes] = []
        self.keep = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none of asyncio's classes

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._done and not self._done.done():
            self._done.set_exception(CallFailedError("the connection ended"))

    async def ask(self, request: bytes, patience_s: float = PATIENCE_S) -> int:
        """Send a request and wait for the whole answer; its status. Raises CallFailedError."""
        if self.lost or self._transport is None:
            raise CallFailedError("not connected")
        self.first_s, self.served_by, self.body = 0.0, "", []
        self.keep = True
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(patience_s):
            await self._done
        return int(self._parser.get_status_code())

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.connection_lost(error)

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"x-served-by":
            self.served_by = value.decode("latin-1")
        elif lowered == b"connection" and value.lower() == b"close":
            self.keep = False

    def on_body(self, data: bytes) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()
        self.body.append(data)

    def on_message_complete(self) -> None:
        if self._done and not self._done.done():
            self._done.set_result(None)

    def close(self) -> None:
        """Hang up."""
        if self._transport:
            self._transport.abort()


class Place:
    """Where the requests go."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._host, self._port = order.get("host", "127.0.0.1"), order["port"]
        self._tls = None
        if tls := order.get("tls"):
            self._tls = ssl.create_default_context(cafile=tls["ca"])
            self._tls.check_hostname = False
            self._tls.load_cert_chain(tls["cert"])

    async def connect(self) -> Caller:
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(Caller, self._host, self._port, ssl=self._tls)
        return caller


def encoded(request: dict[str, Any]) -> bytes:
    """A request's bytes."""
    headers = {"host": "bench", "accept": "*/*", **request.get("headers", {})}
    if "audio_mb" in request:
        body = _multipart(request["audio_mb"], request["model"])
        headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    else:
        body = json.dumps(request["json"]).encode()
        headers["content-type"] = "application/json"
    lines = [f"POST {request['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def _multipart(megabytes: int, model: str) -> bytes:
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    file += "Content-Type: audio/wav\r\n\r\n"
    return (field + file).encode() + b"\x11\x22" * (megabytes * 500_000) + f"\r\n--{BOUNDARY}--\r\n".encode()


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.first_ms: list[float] = []
        self.bad = 0
        self.why = ""

    def told(self, wall_s: float) -> dict[str, Any]:
        return {"ms": self.ms, "first_ms": self.first_ms, "bad": self.bad, "why": self.why, "wall_s": wall_s}


async def ask_once(place: Place, caller: Caller | None, request: bytes, since: float, tally: Tally) -> Caller | None:
    """One request, counted; the connection where it can be used again."""
    try:
        caller = caller or await place.connect()
        status = await caller.ask(request)
    except (CallFailedError, OSError, TimeoutError) as error:
        tally.bad, tally.why = tally.bad + 1, str(error) or type(error).__name__
        return None
    if status != 200:
        tally.bad, tally.why = tally.bad + 1, f"{status} {b''.join(caller.body)[:200].decode(errors='replace')}"
    else:
        tally.ms.append((time.perf_counter() - since) * 1000)
        tally.first_ms.append((caller.first_s - since) * 1000)
    return caller if caller.keep else None


async def closed(order: dict[str, Any]) -> dict[str, Any]:
    """Callers that ask again at once."""
    place, requests, tally = Place(order), cycle([encoded(one) for one in order["requests"]]), Tally()
    left = iter(range(order.get("count", sys.maxsize)))
    began = time.perf_counter()
    until = began + order.get("seconds", 3600.0)

    async def one() -> None:
        caller = None
        while time.perf_counter() < until and next(left, None) is not None:
            caller = await ask_once(place, caller, next(requests), time.perf_counter(), tally)
        if caller:
            caller.close()

    await asyncio.gather(*(one() for _ in range(order["connections"])))
    return tally.told(time.perf_counter() - began)


async def paced(order: dict[str, Any]) -> dict[str, Any]:
    """Requests that are due at fixed times, whatever became of those before."""
    place, requests, tally = Place(order), cycle([encoded(one) for one in order["requests"]]), Tally()
    idle: list[Caller] = []
    tasks = set()
    began = time.perf_counter()

    async def one(request: bytes, due: float) -> None:
        caller = idle.pop() if idle else None
        if kept := await ask_once(place, caller, request, due, tally):
            idle.append(kept)

    for number in range(int(order["rate"] * order["seconds"])):
        due = began + number / order["rate"]
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.add(asyncio.create_task(one(next(requests), time.perf_counter())))
    await asyncio.gather(*tasks)
    for caller in idle:
        caller.close()
    return tally.told(time.perf_counter() - began)


async def held(order: dict[str, Any]) -> dict[str, Any]:
    """Requests while streams are open; when each began and who served it."""
    place, requests = Place(order), cycle([encoded(one) for one in order["requests"]])
    streams = [asyncio.create_task(_stream(place, encoded(one))) for one in order["streams"]]
    await asyncio.sleep(order["settle_s"])
    answer({"open": sum(not stream.done() for stream in streams)})
    left, asked = iter(range(order["count"])), []

    async def one(requests: Iterator[bytes]) -> None:
        caller = None
        while next(left, None) is not None:
            began = time.monotonic()
            try:
                caller = caller or await place.connect()
                status = await caller.ask(next(requests))
                asked.append((began, time.monotonic(), status, caller.served_by))
                caller = caller if caller.keep else None
            except (CallFailedError, OSError, TimeoutError):
                asked.append((began, time.monotonic(), 0, ""))
                caller = None

    await asyncio.gather(*(one(requests) for _ in range(order["connections"])))
    still = sum(not stream.done() for stream in streams)
    return {"asked": asked, "open_at_end": still, "streams": await asyncio.gather(*streams)}


async def _stream(place: Place, request: bytes) -> dict[str, Any]:
    """One stream to its end: who served it, how many events, and whether it ended as it should."""
    try:
        caller = await place.connect()
        status = await caller.ask(request, STREAM_S)
    except (CallFailedError, OSError, TimeoutError) as error:
        return {"status": 0, "why": str(error)}
    text = b"".join(caller.body).decode()
    caller.close()
    texts = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    words = {choice["delta"]["content"].strip() for event in texts for choice in event["choices"]}
    return {
        "status": status,
        "events": len(texts),
        "done": text.endswith("data: [DONE]\n\n"),
        "said_by": sorted(words),
        "served_by": caller.served_by,
    }


WAYS = {"closed": closed, "paced": paced, "held": held}


def answer(data: object) -> None:
    """One line, all of it: an unbuffered standard output would write a part of a long one and forget the rest."""
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(json.dumps(data).encode() + b"\n")


def main() -> None:
    """Serve orders until standard input ends."""
    gc.disable()  # between orders only: a collection in the middle would be somebody's tail
    for line in sys.stdin:
        order = json.loads(line)
        answer(uvloop.run(WAYS[order["how"]](order)))
        gc.collect()


if __name__ == "__main__":
    main()
