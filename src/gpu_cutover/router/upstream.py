"""One question to one leg: bounded to its first token, checked while it streams, folded where it is wanted whole."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver

from .answers import (
    EVENT_STREAM,
    EventStream,
    Fold,
    RefusedAnswerError,
    UnusableAnswerError,
    check_end,
    check_whole,
)
from .body import Envelope
from .table import Leg

# Engines (uvicorn) drop idle connections after 5 s; reusing one at that moment would look like a failed engine.
KEEPALIVE_S = 3.0
STALE_S = 0.25  # a connection that breaks later broke under the question: that is a failure of the leg
# A whole answer up to this size is held back until it is known to be one; a larger one is passed on as it comes.
WHOLE_BYTES = 8 * 1024 * 1024
# Larger bodies are written piece by piece, so that one of them does not hold up everybody else's bytes.
PIECE_BYTES = 256 * 1024
END_GRACE_S = 0.1  # after the end mark, for the connection's own end: then it can be used again
SHADOW = {"x-shadow": "1"}
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long the router waits, in seconds, where the table does not say."""

    patience_s: float = 120.0  # to the first token where nobody else could answer: giving up would help no one
    stall_s: float = 60.0  # silence in the middle of an answer
    connect_s: float = 3.0
    read_s: float = 60.0  # for the next bytes of a caller's request
    write_s: float = 120.0  # until a caller takes the next bytes of its answer
    copy_s: float = 300.0  # a shadow's whole life


class LegFailedError(Exception):
    """The leg gave no usable answer. `outcome`: error | timeout; `status`: its HTTP status, 0 where there was none.

    `good`: bytes of the answer that came before it broke and are worth passing on.
    """

    def __init__(self, outcome: str, sentence: str, status: int = 0, good: bytes = b"") -> None:
        self.outcome, self.status, self.good = outcome, status, good
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it is put to any leg."""

    route: str
    request_id: str
    envelope: Envelope
    content_type: str
    accept: str


class Answer:
    """An answer that has begun (its first token is here). Iterate `chunks()` once, then `close()`."""

    def __init__(self, status: int, media: str, first: bytes, first_byte_ms: float, length: int | None = None) -> None:
        self.status, self.content_type, self.content_length = status, media, length
        self.first, self.first_byte_ms = first, first_byte_ms
        self.retry_after = ""
        self.tokens: int | None = None
        self.bytes_out = 0
        self._source: _Source | None = None
        self._events: EventStream | None = None

    def follow(self, source: _Source, events: EventStream | None) -> None:
        """More is to come from here."""
        self._source, self._events = source, events

    @property
    def is_whole(self) -> bool:
        """Is all of it here already?"""
        return self._source is None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the answer, of a stream only whole events. Raises LegFailedError when it breaks off."""
        self.bytes_out = len(self.first)
        yield self.first
        if self._source is None:
            return
        more = self._events_left(self._source, self._events) if self._events else self._bytes_left(self._source)
        async for chunk in more:
            self.bytes_out += len(chunk)
            yield chunk

    async def _events_left(self, source: _Source, events: EventStream) -> AsyncIterator[bytes]:
        while not events.done:
            chunk = await source.next_events(events)
            if chunk:
                yield chunk
        self.tokens = events.tokens
        await source.settle()

    async def _bytes_left(self, source: _Source) -> AsyncIterator[bytes]:
        tail = self.first
        while chunk := await source.next():
            tail = chunk
            yield chunk
        try:
            check_end(self.content_type, tail)
        except UnusableAnswerError as error:
            raise LegFailedError("error", str(error), self.status) from error

    async def whole(self) -> bytes:
        """The complete answer. Raises LegFailedError."""
        return b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        """Let go of the connection; an unfinished answer is aborted, which stops the engine's work on it."""
        if self._source is not None:
            self._source.response.close()


