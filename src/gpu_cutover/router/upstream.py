"""One question to one leg: bounded to its first byte, streamed after it, folded where the caller wants it whole."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from .body import DONE, as_stream, content_type, fold, with_model
from .table import Leg

PATIENCE_S = 120.0  # to the first byte where nobody else could answer: giving up would help no one
STALL_S = 60.0  # silence in the middle of an answer
CONNECT_S = 3.0
# Engines (uvicorn) drop idle connections after 5 s; reusing one at that moment would look like a failed engine.
KEEPALIVE_S = 3.0
TAIL_BYTES = 4096
EVENT_STREAM = "text/event-stream"
_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')


class LegFailedError(Exception):
    """The leg gave no usable answer. `outcome`: error | timeout; `status`: its HTTP status, 0 where there was none."""

    def __init__(self, outcome: str, sentence: str, status: int = 0) -> None:
        self.outcome, self.status = outcome, status
        super().__init__(sentence)


@dataclass(slots=True)
class Question:
    """A request as it is put to any leg."""

    route: str
    request_id: str
    body: bytes
    content_type: str
    accept: str
    streamed: bool  # the caller wants a stream


class Answer:
    """An answer that has begun (its first bytes are here). Iterate `chunks()` once, then `close()`."""

    def __init__(self, status: int, media: str, length: int | None, first: bytes, first_byte_ms: float) -> None:
        self.status, self.content_type, self.content_length = status, media, length
        self.first, self.first_byte_ms = first, first_byte_ms
        self.tail = b""
        self.bytes_out = 0
        self._response: aiohttp.ClientResponse | None = None

    def attach(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the answer. Raises LegFailedError when it breaks off or falls silent."""
        chunk = self.first
        while chunk:
            self.bytes_out += len(chunk)
            self.tail = (self.tail + chunk)[-TAIL_BYTES:]
            yield chunk
            chunk = await _read(self._response) if self._response else b""
        if self.status == 200 and self.content_type.startswith(EVENT_STREAM) and DONE not in self.tail:
            raise LegFailedError("error", "the stream ended without its end mark", self.status)

    async def whole(self) -> bytes:
        """The complete answer. Raises LegFailedError."""
        return b"".join([chunk async for chunk in self.chunks()])

    @property
    def tokens(self) -> int | None:
        """Generated tokens, where the answer tells its usage at its end."""
        found = _TOKENS.findall(self.tail)
        return int(found[-1]) if found else None

    def close(self) -> None:
        """Let go of the connection; an unfinished answer is aborted, which stops the engine's work on it."""
        if self._response is not None:
            self._response.close()


def new_session() -> aiohttp.ClientSession:
    """The client all questions share: no cookies, no proxies from the environment, no redirects followed."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=None)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


async def ask(session: aiohttp.ClientSession, leg: Leg, question: Question, budget_s: float, onprem: bool) -> Answer:
    """Put the question to the leg; return once its first byte is here (or, folded, all of it).

    `budget_s` runs from now to the first byte. Raises LegFailedError (no answer, 5xx, empty) and
    BadBodyError (the request is wrong).
    """
    body = with_model(question.body, question.content_type, leg.model)
    streamed_body = as_stream(question.route, body, question.content_type) if onprem else None
    started = time.perf_counter()
    try:
        async with asyncio.timeout(budget_s):
            answer = await _open(session, leg, question, streamed_body or body, started)
    except TimeoutError as error:
        raise LegFailedError("timeout", f"no first byte in {budget_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise LegFailedError("error", type(error).__name__) from error
    if streamed_body and answer.status == 200 and answer.content_type.startswith(EVENT_STREAM):
        return await _folded(answer)
    return answer


async def _open(session: aiohttp.ClientSession, leg: Leg, question: Question, body: bytes, started: float) -> Answer:
    headers = {
        "content-type": question.content_type,
        "accept": question.accept,
        "accept-encoding": "identity",
        "x-request-id": question.request_id,
    }
    response = await session.post(leg.url + leg.path, data=body, headers=headers, allow_redirects=False)
    try:
        first = await response.content.readany()
        if response.status >= 500 or 300 <= response.status < 400:
            raise LegFailedError("error", f"answered {response.status}", response.status)
        if not first:
            raise LegFailedError("error", f"answered {response.status} with nothing in it", response.status)
    except BaseException:
        response.close()
        raise
    elapsed_ms = (time.perf_counter() - started) * 1000
    media = response.headers.get("content-type", "application/octet-stream")
    answer = Answer(response.status, media, response.content_length, first, elapsed_ms)
    answer.attach(response)
    return answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    try:
        async with asyncio.timeout(STALL_S):
            return await response.content.readany()
    except TimeoutError as error:
        raise LegFailedError(
            "timeout", f"silent for {STALL_S:g} s in the middle of its answer", response.status
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise LegFailedError("error", "broke off in the middle of its answer", response.status) from error


async def _folded(answer: Answer) -> Answer:
    try:
        folded = fold(await answer.whole())
    finally:
        answer.close()
    if folded is None:
        raise LegFailedError("error", "its stream could not be read to the end", answer.status)
    body = json.dumps(folded).encode()
    return Answer(200, "application/json", len(body), body, answer.first_byte_ms)


def decoded(answer: bytes, media: str) -> dict[str, object] | None:
    """An answer as data, for the comparison: JSON as it is, a stream folded, text under `text`; None when broken."""
    kind = content_type(media)[0]
    if kind == EVENT_STREAM:
        return fold(answer)
    if kind == "text/plain":
        return {"text": answer.decode(errors="replace")}
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
