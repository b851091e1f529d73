"""One question to one leg: bounded to its first token, checked while it streams, folded where it is wanted whole."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

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
from .outbound import Client, Exchange, Resolve, Take, head, place
from .table import Leg

# Engines (uvicorn) drop idle connections after 5 s; reusing one at that moment would look like a failed engine.
KEEPALIVE_S = 3.0
# A whole answer up to this size is held back until it is known to be one; a larger one is passed on as it comes.
WHOLE_BYTES = 8 * 1024 * 1024
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
    """An answer that has begun (its first token is here). `pour` it once, then `close()`."""

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

    async def pour(self, write: Take, taken: Callable[[], Awaitable[None]]) -> None:
        """Give every piece to `write`, of a stream only whole events; where that says False, go on after `taken`.

        Raises LegFailedError when the answer breaks off, and what `taken` raises.
        """
        self.bytes_out = len(self.first)
        if not write(self.first):
            await taken()
        if self._source is None:
            return
        if self._events:
            await self._pour_events(self._source, self._events, write, taken)
        else:
            await self._pour_bytes(self._source, write, taken)

    async def _pour_events(
        self, source: _Source, events: EventStream, write: Take, taken: Callable[[], Awaitable[None]]
    ) -> None:
        def passed_on(good: bytes) -> bool:
            self.bytes_out += len(good)
            return write(good)

        while not events.done:
            await source.events(events, passed_on)
            await taken()
        self.tokens = events.tokens
        source.finish()

    async def _pour_bytes(self, source: _Source, write: Take, taken: Callable[[], Awaitable[None]]) -> None:
        tail = self.first

        def passed_on(piece: bytes) -> bool:
            nonlocal tail
            tail = piece
            self.bytes_out += len(piece)
            return write(piece)

        while not await source.pieces(passed_on):
            await taken()
        try:
            check_end(self.content_type, tail)
        except UnusableAnswerError as error:
            raise LegFailedError("error", str(error), self.status) from error

    async def whole(self) -> bytes:
        """The complete answer. Raises LegFailedError."""
        if self._source is None:
            self.bytes_out = len(self.first)
            return self.first
        pieces: list[bytes] = []

        def keep(piece: bytes) -> bool:
            pieces.append(piece)
            return True

        await self.pour(keep, _at_once)
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the connection; an unfinished answer is aborted, which stops the engine's work on it."""
        if self._source is not None:
            self._source.exchange.close()


async def _at_once() -> None:
    """Whoever keeps everything never has to be waited for."""


@dataclass(slots=True)
class _Source:
    """What is still to come of an answer, read with a bound on silence."""

    exchange: Exchange
    stall_s: float
    loop: asyncio.AbstractEventLoop

    async def pieces(self, take: Take) -> bool:
        """Every further piece to `take`. True at the end, False where it wants no more now. Raises LegFailedError."""
        exchange, loop, stall_s = self.exchange, self.loop, self.stall_s

        def taken(piece: bytes) -> bool:
            exchange.limit(loop.time() + stall_s)
            return take(piece)

        exchange.limit(loop.time() + stall_s)
        return await self._fed(taken)

    async def events(self, events: EventStream, take: Take) -> None:
        """Whole events to `take`, until it wants no more for now or the stream is done. Raises LegFailedError.

        Comments keep a connection open but do not count as a sign of life.
        """
        exchange, loop, stall_s = self.exchange, self.loop, self.stall_s

        def taken(piece: bytes) -> bool:
            good = events.feed(piece)
            if not good:
                return True
            if not good.startswith(b":"):
                exchange.limit(loop.time() + stall_s)
            return take(good) and not events.done

        exchange.limit(loop.time() + stall_s)
        try:
            if await self._fed(taken):
                events.end()
        except UnusableAnswerError as error:
            raise LegFailedError("error", str(error), exchange.status, error.good) from error

    def finish(self) -> None:
        """Everything is said."""
        self.exchange.finish(END_GRACE_S)

    async def _fed(self, take: Take) -> bool:
        try:
            return await self.exchange.feed(take)
        except TimeoutError as error:
            sentence = f"silent for {self.stall_s:g} s in the middle of its answer"
            raise LegFailedError("timeout", sentence, self.exchange.status) from error
        except OSError as error:
            raise LegFailedError("error", "broke off in the middle of its answer", self.exchange.status) from error


