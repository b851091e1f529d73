"""Every fault, policy, state and kind of request: the right answer, nobody's cloud dialled, nothing left behind.

960 cells over real sockets. What must come out is told in `expected_*`, in another way than the router does it.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import uvloop

from gpu_cutover.errors import InputError
from gpu_cutover.router.table import parse_table

from ..tables import table, tenant
from .client import Got, question
from .faulty import RETRY_AFTER, text_of
from .rig import BIG, ROUTE, STATES, Cell, Outcome, Rig, Seen, small_pools

FAULTS = (
    "status_500",
    "status_429",
    "status_400",
    "refusal",
    "connect_refused",
    "silent",
    "slow_headers",
    "slow_body",
    "cut",
    "stalled",
    "bad_sse_line",
    "empty_200",
    "truncated_json",
    "wrong_content_length",
    "tls_failure",
    "dns_failure",
    "huge_header",
    "body_25mb",
    "slow_client",
    "client_gone",
)
POLICIES = ("standard", "sensitive", "cloud_only", "unknown")
CELLS = [Cell(*values) for values in product(FAULTS, POLICIES, STATES, ROUTE)]
ILLEGAL = {("sensitive", "cloud"), ("sensitive", "mirror"), ("cloud_only", "mirror"), ("cloud_only", "onprem")}

HARMLESS = {"slow_body", "body_25mb", "slow_client"}
STATUS = {"status_429": 429, "status_400": 400}
# Begins well: a stream is already on its way to the caller when it shows; a whole answer is held back until it is one.
WITHIN = {"cut", "stalled", "bad_sse_line", "truncated_json", "wrong_content_length"}
TIMEOUTS = {"silent", "slow_headers", "stalled"}


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.AbstractEventLoop, Rig]]:
    """One event loop in a thread of its own, for all cells that this process runs."""
    patch = small_pools()
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="matrix")
    thread.start()
    made = Rig(tmp_path_factory.mktemp("matrix"))
    running = made.running()
    asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(30)
    yield loop, made
    asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    patch.undo()


def outcome_of(rig: tuple[asyncio.AbstractEventLoop, Rig], cell: Cell) -> Outcome:
    loop, running = rig
    cells = [one for one in CELLS if one.fault == cell.fault and runs(one)]
    return asyncio.run_coroutine_threadsafe(running.group(cell.fault, cells), loop).result(100)[cell]


def runs(cell: Cell) -> bool:
    """Is there anything to run? A sensitive tenant is forged into the state that its table may not say."""
    return (cell.policy, cell.state) not in ILLEGAL or cell.policy == "sensitive"


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(rig: tuple[asyncio.AbstractEventLoop, Rig], cell: Cell) -> None:
    if (cell.policy, cell.state) in ILLEGAL:
        the_table_refuses(cell)
    if not runs(cell):
        return
    outcome = outcome_of(rig, cell)
    assert outcome.leaks == []
    if cell.policy in ("sensitive", "unknown"):
        assert outcome.cloud_dials == 0
    if cell.policy == "unknown":
        assert outcome.onprem_dials == 0
    for name, seen in outcome.requests.items():
        check(cell, name, seen)


def the_table_refuses(cell: Cell) -> None:
    for pool in ("hybrid", "sealed"):
        with pytest.raises(InputError):
            parse_table(table(pool, tenants={"t": tenant(cell.policy, **{ROUTE[cell.kind]: cell.state})}), "t.json")


def check(cell: Cell, name: str, seen: Seen) -> None:
    if cell.policy == "unknown" or (cell.policy == "sensitive" and cell.state != "onprem"):
        refused(seen)
    elif name == "copy":
        answered(cell, seen, "cloud", fault="none")
        the_copy(cell, seen)
    else:
        primary(cell, seen, "onprem" if cell.state == "onprem" else "cloud")


def refused(seen: Seen) -> None:
    """Nobody is asked; the caller is told to come back."""
    assert sum(seen.asked.values()) == 0
    assert [(one["leg"], one["why"]) for one in seen.records] == [(None, "refused")]
    problem(seen.got, 503)


def primary(cell: Cell, seen: Seen, leg: str) -> None:
    may_fall_over = leg == "onprem" and cell.policy == "standard" and cell.kind != "embed"
    assert seen.asked["cloud"] <= (leg == "cloud" or may_fall_over)
    if cell.fault in HARMLESS:
        answered(cell, seen, leg, cell.fault)
    elif gone(cell):
        the_caller_left(seen, leg)
    elif cell.fault in STATUS or (cell.fault == "refusal" and cell.kind in ("embed", "audio")):
        passed_on(seen, leg, STATUS.get(cell.fault, 400))
    elif cell.fault == "refusal":
        answered(cell, seen, leg, cell.fault)
        assert seen.got and seen.got.finish() == "content_filter"
    elif cell.fault in WITHIN and cell.kind == "chat_stream":
        broken_off(cell, seen, leg)
    elif may_fall_over:
        fell_over(cell, seen)
    else:
        failed(cell, seen, leg)


def gone(cell: Cell) -> bool:
    return cell.fault == "client_gone"


def problem(got: Got | None, status: int) -> None:
    assert got
    assert (got.status, got.clean) == (status, True)
    assert got.headers["retry-after"]
    assert "x-served-by" not in got.headers
    assert b"unavailable" in got.body


def answered(cell: Cell, seen: Seen, leg: str, fault: str) -> None:
    """A whole answer of this leg, word for word, to a request that reached it byte for byte."""
    got = seen.got
    assert got
    assert (got.status, got.clean, got.headers["x-served-by"]) == (200, True, leg)
    assert got.text() == text_of(leg, fault)
    if cell.kind == "chat_stream":
        assert got.body.endswith(b"data: [DONE]\n\n")
    first = seen.records[0]
    assert (first["leg"], first["outcome"], first["why"], first["attempt"]) == (leg, "ok", "policy", 0)
    assert first["bytes_out"] == len(got.body)
    assert first["requested_model"] == ("" if cell.kind == "audio" else "mine")
    assert seen.sha256[leg] == expected_sha256(cell.kind, leg, BIG if cell.fault == "body_25mb" else 0)
    assert seen.asked[leg] == 1


@functools.cache
def expected_sha256(kind: str, leg: str, size: int) -> str:
    return hashlib.sha256(expected_body(kind, leg, question(kind, size)[2])).hexdigest()


def expected_body(kind: str, leg: str, body: bytes) -> bytes:
    """What the leg must get: the caller's bytes, with the leg's own name for the model."""
    model = f"{'own' if leg == 'onprem' else 'cloud'}-{ROUTE[kind]}".encode()
    if kind == "audio":
        return b'--matrix\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model + b"\r\n" + body
    renamed = body.replace(b'"mine"', b'"' + model + b'"')
    if kind == "chat" and leg == "onprem":  # asked as a stream, so that its first token can be seen
        streamed = renamed.replace(b'"stream": false', b'"stream": true')
        return streamed.replace(b"{", b'{"stream_options": {"include_usage": true}, ', 1)
    return renamed


def passed_on(seen: Seen, leg: str, status: int) -> None:
    """A refusal is an answer: nobody else is asked."""
    got = seen.got
    assert got
    assert (got.status, got.clean, got.headers["x-served-by"]) == (status, True, leg)
    assert f"said by {leg}".encode() in got.body
    assert got.headers.get("retry-after") == (RETRY_AFTER if status == 429 else None)
    assert [(one["leg"], one["outcome"], one["status"]) for one in seen.records] == [(leg, "refused", status)]


def broken_off(cell: Cell, seen: Seen, leg: str) -> None:
    """What was good of it came, then an error event, then no clean end; nobody else went on with the sentence."""
    got = seen.got
    assert got
    assert (got.status, got.headers["x-served-by"], got.clean) == (200, leg, False)
    good, error, _ = got.body.partition(b"event: error\n")
    assert error
    assert b"[DONE]" not in got.body
    words = Got(200, got.headers, good, False).text()
    assert words == text_of(leg, cell.fault)[: len(words)]
    assert words.startswith(f"{leg}: the ")
    outcome = "timeout" if cell.fault == "stalled" else "error"
    assert [(one["leg"], one["outcome"]) for one in seen.records] == [(leg, outcome)]


def fell_over(cell: Cell, seen: Seen) -> None:
    """The cloud's whole answer, and both attempts on record."""
    got = seen.got
    assert got
    assert (got.status, got.clean, got.headers.get("x-served-by")) == (200, True, "cloud"), seen
    assert got.text() == text_of("cloud", "none")
    told = [(one["attempt"], one["leg"], one["why"], one["outcome"]) for one in seen.records]
    outcome = "timeout" if cell.fault in TIMEOUTS else "error"
    assert told == [(0, "onprem", "policy", outcome), (1, "cloud", "fallback", "ok")]
    assert seen.asked["cloud"] == 1


