"""Cost: the plan's sums reproduced, its sentences about payback held against them, and what must move one way only."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog.prices import load_prices
from gpu_cutover.errors import InputError
from gpu_cutover.planning import cost
from gpu_cutover.planning.cost import Cost, assess, cloud_bill, payback_months, tenants_for
from gpu_cutover.planning.finding import Finding

PRICES = load_prices()
H100, L40S = "h100-sxm-4", "l40s-4"


def found(tier: str) -> dict[str, Finding]:
    return {finding.id: finding for finding in cost.findings(assess(tier, PRICES), PRICES)}


def months(tier: Cost, tenants: int) -> float:
    found = tier.payback_by_tenants[tenants]
    assert found is not None
    return found


# --- the plan's own figures, typed here alone ------------------------------------------------------------------------


def test_the_plans_monthly_sums_are_right() -> None:
    found = assess(L40S, PRICES)
    assert found.amortisation_month.value == pytest.approx(PRICES.plan_amortisation_month, rel=0.02)
    assert found.run_rate_month.value == pytest.approx(PRICES.plan_run_rate_month, rel=0.02)
    assert found.cash_opex_month.value == 3000


def test_the_cloud_bill_passes_through_the_plans_points() -> None:
    assert [cloud_bill(n, PRICES) for n in (0, 4, 10)] == [0, 8000, 25000]
    assert cloud_bill(2, PRICES) == 4000
    assert cloud_bill(16, PRICES) == 42000


@pytest.mark.parametrize(
    ("tier", "now", "projected", "growing", "break_even"), [(L40S, 56, 12.73, 17.36, 5), (H100, 240, 54.5, 59.2, 14)]
)
def test_payback(tier: str, now: float, projected: float, growing: float, break_even: int) -> None:
    found = assess(tier, PRICES)
    assert found.now.cash is not None
    assert found.projected.cash is not None
    assert found.growing is not None
    assert found.now.cash.value == pytest.approx(now, rel=0.01)
    assert found.projected.cash.value == pytest.approx(projected, rel=0.01)
    assert found.growing.value == pytest.approx(growing, rel=0.01)
    assert found.break_even_tenants.value == break_even


def test_amortisation_counted_twice() -> None:
    found = assess(L40S, PRICES)
    assert found.now.counted_twice is None  # 8,000 - 10,778: nothing is left
    assert found.projected.counted_twice is not None
    assert found.projected.counted_twice.value == pytest.approx(19.7, rel=0.01)


def test_what_four_months_and_fourteen_months_would_need() -> None:
    claims = {claim.name: claim for claim in assess(L40S, PRICES).claims}
    four, fourteen = claims["section_3"], claims["section_7"]
    assert (four.needs_saving_month.value, four.needs_cloud_month.value) == (70_000, 73_000)
    assert four.needs_tenants.value == pytest.approx(26.9, rel=0.01)
    assert four.needs_opex_month.value < 0  # at 10 tenants not even free running is enough
    assert (fourteen.needs_cloud_month.value, fourteen.needs_opex_month.value) == (23_000, 5_000)
    assert fourteen.needs_tenants.value == pytest.approx(9.3, rel=0.01)


@pytest.mark.parametrize(("tier", "kwh", "usual"), [(L40S, 3285, 1642), (H100, 6570, 3285)])
def test_the_electricity_at_the_plans_tdp(tier: str, kwh: float, usual: float) -> None:
    energy = assess(tier, PRICES).energy
    assert energy.kwh_month.value == pytest.approx(kwh, rel=0.02)
    assert energy.usual.value == pytest.approx(usual, rel=0.02)
    assert energy.low.value < energy.usual.value < energy.high.value
    assert not energy.covered


# --- findings --------------------------------------------------------------------------------------------------------


def test_the_contradiction_names_both_sentences_and_the_one_figure() -> None:
    finding = found(L40S)["payback-contradiction"]
    assert "in 4 months and in 14" in finding.text
    assert "RM 70,000" in finding.text and "27 tenants" in finding.text and "12.7 months" in finding.text
    assert finding.fix.startswith("strike the 4 months and say 13")
    assert "section 3" in finding.source and "section 7" in finding.source


def test_the_premium_tier_is_dearer_than_the_cloud_and_the_budget_tier_is_not() -> None:
    finding = found(H100)["dearer-than-the-cloud"]
    assert "RM 36,333" in finding.text
    assert finding.fix.startswith("have 14 tenants first")
    assert "dearer-than-the-cloud" not in found(L40S)
    assert "14 tenants" in found(L40S)["upgrade-too-early"].fix
    assert "upgrade-too-early" not in found(H100)


@pytest.mark.parametrize(("tier", "severity"), [(L40S, "minor"), (H100, "major")])
def test_the_colocations_price_beside_the_electricity(tier: str, severity: str) -> None:
    assert found(tier)["energy-above-colocation"].severity == severity


def test_the_worst_comes_first() -> None:
    findings = cost.findings(assess(H100, PRICES), PRICES)
    assert findings[0].id == "dearer-than-the-cloud"
    assert findings[-1].severity == "note"


def test_prices_that_hang_together_leave_only_the_note() -> None:
    """A cheap tier, one price per tenant, honest sentences and a colocation that covers its electricity."""
    good = replace(
        PRICES,
        capex={L40S: 33_000, H100: 40_000},
        cloud_month={4: 8000, 10: 20_000},
        opex_month={**PRICES.opex_month, "colocation": 2000},
        claims={"section_7": 2},
    )
    assert [finding.id for finding in cost.findings(assess(L40S, good), good)] == ["capex-left-out"]


def test_a_tier_without_a_price_is_told() -> None:
    with pytest.raises(InputError, match=r"capex\.h100-sxm-4.*priced are l40s-4"):
        assess(H100, replace(PRICES, capex={L40S: 280_000}))


def test_an_unknown_tier_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match=L40S):
        assess("l40s-5", PRICES)


def test_json_is_plain_and_says_never_as_null() -> None:
    plain = cost.as_json(assess(L40S, PRICES))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["payback_by_tenants"]["1"] is None
    assert plain["claims"]["section_3"]["needs_tenants"]["value"] == pytest.approx(26.94)


# --- what moves one way only -----------------------------------------------------------------------------------------


@given(st.sampled_from([H100, L40S]), st.integers(2, cost.TABLE_TENANTS - 1))
def test_payback_falls_with_every_tenant(tier: str, tenants: int) -> None:
    found = assess(tier, PRICES)
    assert months(found, tenants + 1) < months(found, tenants)


@given(st.floats(0, 1000), st.floats(0.1, 100))
def test_more_tenants_are_billed_more(tenants: float, more: float) -> None:
    assert cloud_bill(tenants + more, PRICES) > cloud_bill(tenants, PRICES)


@given(st.floats(0, 1000))
def test_the_bill_tells_how_many_tenants(tenants: float) -> None:
    assert tenants_for(cloud_bill(tenants, PRICES), PRICES) == pytest.approx(tenants, abs=1e-6)


@given(st.integers(10_000, 5_000_000))
def test_break_even_is_where_payback_meets_the_amortisation(capex: int) -> None:
    """Paying the run-rate and paying back within the amortisation are the same condition."""
    opex = sum(PRICES.opex_month.values())
    run_rate = capex / PRICES.amortisation_months + opex
    fewest = cost.break_even(run_rate, PRICES)
    enough = payback_months(capex, cloud_bill(fewest, PRICES) - opex)
    assert enough is not None and enough <= PRICES.amortisation_months + 1e-6
    fewer = payback_months(capex, cloud_bill(fewest - 1, PRICES) - opex)
    assert fewer is None or fewer > PRICES.amortisation_months - 1e-6


@given(st.integers(10_000, 5_000_000), st.integers(1, 500_000))
def test_growing_into_it_takes_longer_than_being_there_and_more_with_a_dearer_server(capex: int, more: int) -> None:
    opex = sum(PRICES.opex_month.values())
    growing, dearer = (cost.growing_payback(price, opex, PRICES) for price in (capex, capex + more))
    there = payback_months(capex, cloud_bill(PRICES.tenants_projected, PRICES) - opex)
    assert growing is not None and dearer is not None and there is not None
    assert there <= growing + 1e-6
    assert dearer > growing


def test_who_never_saves_never_pays_back() -> None:
    assert cost.growing_payback(1000, 1e9, PRICES) is None
    assert payback_months(1000, 0) is None
