"""The confidence sequence: valid under peeking, shrinks, and promotes an equal candidate when it should."""

from __future__ import annotations

import random

import pytest

from gpu_cutover.gates.sequential import lower_bound


def stream(mean: float, deviation: float, count: int, seed: int) -> list[float]:
    source = random.Random(seed)
    return [min(1.0, max(0.0, source.gauss(mean, deviation))) for _ in range(count)]


def test_looking_again_and_again_does_not_promote_a_candidate_at_the_margin() -> None:
    """300 streams whose true mean is 0.5, looked at from 100 to 600: the bound may pass 0.5 in about 1 % of them."""
    wrong = 0
    for seed in range(300):
        scores = stream(0.5, 0.1, 600, seed)
        wrong += any(lower_bound(scores[:count], 0.01) > 0.5 for count in range(100, 600, 10))
    assert wrong <= 9


def test_an_equal_candidate_clears_its_margin_in_a_few_hundred_answers() -> None:
    scores = stream(0.5, 0.1, 600, 7)
    needed = next(count for count in range(100, 600, 10) if lower_bound(scores[:count], 0.01) > 0.48)
    assert 100 <= needed <= 500


def test_the_bound_is_below_the_mean_and_approaches_it() -> None:
    scores = stream(0.8, 0.1, 4000, 3)
    gaps = [sum(scores[:count]) / count - lower_bound(scores[:count], 0.01) for count in (50, 400, 4000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 0


@pytest.mark.parametrize("scores", [[], [1.1], [float("nan")], [-0.1]])
def test_what_is_no_score_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        lower_bound(scores, 0.01)
