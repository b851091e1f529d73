"""How much may be under way: bounded, fair to whoever asks for little, and everything is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.router.admission import SHARE, Admission


def taken(admission: Admission, tenant: str, size: int = 0) -> int:
    """How many requests of the tenant get in before one is refused."""
    count = 0
    while admission.enter(tenant, size) is None:
        count += 1
    return count


def test_a_greedy_tenant_gets_four_fifths_and_the_next_one_still_gets_in() -> None:
    admission = Admission(100, 1000)
    assert taken(admission, "greedy") == 80
    refusal = admission.enter("greedy", 0)
    assert refusal and (refusal.status, refusal.reason) == (429, "share")
    assert admission.enter("modest", 0) is None


@pytest.mark.parametrize("greedy", [2, 3, 5, 10])
def test_however_many_are_greedy_there_is_room_for_one_more(greedy: int) -> None:
    admission = Admission(512, 1000)
    for _ in range(512):
        for number in range(greedy):
            admission.enter(f"greedy-{number}", 0)
    shares = [admission.requests.held[f"greedy-{number}"] for number in range(greedy)]
    assert max(shares) - min(shares) <= SHARE
    assert admission.enter("modest", 0) is None


def test_a_full_pool_says_so() -> None:
    admission = Admission(3, 1000)
    under_way = [name for name in "abcd" if admission.enter(name, 0) is None]
    assert under_way == ["a", "b"]
    admission.requests.take("c", 1)
    refusal = admission.enter("d", 0)
    assert refusal and refusal.status == 503


def test_bodies_are_bounded_together() -> None:
    admission = Admission(100, 100)
    assert taken(admission, "a", 25) == 3
    assert admission.enter("b", 101).status == 503  # type: ignore[union-attr]
    assert admission.enter("b", 0) is None


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.booleans()), max_size=60))
def test_never_more_than_the_limit_and_nothing_is_kept(steps: list[tuple[str, int, bool]]) -> None:
    admission, under_way = Admission(10, 100), []
    for tenant, size, leave in steps:
        if leave and under_way:
            admission.leave(*under_way.pop())
        elif admission.enter(tenant, size) is None:
            under_way.append((tenant, size))
        assert admission.requests.used == len(under_way) <= 10
        assert admission.body_bytes.used == sum(size for _, size in under_way) <= 100
    for one in under_way:
        admission.leave(*one)
    assert (admission.requests.held, admission.body_bytes.held) == ({}, {})
