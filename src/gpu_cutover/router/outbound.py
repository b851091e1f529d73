"""HTTP/1.1 towards model servers: kept connections, one question at a time on each. Parsing is llhttp's.

Small on purpose: no redirects, no decompression, no cookies, no proxies. What a reply promised is counted: a body
shorter than its content-length, a chunked one without its last chunk, a head that is too large: each is a failure.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .deadline import Deadline

MAX_HEAD_BYTES = 64 * 1024
MAX_PAGE_BYTES = 1024 * 1024
HELD_BYTES = 512 * 1024  # of a reply that nobody takes, before the server is asked to wait
# Larger bodies are written piece by piece, so that one of them does not hold up everybody else's bytes.
PIECE_BYTES = 256 * 1024
STALE_S = 0.25  # a kept connection that breaks later broke under the question
SWEEP_S = 0.5


class OutboundError(OSError):
    """No reply, or one that broke off or is not HTTP."""


class StaleConnectionError(OutboundError):
    """The server closed a kept connection at the moment it was used: it never saw the question."""


class Origin(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    tls: bool


class Place(NamedTuple):
    """An address, taken apart."""

    origin: Origin
    authority: str
    path: str


# The addresses of a host. Raises OSError.
Resolve = Callable[[str], Awaitable[list[str]]]
# Gets each piece of a reply; False: no more for now.
Take = Callable[[bytes], bool]


@functools.lru_cache(maxsize=1024)
def place(url: str) -> Place:
    """Take an http(s) address apart. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http address")
    tls = parts.scheme == "https"
    authority = parts.netloc.rpartition("@")[2]
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Place(Origin(parts.hostname, parts.port or (443 if tls else 80), tls), authority, path or "/")


