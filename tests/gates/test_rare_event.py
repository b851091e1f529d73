"""E-processes for rates: the promised error holds under constant looking, and they decide soon enough to be used."""

from __future__ import annotations

import math
import random
import time

import pytest

from gpu_cutover.gates.sequential import RareEvent, observations_needed, over_target, rare_event

ALPHA = 0.01
STREAMS = 150
ERROR_WITH_SLACK = 0.05 + 4 * math.sqrt(0.05 * 0.95 / STREAMS)  # four standard errors of the simulation


def stream(rate: float, count: int, seed: int) -> list[bool]:
    source = random.Random(seed)
    return [source.random() < rate for _ in range(count)]


def share_of(verdict: str, rate: float, streams: int, count: int, alpha: float) -> float:
    """Share of seeded streams that ever reach `verdict`: the evidence is kept at its maximum, so the end tells."""
    verdicts = [rare_event(stream(rate, count, seed), 0.05).verdict(alpha) for seed in range(streams)]
    return verdicts.count(verdict) / streams


@pytest.mark.parametrize("rate", [0.05, 0.06, 0.10])
def test_a_rate_at_or_over_the_limit_is_rarely_promoted(rate: float) -> None:
    """The promise is alpha, however often one looks: here after each of 400 observations."""
    assert share_of("pass", rate, STREAMS, 400, 0.05) <= ERROR_WITH_SLACK


@pytest.mark.parametrize("rate", [0.05, 0.04, 0.01])
def test_a_rate_at_or_under_the_limit_is_rarely_failed(rate: float) -> None:
    assert share_of("fail", rate, STREAMS, 400, 0.05) <= ERROR_WITH_SLACK


def test_a_much_rarer_event_is_nearly_always_promoted() -> None:
    assert share_of("pass", 0.01, 60, 600, ALPHA) >= 0.95


def test_a_much_more_frequent_event_is_nearly_always_failed() -> None:
    assert share_of("fail", 0.20, 60, 300, ALPHA) >= 0.95


def test_too_few_observations_prove_nothing() -> None:
    assert rare_event([], 0.05).verdict(ALPHA) == "unproven"
    assert rare_event([False] * 30, 0.05).verdict(ALPHA) == "unproven"


def test_how_many_clean_observations_prove_it() -> None:
    needed = observations_needed(0.05, ALPHA)
    assert 92 <= needed <= 140  # 92 is the least any test can do: 0.95^n <= 0.01 needs 90
    assert rare_event([False] * needed, 0.05).verdict(ALPHA) == "pass"
    assert rare_event([False] * (needed - 1), 0.05).verdict(ALPHA) == "unproven"


def test_an_outage_is_an_alarm_within_a_handful_of_requests() -> None:
    assert rare_event([True] * 5, 0.05).verdict(0.001) == "fail"


def test_a_failed_answer_counts_as_over_the_target() -> None:
    seen = over_target([0.5, math.inf, math.nan, 3.0, 2.0], target=2.0)
    assert (seen.count, seen.events) == (5, 3)
    assert seen.limit == pytest.approx(0.05)


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_outside_its_range_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        rare_event([True], limit)


def test_proven_harm_wins_over_earlier_proof_of_health() -> None:
    assert RareEvent(1000, 100, 0.05, log_rarer=10, log_more_frequent=10).verdict(ALPHA) == "fail"


def test_ten_thousand_observations_take_a_moment() -> None:
    started = time.process_time()
    rare_event(stream(0.03, 10_000, 1), 0.05)
    assert time.process_time() - started < 2.0
