"""The callers' side of HTTP/1.1, byte by byte over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from gpu_cutover.router import inbound
from gpu_cutover.router.inbound import Caller, Listener, Request

GET = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /%b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"


def post(path: bytes, body: bytes) -> bytes:
    return POST % (path, len(body), body)


async def echo(request: Request, caller: Caller) -> None:
    """What was asked, as an answer."""
    body = await caller.read(request, 5)
    caller.answer(200, {"x-method": request.method}, request.path.encode() + b"|" + body)


@contextlib.asynccontextmanager
async def listening(handler: inbound.Handler = echo) -> AsyncIterator[Listener]:
    listener = Listener(handler, socket.create_server(("127.0.0.1", 0)))
    listener.start()
    try:
        yield listener
    finally:
        await listener.close(1)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def closed(self) -> bytes:
        """What still comes before the connection ends."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection(*listener.address))
    try:
        yield client
    finally:
        client.writer.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_requests_on_one_connection_are_answered_in_order_however_they_are_cut(cut: int) -> None:
    async def test() -> None:
        async with listening() as listener, connected(listener) as client:
            bodies = [b"", b"a" * 30, b"\r\n\r\nGET / HTTP/1.1"]
            sent = b"".join(post(b"%d?x=1" % number, body) for number, body in enumerate(bodies))
            for start in range(0, len(sent), cut):
                client.send(sent[start : start + cut])
                await asyncio.sleep(0)
            for number, body in enumerate(bodies):
                assert (await client.answer())[2] == b"/%d|%b" % (number, body)

    run(test)


def test_a_request_that_comes_while_another_is_served_waits_for_it() -> None:
    order: list[str] = []

    async def slow(request: Request, caller: Caller) -> None:
        order.append(f"{request.path} begins")
        await asyncio.sleep(0.1)
        order.append(f"{request.path} ends")
        caller.answer(200, {}, b"")

    async def test() -> None:
        async with listening(slow) as listener, connected(listener) as client:
            client.send(GET % b"1")
            await asyncio.sleep(0.03)
            client.send(GET % b"2" + (GET % b"3")[:9])
            await client.answer()
            client.send((GET % b"3")[9:])
            await client.answer()
            await client.answer()
            assert order == [f"/{number} {word}" for number in (1, 2, 3) for word in ("begins", "ends")]

    run(test)


