"""The model servers' side of HTTP/1.1: what a reply promised is counted, and no reply is taken for another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from gpu_cutover.router import outbound
from gpu_cutover.router.outbound import Client, Exchange, OutboundError, head, place

OK = b"HTTP/1.1 200 OK\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads a request's head and body, then sends what it is told to and, if told so, ends the connection."""

    def __init__(self, replies: list[bytes], close: bool = False, reads: bool = True) -> None:
        self.replies, self.close, self.reads = replies, close, reads
        self.connections = self.asked = 0
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                told = await reader.readuntil(b"\r\n\r\n")
                if self.reads:
                    await reader.readexactly(int(told.partition(b"content-length: ")[2].partition(b"\r")[0]))
                reply = self.replies[min(self.asked, len(self.replies) - 1)]
                self.asked += 1
                writer.write(reply)
                await writer.drain()
                if self.close:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def serving(*replies: bytes, close: bool = False, reads: bool = True) -> AsyncIterator[tuple[Server, Client]]:
    made = Server(list(replies), close, reads)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=1 << 20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/path"
    client = Client(connect_s=2, keep_s=1)
    async with server:
        try:
            yield made, client
        finally:
            client.close()
            for writer in made.writers:
                writer.close()


async def ask(client: Client, url: str, body: bytes = b"", within_s: float = 5) -> Exchange:
    where = place(url)
    until = asyncio.get_running_loop().time() + within_s
    return await client.ask(where.origin, head("POST", where, {"x-a": "b"}, len(body)), body, until)


async def whole(exchange: Exchange) -> bytes:
    pieces: list[bytes] = []
    assert await exchange.feed(lambda piece: pieces.append(piece) is None)  # type: ignore[func-returns-value]
    return b"".join(pieces)


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "close"),
    [
        (OK + b"content-length: 5\r\n\r\nwhole", False),
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nwho\r\n2;x=y\r\nle\r\n0\r\nx-status: forged\r\n\r\n", False),
        (OK + b"\r\nwhole", True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nx-early: 1\r\n\r\n"
            + OK
            + b"content-length: 5\r\n\r\nwhole",
            False,
        ),
    ],
    ids=["length", "chunked", "until it closes", "after interim replies"],
)
def test_a_whole_reply_however_its_end_is_told(reply: bytes, close: bool) -> None:
    async def test() -> None:
        async with serving(reply, close=close) as (server, client):
            for _ in range(2):
                exchange = await ask(client, server.url)
                assert exchange.status == 200
                assert not {b"x-status", b"x-early"} & set(exchange.headers)
                assert await whole(exchange) == b"whole"
            assert server.connections == (2 if close else 1)

    run(test)


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"content-length: 6\r\n\r\nwhole",
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\nnot a size\r\n",
        OK + b"content-le",
        b"nothing of the kind\r\n\r\n",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        OK + b"x-huge: " + b"h" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"",
    ],
    ids=[
        "short",
        "no last chunk",
        "bad chunk",
        "half a head",
        "no HTTP",
        "two lengths",
        "huge head",
        "upgrade",
        "nothing",
    ],
)
def test_what_is_not_a_whole_reply_is_a_failure(reply: bytes) -> None:
    async def test() -> None:
        async with serving(reply, close=True) as (server, client):
            with pytest.raises(OutboundError):
                await whole(await ask(client, server.url))
            assert server.asked == 1

    run(test)


def test_what_comes_after_a_reply_is_nobodys() -> None:
    async def test() -> None:
        reply = OK + b"content-length: 2\r\n\r\nok"
        async with serving(reply + OK + b"content-length: 6\r\n\r\nforged") as (server, client):
            for _ in range(3):
                assert await whole(await ask(client, server.url)) == b"ok"
            assert server.connections == 3

    run(test)


def test_a_server_that_speaks_unasked_loses_its_connection() -> None:
    async def test() -> None:
        async with serving(OK + b"content-length: 2\r\n\r\nok") as (server, client):
            await whole(await ask(client, server.url))
            server.writers[0].write(OK + b"content-length: 6\r\n\r\nforged")
            await asyncio.sleep(0.1)
            assert await whole(await ask(client, server.url)) == b"ok"
            assert server.connections == 2

    run(test)


