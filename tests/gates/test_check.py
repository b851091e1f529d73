"""A check passes only on a real figure; a verdict promotes only on checks that all passed."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.gates.check import (
    FAIL,
    PASS,
    UNPROVEN,
    Check,
    Status,
    Verdict,
    at_least,
    at_most,
    equals,
    reading_of,
    unproven,
    verdict_of,
)

NO_FIGURE = st.one_of(
    st.none(),
    st.just(math.nan),
    st.sampled_from([math.inf, -math.inf]),
    st.booleans(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))


def check_with(status: Status) -> Check:
    return Check("x", status, 1, "", 1, "test", "a sentence")


@given(figure=NO_FIGURE, limit=NUMBERS)
def test_a_missing_figure_never_passes(figure: Any, limit: float) -> None:
    assert at_least("x", figure, limit, "s", "test", "s").status == UNPROVEN
    assert at_most("x", figure, limit, "s", "test", "s").status == UNPROVEN


@given(figure=NUMBERS, limit=NO_FIGURE)
def test_a_missing_limit_never_passes(figure: float, limit: Any) -> None:
    assert at_least("x", figure, limit, "s", "test", "s").status == UNPROVEN
    assert at_most("x", figure, limit, "s", "test", "s").status == UNPROVEN


@given(figure=NUMBERS, limit=NUMBERS)
def test_bounds_judge_as_written(figure: float, limit: float) -> None:
    assert at_least("x", figure, limit, "s", "test", "s").status == (PASS if figure >= limit else FAIL)
    assert at_most("x", figure, limit, "s", "test", "s").status == (PASS if figure <= limit else FAIL)


@given(figure=st.one_of(st.none(), st.just(math.nan), st.just(""), st.just(math.inf), st.lists(st.integers())))
def test_nothing_equals_nothing_is_unproven(figure: Any) -> None:
    assert equals("x", figure, figure).status == UNPROVEN
    assert equals("x", figure, "580.105.08").status == UNPROVEN
    assert equals("x", "580.105.08", figure).status == UNPROVEN


@pytest.mark.parametrize(
    ("figure", "limit", "status"),
    [
        ("580", "580", PASS),
        ("580", "581", FAIL),
        (4, 4, PASS),
        (4, 4.0, PASS),
        (4, 3, FAIL),
        (True, True, PASS),
        (True, 1, FAIL),
        (0, 0, PASS),
    ],
)
def test_equals(figure: Any, limit: Any, status: Status) -> None:
    assert equals("x", figure, limit).status == status


def test_the_reason_for_a_missing_figure_is_in_the_sentence() -> None:
    check = at_least("x", None, 3, "s", "test", "Answers are fast", why="the probe hung for 10 s")
    assert check.sentence == "Answers are fast (not proven: the probe hung for 10 s)"
    assert (check.limit, check.unit) == (3, "s")


def test_an_undeclared_limit_is_named_as_the_reason() -> None:
    assert "no limit declared" in at_least("x", 5, None, "s", "test", "Fast").sentence


@pytest.mark.parametrize("statuses", list(product([PASS, FAIL, UNPROVEN], repeat=3)))
def test_verdict_over_all_triples(statuses: tuple[Status, ...]) -> None:
    expected = Verdict.FAIL if FAIL in statuses else Verdict.HOLD if UNPROVEN in statuses else Verdict.PROMOTE
    assert verdict_of(check_with(status) for status in statuses) == expected


def test_no_checks_at_all_hold() -> None:
    assert verdict_of([]) == Verdict.HOLD


def test_exit_codes() -> None:
    assert [verdict.exit_code for verdict in (Verdict.PROMOTE, Verdict.HOLD, Verdict.FAIL)] == [0, 10, 20]


@given(figure=st.one_of(NUMBERS, NO_FIGURE), limit=NUMBERS)
def test_a_check_survives_json_without_nan(figure: Any, limit: float) -> None:
    check = at_most("x", figure, limit, "s", "test", "s", host="gpu1")
    assert Check.from_dict(json.loads(json.dumps(check.as_dict(), allow_nan=False))) == check


def test_line_is_readable() -> None:
    check = at_least("nccl.busbw", 3.2, 15.0, "GB/s", "test", "All-reduce over 4 GPUs", host="gpu1")
    assert check.line() == "fail     nccl.busbw [gpu1]: 3.2 GB/s (at least 15 GB/s) - All-reduce over 4 GPUs"


@pytest.mark.parametrize(
    ("readings", "why"),
    [
        ({}, "no reading of driver from gpu1"),
        ({"driver": {}}, "no reading of driver from gpu1"),
        ({"driver": None}, "no reading of driver from gpu1"),
        ({"driver": {"gpu1": {}}}, "no reading of driver from gpu1"),
        ({"driver": {"gpu1": {"error": "hung", "loaded": "580"}}}, "hung"),
        ({"driver": {"gpu1": {"loaded": "580"}}}, ""),
    ],
)
def test_reading_of(readings: dict[str, Any], why: str) -> None:
    reading, reason = reading_of(readings, "driver", "gpu1")
    assert reason == why
    assert bool(reading) == (not why)


def test_unproven_states_its_reason() -> None:
    assert unproven("x", "test", "Thing", "gpu1", "dcgmi skipped it").sentence.endswith(
        "(not proven: dcgmi skipped it)"
    )
