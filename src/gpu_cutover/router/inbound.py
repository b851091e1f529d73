"""HTTP/1.1 towards callers: reads requests, hands each to a handler, writes its answer. Parsing is llhttp's.

One request at a time on a connection. A caller that goes away cancels the handler of its request. An answer that broke
has no clean end: a chunked one lacks its last chunk, the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD_BYTES = 64 * 1024
AHEAD_BYTES = 64 * 1024  # that a caller may send of its next request while one is answered
IDLE_S = 75.0  # a connection without a request
HEAD_S = 30.0  # from the first byte of a request to its body
LINGER_S = 10.0  # for the rest of a body that nobody reads: a reset could destroy the answer on its way
SWEEP_S = 1.0
ACCEPT_AT_ONCE = 64
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REASON = {status.value: status.phrase for status in HTTPStatus}


class Request:
    """A request whose head is here; its body may still be on its way."""

    __slots__ = (
        "_failure",
        "_loop",
        "_pieces",
        "_waiting",
        "complete",
        "headers",
        "keeps",
        "method",
        "path",
        "version",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.method, self.path, self.version = "", "", "1.1"
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self.keeps = True  # does the caller want to use the connection again?
        self._loop = loop
        self._pieces: list[bytes] | None = []  # None: nobody reads it
        self._waiting: asyncio.Future[None] | None = None

    def header(self, name: bytes, default: str = "") -> str:
        """A header by its name in small letters."""
        value = self.headers.get(name)
        return default if value is None else value.decode("utf-8", "surrogateescape")

    @property
    def length(self) -> int | None:
        """Bytes of the body as the head tells them (the parser has seen that it is a number)."""
        value = self.headers.get(b"content-length")
        if value is None:
            return None if b"transfer-encoding" in self.headers else 0
        return int(value)

    async def body(self, patience_s: float) -> bytes:
        """All of it. Raises TimeoutError when the caller falls silent for this long."""
        while not self.complete:
            self._waiting = self._loop.create_future()
            async with asyncio.timeout(patience_s):
                await self._waiting
        pieces, self._pieces = self._pieces or [], None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def drop(self) -> None:
        """Nobody reads what is still to come."""
        self._pieces = None

    def add(self, piece: bytes) -> None:
        """More of the body."""
        if self._pieces is not None:
            self._pieces.append(piece)
            self._wake()

    def end(self) -> None:
        """That was all of it."""
        self.complete = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


Handler = Callable[[Request, "Caller"], Awaitable[None]]


class Caller(asyncio.Protocol):
    """One caller's connection: its requests, and the ways to answer them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._reading: Request | None = None  # its end has not come yet
        self._next: deque[Request] = deque()  # came while another is served
        self._ahead: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._until = self._loop.time() + IDLE_S  # loop time; when the connection is closed for silence
        self._full: asyncio.Future[None] | None = None
        self._head_bytes = 0
        self._url = b""
        self._began = self._chunked = self._keeps = self._bodiless = False  # of the answer
        self._lingering = False  # the answer is out, the rest of its request is not here
        self._deaf = False  # no request can be read any more
        self._gone = False

    # --- what a handler calls ---------------------------------------------------------------------------------------

    def answer(self, status: int, headers: Mapping[str, str], body: bytes, keeps: bool = True) -> None:
        """A whole answer. `keeps`: may the connection be used again?"""
        head = self._head(status, headers, f"content-length: {len(body)}\r\n", keeps)
        self._write(head if self._bodiless else head + body)

    def begin(self, status: int, headers: Mapping[str, str], length: int | None, keeps: bool = True) -> None:
        """An answer whose body comes in pieces."""
        self._chunked = length is None
        size = "transfer-encoding: chunked\r\n" if length is None else f"content-length: {length}\r\n"
        self._write(self._head(status, headers, size, keeps))

    def write(self, piece: bytes) -> bool:
        """A piece of its body. False: the caller takes no more for now, see `taken`."""
        if self._chunked and piece:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self._write(piece)
        return self._full is None

    def end(self) -> None:
        """Its body is complete."""
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def break_off(self) -> None:
        """End the answer so that nobody takes it for a whole one."""
        self._keeps = False
        self._close()

    async def taken(self, within_s: float) -> None:
        """Wait until the caller takes more. Raises ConnectionResetError when it does not."""
        if self._full is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._full
        except TimeoutError as error:
            raise ConnectionResetError("the caller takes nothing of its answer") from error

    async def read(self, request: Request, patience_s: float) -> bytes:
        """The request's body. Raises TimeoutError when the caller falls silent for this long."""
        if not request.complete and request.header(b"expect").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await request.body(patience_s)

    def _write(self, data: bytes) -> None:
        if not self._gone:  # its handler hears of it as a cancellation
            self._transport.write(data)

    def _head(self, status: int, headers: Mapping[str, str], size: str, keeps: bool) -> bytes:
        self._began, self._keeps = True, self._keeps and keeps
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        end = "\r\n" if self._keeps else "connection: close\r\n\r\n"
        text = f"HTTP/1.1 {status} {_REASON.get(status, '')}\r\n{lines}date: {self._listener.date()}\r\n{size}{end}"
        return text.encode("utf-8", "surrogateescape")

    # --- serving ----------------------------------------------------------------------------------------------------

    def _serve_next(self) -> None:
        if self._task is not None or self._lingering or not self._next or self._transport.is_closing():
            return
        request = self._next.popleft()
        self._began, self._chunked, self._keeps = False, False, request.keeps
        self._bodiless = request.method == "HEAD"
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            await self._listener.handler(request, self)
        except Exception as error:
            told = {"message": f"{request.method} {request.path} failed", "exception": error, "protocol": self}
            self._loop.call_exception_handler(told)
            if self._began:
                self.break_off()
            else:
                self.answer(500, {}, b"", keeps=False)
        finally:
            self._task = None
            self._served(request)

    def _served(self, request: Request) -> None:
        """Go on with the next request, once all of this one has come."""
        if self._transport.is_closing():
            return
        if request.complete:
            self._go_on()
        else:
            request.drop()
            self._lingering, self._until = True, self._loop.time() + LINGER_S

    def _go_on(self) -> None:
        if not self._keeps:
            self._close()
            return
        self._until = self._loop.time() + IDLE_S
        if self._ahead:
            held, self._ahead = self._ahead, []
            self._transport.resume_reading()
            self.data_received(b"".join(held))
        self._serve_next()

    def _close(self) -> None:
        """Once everything written is on its way."""
        self._until = self._loop.time() + LINGER_S
        self._transport.close()

    def close_if_idle(self) -> None:
        """No request is under way or has begun to come: the connection is of no use."""
        if self._task is None and (self._deaf or (self._reading is None and not self._next)):
            self._transport.close()

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self._transport.abort()

    def look(self, now: float) -> None:
        """Close it where nothing happened for too long (`now`: loop time)."""
        if self._task is None and now > self._until:
            self._transport.abort()

    # --- what the event loop tells ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._listener.callers.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._task is not None and self._reading is None:
            self._hold(data)
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # not offered: the request is answered as it is, and the connection closed (see `on_headers_complete`)
        except HttpParserError:
            self._refuse(400)
            return
        if self._head_bytes > MAX_HEAD_BYTES and self._reading is not None and not self._reading.method:
            self._refuse(431)
            return
        self._serve_next()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True
        self._listener.callers.discard(self)
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_result(None)
        self._full = None

    def _hold(self, data: bytes) -> None:
        """Bytes of a further request, while one is served."""
        self._ahead.append(data)
        if sum(map(len, self._ahead)) > AHEAD_BYTES:
            self._transport.pause_reading()

    def _refuse(self, status: int) -> None:
        """What comes is not a request, and nobody knows where the next one would begin."""
        self._next.clear()
        if self._task is not None:
            self._close()
            return
        self.answer(status, {}, b"", keeps=False)
        # What the caller still sends is let in for a while: a reset could destroy the answer on its way.
        self._deaf, self._until = True, self._loop.time() + LINGER_S
        self._transport.write_eof()

    # --- what the parser tells --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reading, self._head_bytes, self._url = Request(self._loop), 0, b""
        self._until = self._loop.time() + HEAD_S

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            self._reading.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        request.method = self._parser.get_method().decode()
        request.version = self._parser.get_http_version()
        request.path = self._url.decode("utf-8", "surrogateescape").partition("?")[0]
        request.keeps = (
            request.version == "1.1" and self._parser.should_keep_alive() and not self._parser.should_upgrade()
        )
        self._next.append(request)

    def on_body(self, piece: bytes) -> None:
        if self._reading is not None:
            self._reading.add(piece)

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        request.end()
        if self._lingering:
            self._lingering = False
            self._go_on()


