"""What a sealed process finds when it tries what it must not reach, and what its router makes of that."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from gpu_cutover.errors import EXIT_USAGE, InputError
from gpu_cutover.router import seal_watch
from gpu_cutover.router.inbound import Caller, Listener, Request
from gpu_cutover.router.main import main
from gpu_cutover.router.metrics import Metrics
from gpu_cutover.router.seal_watch import SealWatch
from gpu_cutover.router.self_test import (
    ANSWERED,
    NO_WAY,
    REFUSED,
    SILENT,
    SelfTest,
    Target,
    judge,
    parse_target,
    try_all,
)

from .tables import table

CLOUD, HERE = Target("192.0.2.1", 443), Target("127.0.0.1", 4000)


@pytest.mark.parametrize(
    ("passed", "outside", "words"),
    [
        ([], {CLOUD: SILENT, HERE: REFUSED}, ""),
        ([], {CLOUD: NO_WAY}, ""),
        ([], {CLOUD: ANSWERED}, "reach 192.0.2.1:443"),
        ([], {CLOUD: REFUSED}, "reach 192.0.2.1:443"),
        ([], {HERE: ANSWERED}, "reach 127.0.0.1:4000"),
        (["127.0.0.1"], {}, "not in force"),
        (["::1"], {CLOUD: SILENT}, "not in force"),
    ],
)
def test_only_a_seal_in_force_without_a_hole_passes(passed: list[str], outside: dict[Target, str], words: str) -> None:
    found = judge(passed, outside)
    assert (words in found) if words else found == ""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("api.example:443", Target("api.example", 443)),
        ("[2001:db8::1]:443", Target("2001:db8::1", 443)),
        ("192.0.2.1:53", Target("192.0.2.1", 53)),
    ],
)
def test_a_target_is_a_host_and_a_port(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert str(target) == text


@pytest.mark.parametrize("text", ["api.example", ":443", "api.example:0", "api.example:https", "192.0.2.1:70000"])
def test_anything_else_is_told(text: str) -> None:
    with pytest.raises(InputError, match="--never"):
        parse_target(text)


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_real_attempts_tell_an_answer_from_a_closed_port_and_an_unknown_name(listening: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        targets = [
            Target("127.0.0.1", listening),
            Target("localhost", listening),
            Target("127.0.0.1", closed.getsockname()[1]),
            Target("nobody.invalid", 443),
        ]
        assert list(try_all(targets).values()) == [ANSWERED, ANSWERED, REFUSED, NO_WAY]


def test_one_attempt_that_hangs_keeps_nobody_waiting() -> None:
    ends = threading.Event()

    def once(_address: str, port: int) -> str:
        if port == 1:
            ends.wait(20)
        return REFUSED

    targets = [Target("127.0.0.1", 1), Target("127.0.0.1", 2)]
    assert try_all(targets, once, patience_s=0.5) == {targets[0]: SILENT, targets[1]: REFUSED}
    ends.set()


def test_a_process_without_a_seal_finds_that_its_canary_passes() -> None:
    assert "not in force" in SelfTest((), 9).look()


@pytest.mark.parametrize("words", [[], ["--never", "192.0.2.1:443"], ["--canary", "9"]])
def test_a_sealed_router_that_has_nothing_to_test_its_seal_by_does_not_start(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sealed.json"
    path.write_text(json.dumps(table("sealed")))
    arguments = ["--table", str(path), "--pool", "sealed", "--port", "1", "--metrics-port", "2", *words]
    assert main(arguments) == EXIT_USAGE
    assert "has nothing to test its seal by" in capsys.readouterr().err


# --- going on ---------------------------------------------------------------------------------------------------------


class Finds:
    """A test whose findings are told beforehand: `canary` and `outside` are what each kind of look comes to."""

    def __init__(self) -> None:
        self.canary, self.outside = "", ""
        self.looks: list[bool] = []

    def look(self, thorough: bool = True) -> str:
        self.looks.append(thorough)
        return self.canary or (self.outside if thorough else "")


async def watched(finds: Finds, steps: list[tuple[str, str, str]]) -> list[bool]:
    """For each (canary, outside) the watch comes to know `problem`. Returns the kinds of look it took."""
    watch = SealWatch(finds, Metrics("sealed"), health)  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(20):
            for finds.canary, finds.outside, problem in steps:
                while watch.problem != problem:
                    await asyncio.sleep(0.001)
    finally:
        running.cancel()
    return finds.looks


def test_a_hole_is_found_by_the_thorough_look_and_only_such_a_look_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_watch, "CANARY_EVERY_S", 0.001)
    monkeypatch.setattr(seal_watch, "THOROUGH_EVERY_S", 0.05)
    looks = asyncio.run(watched(Finds(), [("", "", ""), ("", "reached", "reached"), ("", "", "")]))
    first = looks.index(True)
    assert looks[:first] == [False] * first and first > 0


def test_a_lost_seal_is_found_between_two_thorough_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_watch, "CANARY_EVERY_S", 0.001)
    looks = asyncio.run(
        watched(Finds(), [("", "", ""), ("gone", "", "gone"), ("", "reached", "reached"), ("", "", "")])
    )
    assert True in looks


async def asked(watch: SealWatch, path: str) -> int:
    async def handler(_request: Request, caller: Caller) -> None:
        caller.answer(200, {}, b"as always")

    listener = Listener(watch.guarded(handler), socket.create_server(("127.0.0.1", 0)))
    listener.start()
    reader, writer = await asyncio.open_connection(*listener.address)
    writer.write(f"GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await listener.close(1)
    assert (b"as always" in answer) == (answer.split()[1] == b"200")
    return int(answer.split()[1])


def health() -> tuple[str, bytes]:
    return "application/json", json.dumps({"status": "ok", "problems": ["another"], "table_version": 7}).encode()


@pytest.mark.parametrize(
    ("problem", "path", "status"),
    [("", "/chat", 200), ("", "/health", 200), ("x", "/chat", 503), ("x", "/health", 503), ("x", "/metrics", 200)],
)
def test_while_unsealed_only_metrics_are_as_always(problem: str, path: str, status: int) -> None:
    metrics = Metrics("sealed")
    watch = SealWatch(Finds(), metrics, health)  # type: ignore[arg-type]
    watch.problem = problem
    assert asyncio.run(asked(watch, path)) == status
    turned_away = b'turned_away_total{reason="unsealed"} 1.0' in generate_latest(metrics.registry)
    assert turned_away == (status == 503 and path == "/chat")
