"""Every combination of policy, state, route, pool, placement, breaker and rolled-back model has one right answer."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.router.decide import NO_AUTOMATIC_CHANGE, Decision, Live, decide
from gpu_cutover.router.table import POLICIES, POOLS, ROUTES, STATES, Tenant, legal_states, parse_table

from .tables import table, tenant

LEGAL = [
    (pool, policy, state)
    for pool, policy in product(POOLS, POLICIES)
    for state in legal_states(policy, pool)
    if not (policy == "sensitive" and pool == "hybrid") and not (policy == "cloud_only" and pool == "sealed")
]
# healthy: legs for all routes; without-gpu0: none for audio and embed
CASES = list(product(LEGAL, ROUTES, ("healthy", "without-gpu0"), (False, True), (False, True)))


def decided(pool: str, policy: str, state: str, route: str, placement: str, is_open: bool, back: bool) -> Decision:
    model = f"own-{route}"
    data = table(pool, tenants={"t": tenant(policy, **{route: state})}, rolled_back=(model,) if back else ())
    live = Live(placement, frozenset({model} if is_open else ()))
    return decide(parse_table(data, "t.json"), "t", route, live)


def expected(pool: str, policy: str, state: str, route: str, placement: str, is_open: bool, back: bool) -> Any:
    """(leg, fallback?, mirror?, why), told in another way than the code tells it."""
    runs = not (placement == "without-gpu0" and route in ("audio", "embed"))
    may_cloud = pool == "hybrid" and policy != "sensitive"
    if state == "off":
        return None, False, False, "refused"
    if state in ("cloud", "mirror"):
        return "cloud", False, state == "mirror" and runs and not back, "policy"
    by_itself = may_cloud and route != "embed"
    if not runs:
        return ("cloud", False, False, "derate") if by_itself else (None, False, False, "refused")
    if back:
        return ("cloud", False, False, "policy") if may_cloud else (None, False, False, "refused")
    if is_open and by_itself:
        return "cloud", False, False, "breaker"
    return "onprem", by_itself, False, "policy"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_whole_table_of_decisions(case: Any) -> None:
    (pool, policy, state), route, placement, is_open, back = case
    decision = decided(pool, policy, state, route, placement, is_open, back)
    got = (decision.leg_name, decision.fallback is not None, decision.mirror is not None, decision.why)
    assert got == expected(pool, policy, state, route, placement, is_open, back)


def test_an_unknown_tenant_is_refused() -> None:
    decision = decide(parse_table(table(), "t.json"), "nobody", "chat", Live("healthy"))
    assert (decision.leg, decision.why) == (None, "refused")


def test_an_unknown_placement_leaves_no_onprem_leg() -> None:
    decision = decided("sealed", "sensitive", "onprem", "chat", "somewhere", False, False)
    assert decision.leg is None


def test_embeddings_never_change_their_vector_space_by_themselves() -> None:
    assert frozenset({"embed"}) == NO_AUTOMATIC_CHANGE
    assert decided("hybrid", "standard", "onprem", "embed", "healthy", True, False).fallback is None


def test_only_onprem_answers_of_standard_tenants_are_asked_again_and_only_where_a_share_is_declared() -> None:
    tenants = {
        "std": tenant(chat="onprem"),
        "mir": tenant(chat="mirror"),
        "only": tenant("cloud_only", chat="cloud"),
        "drill": tenant(chat="onprem") | {"synthetic": True},
    }
    without = table(tenants=tenants)
    with_share = parse_table(without | {"reverse_shadow": {"share": 0.1}}, "t.json")
    asked = [name for name in tenants if decide(with_share, name, "chat", Live("healthy")).reverse]
    assert asked == ["std"]
    assert decide(parse_table(without, "t.json"), "std", "chat", Live("healthy")).reverse is None


def test_a_synthetic_tenants_reason_is_the_drill() -> None:
    tenants = {"drill": tenant(chat="onprem", audio="cloud") | {"synthetic": True}}
    drilled = parse_table(table(tenants=tenants), "t.json")
    assert decide(drilled, "drill", "chat", Live("healthy")).why == "drill"
    assert decide(drilled, "drill", "audio", Live("healthy")).why == "drill"
    assert decide(drilled, "drill", "chat", Live("healthy", frozenset({"own-chat"}))).why == "breaker"


@given(
    policy=st.sampled_from(POLICIES),
    state=st.sampled_from(STATES),
    route=st.sampled_from(ROUTES),
    placement=st.text(max_size=3) | st.sampled_from(["healthy", "without-gpu0"]),
    open_models=st.frozensets(st.sampled_from([f"own-{route}" for route in ROUTES])),
    pool=st.sampled_from(POOLS),
)
def test_a_sensitive_tenant_or_sealed_pool_never_gets_a_cloud_leg_even_in_a_forged_table(
    policy: str, state: str, route: str, placement: str, open_models: frozenset[str], pool: str
) -> None:
    import dataclasses

    forged = dataclasses.replace(
        parse_table(table(), "t.json"), pool=pool, tenants={"t": Tenant(policy, {route: state})}
    )
    decision = decide(forged, "t", route, Live(placement, open_models))
    if policy == "sensitive" or pool == "sealed":
        assert decision.leg_name != "cloud"
        assert decision.fallback is None