def failed(cell: Cell, seen: Seen, leg: str) -> None:
    """Nobody else may answer: the caller is told so, and nothing of a half answer."""
    late = cell.fault in TIMEOUTS
    problem(seen.got, 504 if late else 503)
    assert [(one["leg"], one["outcome"]) for one in seen.records] == [(leg, "timeout" if late else "error")]


def the_caller_left(seen: Seen, leg: str) -> None:
    assert [(one["leg"], one["outcome"]) for one in seen.records] == [(leg, "client_gone")]
    assert seen.let_go


def the_copy(cell: Cell, seen: Seen) -> None:
    """The copy met the fault, said that it is a copy, and was recorded; the primary was checked before."""
    copies: list[dict[str, Any]] = [one for one in seen.records if one["why"] == "mirror"]
    assert len(copies) == 1
    fine = cell.fault in HARMLESS or (cell.fault == "refusal" and cell.kind in ("chat", "chat_stream"))
    refusing = cell.fault in STATUS or cell.fault == "refusal"
    expected = "ok" if fine else "refused" if refusing else "timeout" if cell.fault in TIMEOUTS else "error"
    assert (copies[0]["leg"], copies[0]["outcome"]) == ("onprem", expected)
    assert seen.shadow == (seen.asked["onprem"] == 1)


def test_the_cloud_counts_who_dials_it(rig: tuple[asyncio.AbstractEventLoop, Rig]) -> None:
    """The counter that must be zero elsewhere is not zero where the cloud may be asked."""
    cell = Cell("status_500", "standard", "onprem", "chat")
    assert outcome_of(rig, cell).cloud_dials > 0