@dataclass(slots=True)
class _Source:
    """What is still to come of an answer, read with a bound on silence."""

    response: aiohttp.ClientResponse
    stall_s: float
    _spoke: float = 0.0  # loop time of the last event that said something

    async def next(self) -> bytes:
        """The next bytes, b'' at the end. Raises LegFailedError."""
        return await self._read(asyncio.get_running_loop().time() + self.stall_s)

    async def next_events(self, events: EventStream) -> bytes:
        """The next whole events. Comments keep a connection open but do not count as a sign of life."""
        self._spoke = self._spoke or asyncio.get_running_loop().time()
        chunk = await self._read(self._spoke + self.stall_s)
        try:
            if not chunk:
                events.end()
            good = events.feed(chunk)
        except UnusableAnswerError as error:
            raise LegFailedError("error", str(error), self.response.status, error.good) from error
        if good and not good.startswith(b":"):
            self._spoke = asyncio.get_running_loop().time()
        return good

    async def settle(self) -> None:
        """Everything is said; wait a moment for the connection's own end."""
        try:
            async with asyncio.timeout(END_GRACE_S):
                while await self.response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # the answer was complete before

    async def _read(self, until: float) -> bytes:
        content = self.response.content
        try:
            async with asyncio.timeout_at(until):
                return await content.readany()
        except TimeoutError as error:
            sentence = f"silent for {self.stall_s:g} s in the middle of its answer"
            raise LegFailedError("timeout", sentence, self.response.status) from error
        except (aiohttp.ClientError, OSError) as error:
            sentence = "broke off in the middle of its answer"
            raise LegFailedError("error", sentence, self.response.status) from error


def new_session(budgets: Budgets, resolver: AbstractResolver | None, keep: bool) -> aiohttp.ClientSession:
    """A client: no cookies, no proxies from the environment. `keep`: connections are kept for the next question."""
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, resolver=resolver)
        if keep
        else aiohttp.TCPConnector(limit=0, force_close=True, resolver=resolver)
    )
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=budgets.connect_s, sock_read=None)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