@dataclass(frozen=True, slots=True)
class Asker:
    """Puts questions to legs."""

    client: Client
    budgets: Budgets

    def close(self) -> None:
        """Let go of all connections."""
        self.client.close()

    async def ask(
        self, leg: Leg, question: Question, budget_s: float, onprem: bool, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Put the question to the leg; return once its first token is here, or all of an answer that is wanted whole.

        `budget_s` runs from now to the first token. Raises LegFailedError: no answer, 5xx, empty, or none of its kind.
        """
        streamed = question.envelope.as_stream(question.route, leg.model) if onprem else None
        body = streamed or question.envelope.with_model(leg.model)
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        exchange: Exchange | None = None
        try:
            where = place(leg.url + leg.path)
            request = head("POST", where, _headers(question, headers), len(body))
            exchange = await self.client.ask(where.origin, request, body, loop.time() + budget_s)
            first, events = await _first(exchange, folding=streamed is not None)
            first_byte_ms = (time.perf_counter() - began) * 1000
            source = _Source(exchange, self.budgets.stall_s, loop)
            return await _answer(question.route, source, events, first, first_byte_ms)
        except RefusedAnswerError as refusal:
            _close(exchange)
            return Answer(refusal.status, JSON, refusal.body, (time.perf_counter() - began) * 1000)
        except (UnusableAnswerError, OSError, ValueError) as error:
            _close(exchange)
            raise _failure(error, budget_s, exchange) from error
        except BaseException:
            _close(exchange)
            raise


def new_asker(budgets: Budgets, resolve: Resolve) -> Asker:
    """One with connections of its own."""
    return Asker(Client(budgets.connect_s, KEEPALIVE_S, resolve), budgets)


def _headers(question: Question, more: Mapping[str, str] | None) -> dict[str, str]:
    headers = {
        "content-type": question.content_type,
        "accept": question.accept,
        "accept-encoding": "identity",
        "x-request-id": question.request_id,
    }
    return {**headers, **more} if more else headers


async def _first(exchange: Exchange, folding: bool) -> tuple[bytes, EventStream | None]:
    """The bytes up to and with the first token. Raises LegFailedError, UnusableAnswerError, OSError."""
    status = exchange.status
    if status >= 500 or 300 <= status < 400:
        raise LegFailedError("error", f"answered {status}", status)
    if exchange.header(b"content-encoding") not in ("", "identity"):
        raise LegFailedError("error", "answered compressed, which was not asked for", status)
    held: list[bytes] = []

    def one(piece: bytes) -> bool:
        held.append(piece)
        return False

    if status != 200 or not _media(exchange).startswith(EVENT_STREAM):
        if await exchange.feed(one) and status < 400:
            raise LegFailedError("error", f"answered {status} with nothing in it", status)
        return b"".join(held), None
    events = EventStream(Fold() if folding else None)

    def until_it_began(piece: bytes) -> bool:
        held.append(events.feed(piece))
        return not events.began

    if await exchange.feed(until_it_began) and not events.began:
        events.end()
    return b"".join(held), events


async def _answer(route: str, source: _Source, events: EventStream | None, first: bytes, first_ms: float) -> Answer:
    """What may be handed to the caller now. Raises LegFailedError, UnusableAnswerError."""
    exchange, media = source.exchange, _media(source.exchange)
    if events and events.folding:
        return await _folded(source, events, events.folding, len(first), first_ms)
    if events:
        answer = Answer(200, media, first, first_ms)
        answer.follow(source, events)
        return answer
    if exchange.status >= 400:
        return await _refusal(source, first, first_ms)
    pieces = [first]
    ended = await _collect(source, pieces)
    body = b"".join(pieces)
    if not ended:
        length = exchange.header(b"content-length")
        answer = Answer(exchange.status, media, body, first_ms, int(length) if length else None)
        answer.follow(source, None)
        return answer
    answer = Answer(exchange.status, media, body, first_ms, len(body))
    answer.tokens = check_whole(route, media, body)
    return answer


async def _collect(source: _Source, pieces: list[bytes]) -> bool:
    """Add what is still to come, up to `WHOLE_BYTES` together. True when that is all of it. Raises LegFailedError."""
    size = sum(map(len, pieces))

    def keep(piece: bytes) -> bool:
        nonlocal size
        pieces.append(piece)
        size += len(piece)
        return size <= WHOLE_BYTES

    return size <= WHOLE_BYTES and await source.pieces(keep)


async def _folded(source: _Source, events: EventStream, folding: Fold, size: int, first_ms: float) -> Answer:
    def count(good: bytes) -> bool:
        nonlocal size
        size += len(good)
        return size <= WHOLE_BYTES

    if not events.done:
        await source.events(events, count)
    if not events.done:
        raise LegFailedError("error", "its stream has no end", 200)
    source.finish()
    body = json.dumps(folding.whole()).encode()
    answer = Answer(200, JSON, body, first_ms, len(body))
    answer.tokens = events.tokens
    return answer


async def _refusal(source: _Source, first: bytes, first_ms: float) -> Answer:
    """A 4xx is the answer, also where its words got lost on the way."""
    exchange, media = source.exchange, _media(source.exchange)
    pieces = [first]
    try:
        await _collect(source, pieces)
    except LegFailedError:
        pieces, media = [b'{"error": {"type": "invalid_request", "message": "the model refused the request"}}'], JSON
    body = b"".join(pieces)
    exchange.close()
    answer = Answer(exchange.status, media, body, first_ms, len(body))
    answer.retry_after = exchange.header(b"retry-after")
    return answer


def _media(exchange: Exchange) -> str:
    return exchange.header(b"content-type") or "application/octet-stream"


def _close(exchange: Exchange | None) -> None:
    if exchange is not None:
        exchange.close()


def _failure(error: Exception, budget_s: float, exchange: Exchange | None) -> LegFailedError:
    status = exchange.status if exchange is not None else 0
    if isinstance(error, UnusableAnswerError):
        return LegFailedError("error", str(error), status)
    if isinstance(error, TimeoutError):
        return LegFailedError("timeout", f"no first token in {budget_s:g} s", status)
    return LegFailedError("error", type(error).__name__, status)