class Listener:
    """A listening socket and the connections that came through it."""

    def __init__(self, handler: Handler, listening: socket.socket) -> None:
        self.handler, self.callers = handler, set[Caller]()
        self.address = listening.getsockname()
        self._socket = listening
        self._loop = asyncio.get_running_loop()
        self._accepting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._date, self._date_at = "", 0
        listening.setblocking(False)

    def start(self) -> None:
        """Accept connections and serve them."""
        self._accept_again()
        self._sweep = self._loop.call_later(SWEEP_S, self._look)

    def stop(self) -> None:
        """Accept nothing more. The connections that are there live on."""
        if self._socket.fileno() >= 0:
            self._accept()  # those that wait already
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def close(self, patience_s: float) -> None:
        """Accept nothing more, give what is under way this long, then close every connection."""
        self.stop()
        if self._sweep is not None:
            self._sweep.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        deadline = self._loop.time() + patience_s
        while self.callers and self._loop.time() < deadline:
            for caller in tuple(self.callers):
                caller.close_if_idle()
            await asyncio.sleep(0.01)
        for caller in tuple(self.callers):
            caller.abort()
        while self.callers:  # their handlers are cancelled
            await asyncio.sleep(0)

    def date(self) -> str:
        """Now, as HTTP writes it."""
        now = int(time.time())
        if now != self._date_at:
            self._date_at, self._date = now, formatdate(now, usegmt=True)
        return self._date

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    raise
                # The socket stays readable: nothing is gained by asking again at once.
                self._loop.remove_reader(self._socket)
                self._loop.call_later(SWEEP_S, self._accept_again)
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._accepted(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _accepted(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: Caller(self), accepted)

    def _look(self) -> None:
        now = self._loop.time()
        for caller in tuple(self.callers):
            caller.look(now)
        self._sweep = self._loop.call_later(SWEEP_S, self._look)
