"""The breaker: opens on a share of errors with a minimum count, probes, closes, and is not shut by old answers."""

from __future__ import annotations

from gpu_cutover.router.breaker import CLOSE_AFTER, Breaker, Breakers
from gpu_cutover.router.table import Fallback, parse_table

from .tables import table

LIMITS = Fallback(first_byte_s=10, error_rate=0.05, window_s=60, minimum_requests=20, open_s=30)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(20):
        breaker.record(at, False)
    assert breaker.opened_at == at
    return breaker


def test_a_few_errors_below_the_minimum_count_do_not_open_it() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(19):
        assert not breaker.record(0, False)
    assert breaker.permits(0)


def test_three_percent_errors_leave_it_closed_and_ten_percent_open_it() -> None:
    steady = Breaker(LIMITS)
    for number in range(200):
        steady.record(number / 10, number % 33 != 32)
    assert steady.permits(20)
    failing = Breaker(LIMITS)
    for number in range(200):
        failing.record(number / 10, number % 10 != 9)
    assert not failing.permits(20)


def test_old_errors_leave_the_window() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(10):
        breaker.record(0, False)
    for _ in range(10):
        breaker.record(61, True)
    assert not breaker.record(61, False)
    assert breaker.permits(61)


def test_while_open_nothing_passes_then_one_probe_a_second() -> None:
    breaker = opened()
    assert not breaker.permits(29.9)
    assert breaker.permits(30)
    breaker.started(30)
    assert not breaker.permits(30.5)
    assert breaker.permits(31.1)


def test_good_probes_close_it_and_a_bad_one_opens_it_anew() -> None:
    breaker = opened()
    for number in range(CLOSE_AFTER):
        now = 30.0 + 2 * number
        breaker.started(now)
        closed = breaker.record(now + 0.1, True)
    assert closed
    assert breaker.permits(40)
    again = opened()
    again.started(30)
    again.record(30.1, False)
    assert not again.permits(59)


def test_an_answer_from_before_the_opening_does_not_close_it() -> None:
    breaker = opened(at=100)
    for _ in range(CLOSE_AFTER):
        breaker.record(100.5, True)
    assert not breaker.permits(101)


TABLE = parse_table(table(), "t.json")


def failing() -> Breakers:
    breakers = Breakers()
    for _ in range(20):
        breakers.record(TABLE, "own-chat", 0.0, False)
    return breakers


def test_only_the_model_that_failed_is_closed_to() -> None:
    assert failing().closed_to({}, 1.0) == {"own-chat"}
    assert failing().names_open({}) == ["own-chat"]


def test_an_operators_word_beats_the_figures_in_both_directions() -> None:
    overrides = {"own-chat": "closed", "own-embed": "open"}
    assert failing().closed_to(overrides, 1.0) == {"own-embed"}
    assert failing().names_open(overrides) == ["own-embed"]


def test_a_successor_goes_on_where_its_predecessor_was() -> None:
    breakers = failing()
    breakers.started(TABLE, "own-chat", 30.0)
    breakers.record(TABLE, "own-chat", 30.1, True)
    successor = Breakers()
    successor.restore(TABLE.fallback, breakers.snapshot())
    assert successor.closed_to({}, 29.0) == {"own-chat"}
    for number in range(CLOSE_AFTER - 1):
        assert successor.closed_to({}, 32.0 + 2 * number) == frozenset()
        successor.started(TABLE, "own-chat", 32.0 + 2 * number)
        successor.record(TABLE, "own-chat", 32.1 + 2 * number, True)
    assert successor.names_open({}) == []
    assert Breakers().snapshot() == {}
