"""Time left."""

from __future__ import annotations

import pytest

from gpu_cutover.runs.eta import ago, clock, declared_s, remaining_s

EARLIER = [["a", 0.0], ["b", 10.0], ["c", 30.0]]


@pytest.mark.parametrize(
    ("position", "left"),
    [(0, 95.0), (1, 80.0), (2, 35.0)],
)
def test_what_the_last_run_still_had_to_do(position: int, left: float) -> None:
    assert remaining_s(5.0, position, EARLIER, 100.0, 9999.0) == left


def test_without_an_earlier_run_the_declared_waits_are_the_floor() -> None:
    assert remaining_s(100.0, 3, None, 0.0, 86400.0) == 86300.0
    assert remaining_s(100.0, 3, EARLIER, 100.0, 60.0) == 0.0
    assert remaining_s(100.0, 3, None, 0.0, None) is None


def test_only_days_with_declared_waits_have_one() -> None:
    durations = {"burn_in_s": 86400, "mirror_s": 28800, "watch_s": "a day"}
    assert [declared_s(day, durations) for day in (1, 6, 8, 9, None)] == [None, 86400.0, 28800.0, None, None]


def test_clock_and_ago() -> None:
    assert [clock(s) for s in (0, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]
    assert [ago(s) for s in (-1, 20, 180, 7200, 90000, 400000)] == ["0 s", "20 s", "3 min", "2 h", "25 h", "5 days"]