def head(method: str, where: Place, headers: Mapping[str, str], length: int) -> bytes:
    """A request's first line and headers. Raises ValueError where a value would begin a line of its own."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    text = f"{method} {where.path} HTTP/1.1\r\nhost: {where.authority}\r\n{lines}content-length: {length}\r\n\r\n"
    if text.count("\n") != len(headers) + 4:
        raise ValueError("a header holds a line break")
    return text.encode("utf-8", "surrogateescape")


class Client:
    """Connections to servers, kept for `keep_s` after their last reply."""

    def __init__(self, connect_s: float, keep_s: float, resolve: Resolve | None = None) -> None:
        self._connect_s, self._keep_s, self._resolve = connect_s, keep_s, resolve or addresses
        self._loop = asyncio.get_running_loop()
        self._kept: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def ask(self, origin: Origin, head: bytes, body: bytes, until: float) -> Exchange:
        """Send a request; return when the head of its reply is here.

        Raises TimeoutError at `until` (loop time), OutboundError and other OSErrors.
        """
        kept = self._take_kept(origin)
        if kept is not None:
            try:
                return await kept.ask(head, body, until)
            except StaleConnectionError:
                pass
        return await (await self._connected(origin, until)).ask(head, body, until)

    async def get(self, url: str, within_s: float) -> bytes:
        """The body of a page of at most 1 MiB. Raises TimeoutError, OSError, ValueError."""
        where, pieces = place(url), list[bytes]()

        def keep(piece: bytes) -> bool:
            pieces.append(piece)
            return sum(map(len, pieces)) <= MAX_PAGE_BYTES

        exchange = await self.ask(where.origin, head("GET", where, {}, 0), b"", self._loop.time() + within_s)
        try:
            whole = await exchange.feed(keep)
        finally:
            exchange.close()
        if exchange.status != 200 or not whole:
            raise OutboundError(f"answered {exchange.status}")
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of all connections, also of those in use."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.abort()
        self._kept.clear()

    # --- what a connection tells ------------------------------------------------------------------------------------

    def idle(self, connection: Connection) -> None:
        """Its reply is complete and another question may be put on it."""
        if self._closed:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._kept.setdefault(connection.origin, []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(min(SWEEP_S, self._keep_s), self._let_go_of_the_idle)

    def opened(self, connection: Connection) -> None:
        """It is connected."""
        self._open.add(connection)
        if self._closed:
            connection.abort()

    def lost(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        kept = self._kept.get(connection.origin)
        if kept and connection in kept:
            kept.remove(connection)

    # --- keeping ----------------------------------------------------------------------------------------------------

    def _take_kept(self, origin: Origin) -> Connection | None:
        """The one used last: the others may so grow old."""
        kept = self._kept.get(origin)
        if not kept:
            return None
        connection = kept.pop()
        if self._loop.time() - connection.idle_since < self._keep_s:
            return connection
        connection.abort()
        return None

    def _let_go_of_the_idle(self) -> None:
        self._sweep = None
        oldest = self._loop.time() - self._keep_s
        for origin, kept in list(self._kept.items()):
            for connection in [one for one in kept if one.idle_since <= oldest]:
                kept.remove(connection)
                connection.abort()
            if not kept:
                del self._kept[origin]
        if self._kept:
            self._sweep = self._loop.call_later(min(SWEEP_S, self._keep_s), self._let_go_of_the_idle)

    async def _connected(self, origin: Origin, until: float) -> Connection:
        tls = _tls() if origin.tls else None
        failure = OutboundError(f"{origin.host} has no address")
        async with asyncio.timeout_at(min(until, self._loop.time() + self._connect_s)):
            for address in await self._resolve(origin.host):
                try:
                    return await self._connect(origin, address, tls)
                except OSError as error:
                    failure = OutboundError(str(error))
        raise failure

    async def _connect(self, origin: Origin, address: str, tls: ssl.SSLContext | None) -> Connection:
        made = await self._loop.create_connection(
            lambda: Connection(self, origin),
            address,
            origin.port,
            ssl=tls,
            server_hostname=origin.host if tls else None,
        )
        return made[1]


class Connection(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self, client: Client, origin: Origin) -> None:
        self.origin, self.idle_since = origin, 0.0
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._used = self._full = False
        self._surplus = False  # it says more than it was asked for

    async def ask(self, head: bytes, body: bytes, until: float) -> Exchange:
        """Send a request; return when the head of its reply is here. Raises as `Client.ask` does."""
        stale_until = self._loop.time() + STALE_S if self._used else 0.0
        exchange = self._exchange = Exchange(self, self._loop, stale_until)
        self._used = True
        exchange.limit(until)
        try:
            if len(body) <= PIECE_BYTES:
                self._transport.write(head + body)
            else:
                await self._send(exchange, head, body)
            await exchange.begun()
        except BaseException:
            exchange.close()
            raise
        return exchange

    async def _send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """A large body. The server may answer before it took all of it: then the rest is not sent."""
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(body), PIECE_BYTES):
            self._transport.write(view[start : start + PIECE_BYTES])
            while self._full and not exchange.status:
                await exchange.news()
            if exchange.status:
                exchange.keeps = False
                return

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self._transport.abort()

    def pause(self) -> None:
        """Let the server wait."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Let it go on."""
        self._transport.resume_reading()

    def over(self, reusable: bool) -> None:
        """Its exchange has ended."""
        self._exchange = None
        transport = self._transport
        if reusable and not (self._surplus or transport.is_closing() or transport.get_write_buffer_size()):
            self._client.idle(self)
        else:
            transport.abort()

    # --- what the event loop tells ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client.opened(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            exchange.fail(OutboundError("the reply is not HTTP"))
            return
        exchange.received(len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self)
        if self._exchange is not None:
            self._exchange.lost(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.wake()

    # --- what the parser tells --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._surplus = self._exchange is None or self._exchange.status > 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None and not self._exchange.status:  # later ones are trailers
            self._exchange.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._exchange is not None and not self._surplus:
            self._exchange.head_is_here(self._parser.get_status_code())

    def on_body(self, piece: bytes) -> None:
        if self._exchange is not None and not self._surplus:
            self._exchange.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._exchange is not None and not self._surplus:
            self._exchange.message_is_here(self._parser.should_keep_alive())


class Exchange:
    """One request and its reply: first the head, then the body as it comes."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, stale_until: float) -> None:
        self.status = 0  # 0: no head yet
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.keeps = True  # may the connection be used again?
        self._connection, self._loop, self._stale_until = connection, loop, stale_until
        self._received = 0
        self._held = 0  # bytes of the pieces that nobody took yet
        self._paused = self._ended = self._dropping = False
        self._failure: Exception | None = None
        self._take: Take | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._deadline = Deadline(loop, self._expired)

    def header(self, name: bytes) -> str:
        """A header by its name in small letters; '' where there is none."""
        return self.headers.get(name, b"").decode("utf-8", "surrogateescape")

    # --- what whoever asked calls -----------------------------------------------------------------------------------

    def limit(self, until: float) -> None:
        """TimeoutError for whoever waits at this moment (loop time)."""
        self._deadline.at = until

    async def begun(self) -> None:
        """Wait for the head. Raises TimeoutError, OutboundError."""
        while not self.status:
            await self.news()

    async def news(self) -> bool:
        """Wait until something happens. Raises TimeoutError, OutboundError, and what `take` raises."""
        if self._failure is not None:
            raise self._failure
        self._deadline.arm()
        self._waiting = self._loop.create_future()
        try:
            return await self._waiting
        finally:
            self._waiting = None

    async def feed(self, take: Take) -> bool:
        """Hand each piece of the body to `take` as it comes. True at the end, False once `take` wants no more for now.

        `take` is called from the event loop: a piece costs no change of task. Raises what `take` raises, TimeoutError,
        OutboundError.
        """
        if self.pieces and not take(self._joined()):
            return False
        if self._ended:
            return True
        if self._paused:
            self._paused = False
            self._connection.resume()
        self._take = take
        try:
            return await self.news()
        finally:
            self._take = None

    def finish(self, within_s: float) -> None:
        """Everything that counts was said. Where the end comes in time the connection can be used again."""
        if not self._ended and self._failure is None:
            self._dropping = True
            self._deadline.at = self._loop.time() + within_s
            self._deadline.arm()

    def close(self) -> None:
        """Let go; a reply that has not ended is cut off, which stops the server's work on it."""
        if not self._dropping:
            self.fail(OutboundError("nobody waits for it"))

    # --- what the connection tells ----------------------------------------------------------------------------------

    def head_is_here(self, status: int) -> None:
        """Status and headers are complete; those of an interim reply (1xx) do not count."""
        if sum(map(len, self.headers.values())) > MAX_HEAD_BYTES:
            self.fail(OutboundError("the head of the reply is too large"))
        elif status < 200:
            self.headers.clear()
        else:
            self.status = status

    def message_is_here(self, keeps: bool) -> None:
        """The reply is complete."""
        if self.status:
            self._ended, self.keeps = True, self.keeps and keeps

    def received(self, size: int) -> None:
        """The parser is through with what just came."""
        self._received += size
        if not self.status and self._received > MAX_HEAD_BYTES:
            self.fail(OutboundError("the head of the reply is too large"))
            return
        if self._ended:
            self._end()
        if self._take is not None:
            self._deliver(self._take)
        elif self._dropping:
            self.pieces.clear()
        elif self.status:
            self._hold(size)
            self.wake()

    def lost(self, error: Exception | None) -> None:
        """The connection is closed. That is a proper end only of a body whose length was not told."""
        told = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self.status and error is None and not told:
            self._ended, self.keeps = True, False
            self.received(0)
        elif not self._received and self._loop.time() < self._stale_until:
            self.fail(StaleConnectionError("the server closed the connection"))
        else:
            self.fail(OutboundError("the connection broke off"))

    def fail(self, failure: Exception) -> None:
        """It has no proper end."""
        if self._ended or self._failure is not None:
            return
        self._failure = failure
        self._deadline.clear()
        self._connection.over(reusable=False)
        self._wake(failure)

    def wake(self) -> None:
        """Something happened that whoever waits may want to know."""
        if self._take is None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(False)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _deliver(self, take: Take) -> None:
        try:
            more = take(self._joined()) if self.pieces else True
        except Exception as error:  # whatever it is, it belongs to whoever waits
            self._wake(error)
            return
        if not more:
            self._wake(False)
        elif self._ended:
            self._wake(True)

    def _wake(self, result: bool | Exception) -> None:
        self._take = None
        if self._waiting is None or self._waiting.done():
            return
        if isinstance(result, bool):
            self._waiting.set_result(result)
        else:
            self._waiting.set_exception(result)

    def _end(self) -> None:
        self._deadline.clear()
        self._connection.over(self.keeps)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > HELD_BYTES and not self._paused and not self._ended:
            self._paused = True
            self._connection.pause()

    def _joined(self) -> bytes:
        pieces, self.pieces, self._held = self.pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _expired(self) -> None:
        if self._waiting is not None or self._dropping:
            self.fail(TimeoutError())


async def addresses(host: str) -> list[str]:
    """A host's addresses as the system knows them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