@dataclass(frozen=True, slots=True)
class Asker:
    """Puts questions to legs. `fresh` never uses a connection twice."""

    session: aiohttp.ClientSession
    fresh: aiohttp.ClientSession
    budgets: Budgets

    async def close(self) -> None:
        """Let go of all connections."""
        await self.session.close()
        await self.fresh.close()

    async def ask(
        self, leg: Leg, question: Question, budget_s: float, onprem: bool, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Put the question to the leg; return once its first token is here, or all of an answer that is wanted whole.

        `budget_s` runs from now to the first token. Raises LegFailedError: no answer, 5xx, empty, or none of its kind.
        """
        streamed = question.envelope.as_stream(question.route, leg.model) if onprem else None
        body = streamed or question.envelope.with_model(leg.model)
        started = time.perf_counter()
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(budget_s):
                response = await self._post(leg, question, body, headers or {})
                first, events = await _first(response, folding=streamed is not None)
            first_byte_ms = (time.perf_counter() - started) * 1000
            source = _Source(response, self.budgets.stall_s)
            return await _answer(question.route, source, events, first, first_byte_ms)
        except RefusedAnswerError as refusal:
            _close(response)
            return Answer(refusal.status, JSON, refusal.body, (time.perf_counter() - started) * 1000)
        except (UnusableAnswerError, aiohttp.ClientError, OSError, ValueError) as error:
            _close(response)
            raise _failure(error, budget_s, response) from error
        except BaseException:
            _close(response)
            raise

    async def _post(
        self, leg: Leg, question: Question, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        sent = {
            "content-type": question.content_type,
            "accept": question.accept,
            "accept-encoding": "identity",
            "x-request-id": question.request_id,
            **headers,
        }
        if len(body) > PIECE_BYTES:
            sent["content-length"] = str(len(body))
        began = time.monotonic()
        try:
            return await self._sent(self.session, leg, body, sent)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection that the server closed at this very moment: it never saw the question.
            if time.monotonic() - began > STALE_S:
                raise
            return await self._sent(self.fresh, leg, body, sent)

    async def _sent(
        self, session: aiohttp.ClientSession, leg: Leg, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        data = _pieces(body) if len(body) > PIECE_BYTES else body
        return await session.post(leg.url + leg.path, data=data, headers=headers, allow_redirects=False)


async def _first(response: aiohttp.ClientResponse, folding: bool) -> tuple[bytes, EventStream | None]:
    """The bytes up to and with the first token. Raises LegFailedError, UnusableAnswerError."""
    status = response.status
    if status >= 500 or 300 <= status < 400:
        raise LegFailedError("error", f"answered {status}", status)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise LegFailedError("error", "answered compressed, which was not asked for", status)
    if status != 200 or not _media(response).startswith(EVENT_STREAM):
        first = await response.content.readany()
        if not first and status < 400:
            raise LegFailedError("error", f"answered {status} with nothing in it", status)
        return first, None
    events, held = EventStream(Fold() if folding else None), b""
    while not events.began:
        chunk = await response.content.readany()
        if not chunk:
            events.end()
        held += events.feed(chunk)
    return held, events


async def _answer(route: str, source: _Source, events: EventStream | None, first: bytes, first_ms: float) -> Answer:
    """What may be handed to the caller now. Raises LegFailedError, UnusableAnswerError."""
    response, media = source.response, _media(source.response)
    if events and events.folding:
        return await _folded(source, events, events.folding, len(first), first_ms)
    if events:
        answer = Answer(200, media, first, first_ms)
        answer.follow(source, events)
        return answer
    if response.status >= 400:
        return await _refusal(source, first, first_ms)
    pieces, size = [first], len(first)
    while size <= WHOLE_BYTES and (chunk := await source.next()):
        pieces.append(chunk)
        size += len(chunk)
    body = b"".join(pieces)
    if size > WHOLE_BYTES:
        answer = Answer(response.status, media, body, first_ms, response.content_length)
        answer.follow(source, None)
        return answer
    answer = Answer(response.status, media, body, first_ms, size)
    answer.tokens = check_whole(route, media, body)
    return answer


async def _folded(source: _Source, events: EventStream, folding: Fold, size: int, first_ms: float) -> Answer:
    while not events.done:
        size += len(await source.next_events(events))
        if size > WHOLE_BYTES:
            raise LegFailedError("error", "its stream has no end", 200)
    await source.settle()
    body = json.dumps(folding.whole()).encode()
    answer = Answer(200, JSON, body, first_ms, len(body))
    answer.tokens = events.tokens
    return answer


async def _refusal(source: _Source, first: bytes, first_ms: float) -> Answer:
    """A 4xx is the answer, also where its words got lost on the way."""
    response, media = source.response, _media(source.response)
    pieces, size = [first], len(first)
    try:
        while size <= WHOLE_BYTES and (chunk := await source.next()):
            pieces.append(chunk)
            size += len(chunk)
    except LegFailedError:
        pieces, media = [b'{"error": {"type": "invalid_request", "message": "the model refused the request"}}'], JSON
    body = b"".join(pieces)
    response.close()
    answer = Answer(response.status, media, body, first_ms, len(body))
    answer.retry_after = response.headers.get("retry-after", "")
    return answer


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def _media(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("content-type", "application/octet-stream")


def _close(response: aiohttp.ClientResponse | None) -> None:
    if response is not None:
        response.close()


def _failure(error: Exception, budget_s: float, response: aiohttp.ClientResponse | None) -> LegFailedError:
    status = response.status if response is not None else 0
    if isinstance(error, UnusableAnswerError):
        return LegFailedError("error", str(error), status)
    if isinstance(error, TimeoutError):
        return LegFailedError("timeout", f"no first token in {budget_s:g} s", status)
    return LegFailedError("error", type(error).__name__, status)
