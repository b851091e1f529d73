"""The simulated GPUs' physics, as pure functions."""

from __future__ import annotations

import pytest
from standin_lab import boards
from thermals import FAILED_FAN, INLET_CELSIUS, Board, Gpu, advance, power, settles_at  # type: ignore[import-not-found]

TICK_S = 0.5


def gpu(tier: str = "l40s-4") -> Gpu:
    return Gpu(Board(**boards(tier)[0]))


def run(
    subject: Gpu, share: float, seconds: float, inlet: float = INLET_CELSIUS, fan_failed: bool = False
) -> list[float]:
    """Temperatures, tick by tick."""
    found = []
    for _ in range(int(seconds / TICK_S)):
        advance(subject, share, TICK_S, inlet, fan_failed)
        found.append(subject.celsius)
    return found


@pytest.mark.parametrize("tier", ["l40s-4", "h100-sxm-4"])
def test_a_healthy_full_load_keeps_far_from_the_limit(tier: str) -> None:
    subject = gpu(tier)
    assert max(run(subject, 1.0, 600)) < subject.board.max_operating_celsius - 15


@pytest.mark.parametrize("tier", ["l40s-4", "h100-sxm-4"])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_failed_fan_crosses_the_limit_in_about_fifteen_seconds_even_with_an_idle_engine(
    tier: str, share: float
) -> None:
    subject = gpu(tier)
    run(subject, share, 120)
    temperatures = run(subject, share, 20, fan_failed=True)
    crossed = next(n for n, value in enumerate(temperatures) if value >= subject.board.max_operating_celsius) * TICK_S
    assert 4 < crossed < 16


def test_it_cools_once_unloaded_although_the_fan_stays_broken() -> None:
    subject = gpu()
    run(subject, 0.7, 60, fan_failed=True)
    assert run(subject, 0.0, 15, fan_failed=True)[-1] < subject.board.max_operating_celsius - 15


def test_it_never_reaches_shutdown_by_itself() -> None:
    subject = gpu()
    limit = subject.board.max_operating_celsius - subject.board.tlimit_shutdown
    assert max(run(subject, 1.0, 300, inlet=46, fan_failed=True)) < limit


def test_a_hot_inlet_eats_the_margin_of_every_board() -> None:
    subject = gpu()
    assert subject.board.max_operating_celsius - run(subject, 1.0, 120, inlet=46)[-1] < 3


def test_a_power_limit_caps_power_and_is_told() -> None:
    watts, bits = power(gpu().board, 1.0, 200.0, 50.0)
    assert (watts, bits & 0x4) == (200.0, 0x4)


def test_throttling_bits_come_at_the_limit_and_at_the_slowdown_offset() -> None:
    board = gpu().board
    assert power(board, 0.5, 350.0, 87.9)[1] & 0x68 == 0
    assert power(board, 0.5, 350.0, 88.0)[1] & 0x68 == 0x20
    assert power(board, 0.5, 350.0, 90.0)[1] & 0x68 == 0x68


def test_less_cooling_settles_hotter() -> None:
    board = gpu().board
    assert settles_at(board, 100.0, 24.0, FAILED_FAN) > settles_at(board, 100.0, 24.0, 1.0)
