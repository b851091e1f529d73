"""Answers are compared in a process of their own, which never holds up the router and never outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from gpu_cutover.router import comparing
from gpu_cutover.router.comparing import Comparer, DroppedError, Pair

JSON = "application/json"


def pair(text: str, other: str | None = None) -> Pair:
    def answer(words: str) -> bytes:
        return b'{"choices": [{"message": {"content": "%b"}, "finish_reason": "stop"}]}' % words.encode()

    return Pair("text", b"{}", (answer(text), JSON), (answer(other or text), JSON))


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


def child_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(one) for one in children if b"compare_process" in Path(f"/proc/{one}/cmdline").read_bytes())


def test_each_pair_gets_its_own_scores() -> None:
    async def test() -> None:
        comparer = Comparer()
        others = ["the patient takes 500 mg", "nothing of the kind at all"] * 10
        results = await asyncio.gather(*(comparer.compare(pair("the patient takes 500 mg", one)) for one in others))
        likeness = [result["scores"]["likeness"] for result in results if result]
        assert likeness[0] > likeness[1]
        assert likeness == likeness[:2] * 10
        await comparer.stop()

    run(test)


def test_a_missing_answer_on_prem_is_the_worst_and_one_of_the_cloud_is_no_comparison() -> None:
    async def test() -> None:
        comparer = Comparer()
        cloud, onprem = pair("words").cloud, (b"", "")
        worst = await comparer.compare(Pair("text", b"{}", cloud, onprem))
        assert worst
        assert set(worst["scores"].values()) == {0.0}
        assert await comparer.compare(Pair("text", b"{}", onprem, cloud)) is None
        await comparer.stop()

    run(test)


def test_it_has_the_lowest_priority_and_ends_with_its_router() -> None:
    program = (
        "import asyncio\nfrom gpu_cutover.router.comparing import Comparer, Pair\n"
        "async def main():\n"
        "    await Comparer().compare(Pair('text', b'{}', (b'', ''), (b'', '')))\n"
        "    print('ready', flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    router = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert router.stdout
    assert router.stdout.readline() == b"ready\n"
    child = child_of(router.pid)
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    router.kill()
    router.wait()
    router.stdout.close()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_does_not_fit_is_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_WAITING_BYTES", 3_000_000)

    async def test() -> None:
        comparer = Comparer()
        await comparer.compare(pair("a"))
        os.kill(child_of(os.getpid()), signal.SIGSTOP)
        large = pair("x" * 500_000)
        waiting = [asyncio.create_task(comparer.compare(large)) for _ in range(20)]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        assert len(done) >= 16
        assert all(isinstance(one.exception(), DroppedError) for one in done)
        await comparer.stop()
        assert all(isinstance(one, DroppedError) for one in await asyncio.gather(*waiting, return_exceptions=True))

    run(test)


def test_it_is_started_again_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "RESTART_S", 0.01)

    async def test() -> None:
        comparer = Comparer()
        assert await comparer.compare(pair("a"))
        child = child_of(os.getpid())
        os.kill(child, signal.SIGSTOP)
        lost = asyncio.create_task(comparer.compare(pair("a")))
        await asyncio.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(DroppedError):
            await lost
        await asyncio.sleep(0.1)
        assert await comparer.compare(pair("a"))
        await comparer.stop()

    run(test)


def test_a_comparison_that_takes_too_long_is_given_up_and_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_CPU_S", 0.2)
    monkeypatch.setattr(comparing, "RESTART_S", 0.01)

    async def test() -> None:
        comparer = Comparer()
        with pytest.raises(DroppedError):
            await comparer.compare(pair("ab" * 4_000_000, "ba c" * 2_000_000))  # in one call of a library
        await asyncio.sleep(0.1)
        assert await comparer.compare(pair("a"))
        await comparer.stop()

    run(test)