def test_a_caller_cannot_send_without_end_while_it_is_served() -> None:
    async def never(_request: Request, _caller: Caller) -> None:
        await asyncio.sleep(60)

    async def test() -> None:
        async with listening(never) as listener, connected(listener) as client:
            client.send(GET % b"1")
            await asyncio.sleep(0.05)
            for _ in range(100):
                client.send(b"x" * 1_000_000)
            await asyncio.sleep(0.3)
            [caller] = listener.callers
            assert sum(map(len, caller._ahead)) < 1_000_000

    run(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx-tenant: a\r\n b\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def test() -> None:
        async with listening() as listener, connected(listener) as client:
            client.send(sent)
            told, headers, _ = await client.answer()
            assert (told, headers["connection"]) == (status, "close")
            assert await client.closed() == b""

    run(test)


def test_a_head_without_end_is_refused() -> None:
    async def test() -> None:
        async with listening() as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\n")
            for number in range(20):
                client.send(b"x-%d: %b\r\n" % (number, b"y" * 5000))
                await asyncio.sleep(0.001)
            assert (await client.answer())[0] == 431

    run(test)


def test_the_first_of_two_headers_of_a_name_counts() -> None:
    async def test() -> None:
        async def tell(request: Request, caller: Caller) -> None:
            caller.answer(200, {}, request.header(b"x-tenant").encode())

        async with listening(tell) as listener, connected(listener) as client:
            client.send(b"GET / HTTP/1.1\r\nX-Tenant: edge\r\nx-tenant: forged\r\n\r\n")
            assert (await client.answer())[2] == b"edge"

    run(test)


def test_a_caller_that_waits_for_the_word_gets_it() -> None:
    async def test() -> None:
        async with listening() as listener, connected(listener) as client:
            client.send(b"POST /a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"ok")
            assert (await client.answer())[2] == b"/a|ok"

    run(test)


def test_a_body_that_nobody_reads_is_let_in_and_the_connection_lives_on() -> None:
    async def refuse(request: Request, caller: Caller) -> None:
        caller.answer(413 if request.method == "POST" else 200, {}, b"")

    async def test() -> None:
        async with listening(refuse) as listener, connected(listener) as client:
            client.send(post(b"a", b"x" * 5_000_000) + GET % b"b")
            assert (await client.answer())[0] == 413
            assert (await client.answer())[0] == 200

    run(test)


def test_a_caller_that_goes_away_cancels_its_request() -> None:
    ended = asyncio.Event()

    async def wait(_request: Request, _caller: Caller) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def test() -> None:
        async with listening(wait) as listener:
            async with connected(listener) as client:
                client.send(GET % b"a")
                await asyncio.sleep(0.05)
                assert not ended.is_set()
            await ended.wait()

    run(test)


def test_what_is_written_to_a_caller_that_has_gone_is_nobodys() -> None:
    told: list[object] = []

    async def late(_request: Request, caller: Caller) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            caller.answer(200, {}, b"late")
            caller.break_off()
            raise

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with listening(late) as listener:
            async with connected(listener) as client:
                client.send(GET % b"a")
                await asyncio.sleep(0.05)
            while listener.callers:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
        assert told == []

    run(test)


@pytest.mark.parametrize("begun", [False, True])
def test_a_defect_is_told_and_is_never_a_whole_answer(begun: bool) -> None:
    told: list[object] = []

    async def broken(_request: Request, caller: Caller) -> None:
        if begun:
            caller.begin(200, {}, None)
            caller.write(b"half")
        raise ZeroDivisionError

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with listening(broken) as listener, connected(listener) as client:
            client.send(GET % b"a")
            answer = await client.closed()
            assert answer.startswith(b"HTTP/1.1 200" if begun else b"HTTP/1.1 500")
            assert b"0\r\n\r\n" not in answer.partition(b"\r\n\r\n")[2]
            assert [type(one) for one in told] == [ZeroDivisionError]

    run(test)


def test_old_callers_and_those_that_want_to_upgrade_get_one_answer() -> None:
    async def test() -> None:
        async with listening() as listener:
            for request in (
                b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
                b"GET /a HTTP/1.1\r\nconnection: close\r\n\r\n",
                b"GET /a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            ):
                async with connected(listener) as client:
                    client.send(request)
                    status, headers, body = await client.answer()
                    assert (status, headers["connection"], body) == (200, "close", b"/a|")
                    assert await client.closed() == b""

    run(test)


def test_a_question_for_the_head_alone_gets_no_body() -> None:
    async def test() -> None:
        async with listening() as listener, connected(listener) as client:
            client.send(b"HEAD /a HTTP/1.1\r\n\r\n" + GET % b"b")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 3" in head
            assert (await client.answer())[2] == b"/b|"

    run(test)


def test_a_connection_without_a_request_and_one_with_half_a_head_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "SWEEP_S", 0.02)
    monkeypatch.setattr(inbound, "IDLE_S", 0.1)
    monkeypatch.setattr(inbound, "HEAD_S", 0.1)

    async def test() -> None:
        async with listening() as listener:
            for sent in (b"", b"GET / HT", GET % b"a"):
                async with connected(listener) as client:
                    client.send(sent)
                    assert (b"/a|" in await client.closed()) == (sent == GET % b"a")

    run(test)


def test_a_listener_that_closes_lets_what_is_under_way_end() -> None:
    async def slow(_request: Request, caller: Caller) -> None:
        await asyncio.sleep(0.2)
        caller.answer(200, {}, b"whole")

    async def test() -> None:
        async with listening(slow) as listener, connected(listener) as busy, connected(listener) as idle:
            busy.send(GET % b"a")
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(listener.close(5))
            assert await idle.closed() == b""
            assert (await busy.answer())[2] == b"whole"
            await closing
            with pytest.raises(OSError):
                await asyncio.open_connection(*listener.address)

    run(test)


def test_an_answer_in_pieces_is_chunked_or_has_its_length() -> None:
    async def pieces(request: Request, caller: Caller) -> None:
        length = 6 if request.path == "/length" else None
        caller.begin(200, {}, length)
        for piece in (b"abc", b"", b"def"):
            caller.write(piece)
        caller.end()

    async def test() -> None:
        async with listening(pieces) as listener, connected(listener) as client:
            client.send(GET % b"length" + GET % b"chunks")
            assert (await client.answer())[2] == b"abcdef"
            assert b"transfer-encoding: chunked" in await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"

    run(test)
