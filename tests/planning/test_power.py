"""Power: published sums within 2 % from the catalog, what the plan's supplies cannot do, what never gets worse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog import Gpu, Tier, load_catalog
from gpu_cutover.catalog.power import load_power_rule
from gpu_cutover.planning import power
from gpu_cutover.planning.finding import Finding
from gpu_cutover.planning.power import Power, Supplies, assess, battery_kwh, ups_minutes
from gpu_cutover.site.model import Power as Declared

CATALOG, RULE = load_catalog(), load_power_rule()
H100, L40S = "h100-sxm-4", "l40s-4"
GOOD = {
    H100: Declared(psu_count=4, psu_watts=3000, feeds=2, ups_kva=8.0, ups_minutes_min=10.0, ups_battery_kwh=1.5),
    L40S: Declared(psu_count=4, psu_watts=1600, feeds=2, ups_kva=5.0, ups_minutes_min=10.0, ups_battery_kwh=0.8),
}


def parts(tier: str) -> tuple[Tier, Gpu]:
    return CATALOG.tiers[tier], CATALOG.gpus[CATALOG.tiers[tier].gpu]


def assessed(tier: str, **changes: object) -> Power:
    return assess(GOOD[tier].model_copy(update=changes), *parts(tier))


def found(tier: str, **changes: object) -> dict[str, Finding]:
    declared = GOOD[tier].model_copy(update=changes)
    findings = power.findings(assess(declared, *parts(tier)), declared, *parts(tier))
    return {finding.id: finding for finding in findings}


# --- published figures, typed here alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "dc", "ac", "headroom", "three"), [(H100, 4410, 4690, 0.28, 3706), (L40S, 2550, 2710, 0.106, 2200)]
)
def test_the_nameplate_sums(tier: str, dc: float, ac: float, headroom: float, three: float) -> None:
    found = assessed(tier)
    assert found.dc_w.value == pytest.approx(dc, rel=0.02)
    assert found.ac_w.value == pytest.approx(ac, rel=0.02)
    assert found.tdp_headroom.value == pytest.approx(headroom, rel=0.02)
    assert found.three_gpus_dc_w.value == pytest.approx(three, rel=0.02)


@pytest.mark.parametrize(("tier", "remaining", "cap", "allowed"), [(H100, 3000, 311, True), (L40S, 1600, 92, False)])
def test_the_plans_supplies(tier: str, remaining: float, cap: float, allowed: bool) -> None:
    plan = assessed(tier).plan
    assert plan.remaining_w.value == remaining
    assert plan.gpu_cap_w.value == pytest.approx(cap, rel=0.02)
    assert plan.cap_allowed is allowed
    assert plan.carries
    assert not plan.redundant


@pytest.mark.parametrize(
    ("tier", "kva", "kwh", "btu", "tons", "mwh"),
    [(H100, 7.9, 1.09, 20472, 1.71, 78.8), (L40S, 3.95, 0.54, 10236, 0.855, 39.4)],
)
def test_what_the_plans_tdp_asks_of_the_room(
    tier: str, kva: float, kwh: float, btu: float, tons: float, mwh: float
) -> None:
    size = assessed(tier).at_plan_tdp
    assert size.ups_kva.value == pytest.approx(kva, rel=0.02)
    assert size.battery_kwh.value == pytest.approx(kwh, rel=0.02)
    assert size.heat_btu_h.value == pytest.approx(btu, rel=0.02)
    assert size.heat_tons.value == pytest.approx(tons, rel=0.02)
    assert size.facility_kwh_year.value / 1000 == pytest.approx(mwh, rel=0.02)


def test_at_the_boards_minimum_an_l40s_server_still_nearly_fills_one_supply() -> None:
    finding = found(L40S)["psu-cap-impossible"]
    assert "1550 W of 1600 W (97%)" in finding.text
    assert "112 W" in finding.fix  # with the processors at 240 W too: (1520 - 480 - 590) / 4


@pytest.mark.parametrize(("tier", "fix"), [(H100, "4 x 3000 W, 2 on each"), (L40S, "4 x 1600 W, 2 on each")])
def test_the_plan_is_not_redundant_and_four_supplies_are(tier: str, fix: str) -> None:
    finding = found(tier)["psu-not-redundant"]
    assert finding.severity == "major"
    assert fix in finding.fix
    assert "with three GPUs too" in finding.text


def test_two_bigger_supplies_are_an_answer_for_the_small_tier() -> None:
    assert "at least 2700 W" in found(L40S)["psu-not-redundant"].fix


# --- the site as declared --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", [H100, L40S])
def test_four_supplies_on_two_feeds_hold(tier: str) -> None:
    declared = assessed(tier).declared
    assert declared.redundant
    assert declared.feed_loss.startswith("nothing")
    assert not [name for name in found(tier) if name.startswith(("site-", "ups-"))]


def test_the_plans_two_supplies_in_a_site_are_a_blocker() -> None:
    finding = found(L40S, psu_count=2)["site-psu-not-redundant"]
    assert finding.severity == "blocker"
    assert "1 x 1600 W = 1600 W" in finding.text
    assert assessed(L40S, psu_count=2).declared.feed_loss.startswith("the whole node")


def test_supplies_that_cannot_carry_the_server_at_all() -> None:
    assert found(L40S, psu_count=1, feeds=1)["site-psu-overloaded"].severity == "blocker"
    lonely = assessed(L40S, psu_count=1, feeds=1).declared
    assert lonely.load is None
    assert lonely.remaining_w.value == 0


def test_one_feed_takes_the_whole_node_with_it() -> None:
    finding = found(L40S, psu_count=3, feeds=1)["site-one-feed"]
    assert "every route" in finding.text


def test_a_small_ups_and_a_small_battery_are_told_with_what_they_need() -> None:
    findings = found(L40S, ups_kva=3.0, ups_battery_kwh=0.4)
    assert "3.57 kVA" in findings["ups-too-small"].text
    assert findings["ups-too-small"].fix.startswith("a UPS of 4 kVA")
    assert findings["ups-too-short"].fix.startswith("0.5 kWh")


@pytest.mark.parametrize(("tier", "severity"), [(H100, "note"), (L40S, "minor")])
def test_the_headroom_of_the_plans_tdp(tier: str, severity: str) -> None:
    assert found(tier)["tdp-headroom"].severity == severity


def test_a_server_that_draws_more_than_the_plan_says() -> None:
    tier, gpu = parts(L40S)
    hot = replace(tier, rest_w=1500)
    findings = power.findings(assess(GOOD[L40S], hot, gpu), GOOD[L40S], hot, gpu)
    assert next(finding for finding in findings if finding.id == "tdp-headroom").severity == "major"


def test_big_supplies_need_a_bigger_outlet() -> None:
    assert "13.9 A" in found(H100)["supply-needs-c19"].text
    assert "supply-needs-c19" not in found(L40S)


def test_a_board_whose_lowest_limit_nobody_has_read() -> None:
    tier, gpu = parts(L40S)
    unknown = replace(gpu, power_min_w=None)
    result = assess(GOOD[L40S], tier, unknown)
    assert result.plan.cap_allowed is None
    findings = {item.id: item for item in power.findings(result, GOOD[L40S], tier, unknown)}
    assert "not known" in findings["psu-cap"].text


def test_the_worst_comes_first_and_json_is_plain() -> None:
    declared = GOOD[L40S].model_copy(update={"psu_count": 2})
    findings = power.findings(assess(declared, *parts(L40S)), declared, *parts(L40S))
    assert findings[0].id == "site-psu-not-redundant"
    plain = power.as_json(assessed(L40S))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["plan"]["gpu_cap_w"]["arithmetic"].endswith("= 92 W")


@pytest.mark.parametrize("tier", [H100, L40S])
def test_every_figure_shows_its_arithmetic(tier: str) -> None:
    figures = [value for value in power.as_json(assessed(tier)).values() if "arithmetic" in value]
    assert len(figures) == 13
    assert all("=" in figure["arithmetic"] for figure in figures)


# --- what never gets worse -------------------------------------------------------------------------------------------

COUNTS, FEEDS = st.integers(1, 16), st.integers(1, 4)


@given(COUNTS, FEEDS, st.integers(100, 5000), st.sampled_from([H100, L40S]))
def test_one_more_supply_never_makes_redundancy_worse(count: int, feeds: int, watts: int, tier: str) -> None:
    fewer, more = Supplies(count, watts, feeds), Supplies(count + 1, watts, feeds)
    assert more.remaining_w() >= fewer.remaining_w()
    before = power.redundancy(fewer, *parts(tier), RULE)
    after = power.redundancy(more, *parts(tier), RULE)
    assert after.redundant >= before.redundant
    assert after.gpu_cap_w.value >= before.gpu_cap_w.value


@given(COUNTS, FEEDS, st.integers(100, 5000), st.sampled_from([H100, L40S]))
def test_what_is_redundant_also_carries(count: int, feeds: int, watts: int, tier: str) -> None:
    result = power.redundancy(Supplies(count, watts, feeds), *parts(tier), RULE)
    assert result.carries or not result.redundant


@given(st.integers(100, 5000), st.sampled_from([H100, L40S]))
def test_the_remedy_is_redundant_and_none_smaller_is(watts: int, tier: str) -> None:
    fix = power.enough(*parts(tier), watts, RULE)
    assert power.redundancy(fix, *parts(tier), RULE).redundant
    assert not power.redundancy(replace(fix, count=fix.count - 2), *parts(tier), RULE).redundant


@given(st.floats(0.1, 100), st.floats(0.01, 10), st.floats(100, 20_000))
def test_a_bigger_battery_never_lasts_shorter(kwh: float, more: float, load: float) -> None:
    assert ups_minutes(kwh + more, load, RULE.ups_efficiency) >= ups_minutes(kwh, load, RULE.ups_efficiency)


@given(st.floats(1, 240), st.floats(100, 20_000), st.floats(0.5, 1.0))
def test_the_battery_that_is_asked_for_lasts_as_long_as_asked(minutes: float, load: float, usable: float) -> None:
    kwh = battery_kwh(load, minutes, RULE.ups_efficiency, usable)
    assert ups_minutes(kwh, load, RULE.ups_efficiency, usable) == pytest.approx(minutes)


@given(st.integers(1, 8), st.sampled_from([H100, L40S]))
def test_losing_a_gpu_never_needs_more_power(gpus: int, tier: str) -> None:
    assert power.dc_w(*parts(tier), gpus - 1) < power.dc_w(*parts(tier), gpus)