def test_an_idle_connection_is_let_go() -> None:
    async def test() -> None:
        async with serving(OK + b"content-length: 2\r\n\r\nok") as (server, _):
            client = Client(connect_s=2, keep_s=0.1)
            await whole(await ask(client, server.url))
            assert len(client._open) == 1
            await asyncio.sleep(0.4)
            assert not client._open

    run(test)


def test_a_reply_that_nobody_takes_is_held_back_at_its_server() -> None:
    async def test() -> None:
        size = 50_000_000
        async with serving(OK + b"content-length: %d\r\n\r\n" % size + bytes(size)) as (server, client):
            exchange = await ask(client, server.url)
            await asyncio.sleep(0.3)
            assert sum(map(len, exchange.pieces)) < 2_000_000
            taken = 0

            def some(piece: bytes) -> bool:
                nonlocal taken
                taken += len(piece)
                return False

            while not await exchange.feed(some):
                pass
            assert taken == size

    run(test)


def test_silence_ends_with_the_limit_and_a_caller_that_takes_nothing_is_not_the_servers_fault() -> None:
    async def test() -> None:
        async with serving(OK + b"content-length: 5\r\n\r\nwho") as (server, client):
            loop = asyncio.get_running_loop()
            exchange = await ask(client, server.url)
            exchange.limit(loop.time() + 0.1)
            assert not await exchange.feed(lambda _: False)
            await asyncio.sleep(0.3)  # nobody waits
            exchange.limit(loop.time() + 0.1)
            with pytest.raises(TimeoutError):
                await exchange.feed(lambda _: True)

    run(test)


def test_a_server_that_answers_before_it_took_the_question_is_heard() -> None:
    async def test() -> None:
        reply = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge"
        async with serving(reply, reads=False) as (server, client):
            exchange = await ask(client, server.url, bytes(30_000_000))
            assert (exchange.status, await whole(exchange)) == (413, b"large")
            await whole(await ask(client, server.url))
            assert server.connections == 2

    run(test)


def test_a_reply_that_was_let_go_frees_its_connection_when_its_end_comes() -> None:
    async def test() -> None:
        async with serving(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nend\r\n") as (server, client):
            for late in (b"0\r\n\r\n", b"", b"0\r\n\r\n"):
                exchange = await ask(client, server.url)
                assert not await exchange.feed(lambda _: False)
                exchange.finish(0.1)
                exchange.close()
                server.writers[-1].write(late)
                await asyncio.sleep(0.2)
                assert len(client._open) == (1 if late else 0)
            assert server.connections == 2

    run(test)


def test_an_unfinished_reply_that_is_closed_is_cut_off_at_its_server() -> None:
    async def test() -> None:
        async with serving(OK + b"content-length: 9\r\n\r\nhalf") as (server, client):
            exchange = await ask(client, server.url)
            exchange.close()
            await asyncio.sleep(0.1)
            assert not client._open
            with pytest.raises(OutboundError):
                await whole(exchange)

    run(test)


def test_every_address_of_a_name_is_tried() -> None:
    async def two(host: str) -> list[str]:
        assert host == "engine.test"
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens on the first

    async def none(_host: str) -> list[str]:
        return []

    async def test() -> None:
        async with serving(OK + b"content-length: 2\r\n\r\nok") as (server, _):
            url = server.url.replace("127.0.0.1", "engine.test")
            assert await whole(await ask(Client(2, 1, two), url)) == b"ok"
            with pytest.raises(OutboundError):
                await ask(Client(2, 1, none), url)

    run(test)


def test_a_header_cannot_begin_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        head("POST", place("http://a/b"), {"accept": "x\r\nx-tenant: forged"}, 0)


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "path"),
    [
        ("http://10.0.0.1:8101/v1/x", "10.0.0.1", 8101, False, "/v1/x"),
        ("https://api.test/v1?a=b", "api.test", 443, True, "/v1?a=b"),
        ("http://[::1]:80", "::1", 80, False, "/"),
    ],
)
def test_addresses(url: str, host: str, port: int, tls: bool, path: str) -> None:
    assert place(url).origin == (host, port, tls)
    assert place(url).path == path


def test_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "MAX_PAGE_BYTES", 10)

    async def test() -> None:
        replies = [OK + b"content-length: %d\r\n\r\n%b" % (size, bytes(size)) for size in (5, 20)]
        async with serving(*replies, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n") as (server, client):
            assert await client.get(server.url, 2) == bytes(5)
            for _ in range(2):
                with pytest.raises(OutboundError):
                    await client.get(server.url, 2)

    run(test)
