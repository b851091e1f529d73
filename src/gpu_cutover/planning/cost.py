"""What a tier costs a month, when it has paid for itself, which of the plan's sentences about that can be true. Pure.

Money is in the currency of `catalog/prices.yml`. *Cash* payback: capex / (cloud bill − cash opex). The plan's run-rate
also holds the amortisation of the same capex, so capex / (cloud bill − run-rate) counts the hardware twice; it is
computed because the plan's "14 months" lies between the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ..catalog import Catalog, Tier, load_catalog, lookup
from ..catalog.power import PowerRule, load_power_rule
from ..catalog.prices import Prices
from ..errors import InputError
from .figure import Figure, rounded
from .finding import Finding, in_order
from .power import facility_kwh_year

TABLE_TENANTS = 30  # how far the table of paybacks goes
HORIZON_MONTHS = 600  # a payback later than this is never
AGREE = 0.95  # two figures of months agree when they are this close
LEFT_OUT = "the UPS, the supplies beyond two, spare parts, warranty, and 2.5 FTE for two weeks"


@dataclass(frozen=True)
class Payback:
    """At so many tenants: the cloud bill that is saved, and the months until the hardware is paid; None is never."""

    tenants: int
    cloud_month: Figure
    saving_month: Figure
    cash: Figure | None
    counted_twice: Figure | None


@dataclass(frozen=True)
class Claim:
    """A sentence of the plan about payback, and what would have to be so for it to be true."""

    name: str
    months: float
    source: str
    needs_saving_month: Figure
    needs_cloud_month: Figure
    needs_tenants: Figure
    needs_opex_month: Figure


@dataclass(frozen=True)
class Energy:
    """A month's electricity of the facility at the plan's TDP, at three tariffs, beside the price of the colocation."""

    kwh_month: Figure
    low: Figure
    usual: Figure
    high: Figure
    colocation_month: float
    covered: bool


@dataclass(frozen=True)
class Cost:
    """The money of one tier. `break_even_tenants` pay the run-rate: the hardware pays back within its amortisation."""

    tier: str
    currency: str
    capex: float
    amortisation_month: Figure
    opex_month: Mapping[str, int]
    cash_opex_month: Figure
    run_rate_month: Figure
    now: Payback
    projected: Payback
    growing: Figure | None
    break_even_tenants: Figure
    payback_by_tenants: Mapping[int, float | None]
    claims: tuple[Claim, ...]
    energy: Energy


# --- formulas --------------------------------------------------------------------------------------------------------


def cloud_bill(tenants: float, prices: Prices) -> float:
    """The cloud's bill a month: straight lines from nothing for nobody through the plan's two points, and on."""
    points = _points(prices)
    for (n0, bill0), (n1, bill1) in pairwise(points):
        if tenants <= n1 or n1 == points[-1][0]:
            return bill0 + (tenants - n0) * (bill1 - bill0) / (n1 - n0)
    raise AssertionError("unreachable: two points at least")


def tenants_for(bill: float, prices: Prices) -> float:
    """The inverse of `cloud_bill`: how many tenants run up this bill."""
    points = _points(prices)
    for (n0, bill0), (n1, bill1) in pairwise(points):
        if bill <= bill1 or n1 == points[-1][0]:
            return n0 + (bill - bill0) * (n1 - n0) / (bill1 - bill0)
    raise AssertionError("unreachable: two points at least")


def payback_months(capex: float, saving_month: float) -> float | None:
    """Months until savings have paid the capex; None when nothing is saved."""
    return capex / saving_month if saving_month > 0 else None


def growing_payback(capex: float, opex: float, prices: Prices) -> float | None:
    """Months when tenants grow evenly from today's to the projected number in `ramp_months`; None: not in 50 years.

    Each month is billed at the number of tenants in its middle.
    """
    paid = 0.0
    for month in range(HORIZON_MONTHS):
        share = min(1.0, (month + 0.5) / prices.ramp_months)
        tenants = prices.tenants_now + share * (prices.tenants_projected - prices.tenants_now)
        saving = cloud_bill(tenants, prices) - opex
        if saving > 0 and paid + saving >= capex:
            return month + (capex - paid) / saving
        paid += saving
    return None


def break_even(run_rate: float, prices: Prices) -> int:
    """The fewest tenants whose cloud bill is the run-rate or more."""
    return max(0, math.ceil(tenants_for(run_rate, prices) - 1e-9))


def _points(prices: Prices) -> list[tuple[int, float]]:
    return [(0, 0.0), *sorted((tenants, float(bill)) for tenants, bill in prices.cloud_month.items())]


# --- one tier --------------------------------------------------------------------------------------------------------


def assess(tier: str, prices: Prices, catalog: Catalog | None = None, rule: PowerRule | None = None) -> Cost:
    """The money of a tier. Raises InputError for a tier that is unknown or has no price."""
    server = lookup("tier", tier, catalog or load_catalog())
    if tier not in prices.capex:
        known = ", ".join(sorted(prices.capex))
        raise InputError("catalog/prices.yml", f"capex.{tier}", "has no price", f"add it there; priced are {known}")
    capex, opex = prices.capex[tier], sum(prices.opex_month.values())
    depreciation = capex / prices.amortisation_months
    run_rate = depreciation + opex
    return Cost(
        tier=tier,
        currency=prices.currency,
        capex=capex,
        amortisation_month=_figure(
            depreciation, prices, f"{_money(capex, prices)} / {prices.amortisation_months} months"
        ),
        opex_month=dict(prices.opex_month),
        cash_opex_month=_figure(opex, prices, _sum(prices.opex_month)),
        run_rate_month=_figure(run_rate, prices, f"{depreciation:,.0f} + {opex:,.0f}"),
        now=_payback(prices.tenants_now, capex, opex, run_rate, prices),
        projected=_payback(prices.tenants_projected, capex, opex, run_rate, prices),
        growing=_growing(capex, opex, prices),
        break_even_tenants=_break_even(run_rate, prices),
        payback_by_tenants={
            tenants: payback_months(capex, cloud_bill(tenants, prices) - opex)
            for tenants in range(1, TABLE_TENANTS + 1)
        },
        claims=tuple(_claim(name, capex, opex, prices) for name in prices.claims),
        energy=_energy(server, prices, rule or load_power_rule()),
    )


def _money(amount: float, prices: Prices) -> str:
    return f"{prices.currency} {amount:,.0f}"


def _figure(value: float, prices: Prices, arithmetic: str) -> Figure:
    return Figure(value, prices.currency, f"{arithmetic} = {_money(value, prices)}")


def _sum(items: Mapping[str, int]) -> str:
    return " + ".join(f"{name.replace('_', ' ')} {amount:,}" for name, amount in items.items())


def _payback(tenants: int, capex: float, opex: float, run_rate: float, prices: Prices) -> Payback:
    bill = cloud_bill(tenants, prices)
    return Payback(
        tenants=tenants,
        cloud_month=_figure(bill, prices, f"{tenants} tenants x {bill / tenants:,.0f}"),
        saving_month=_figure(bill - opex, prices, f"{bill:,.0f} - {opex:,.0f}"),
        cash=_months(capex, bill, opex),
        counted_twice=_months(capex, bill, run_rate),
    )


def _months(capex: float, bill: float, costs: float) -> Figure | None:
    months = payback_months(capex, bill - costs)
    if months is None:
        return None
    return Figure(months, "months", f"{capex:,.0f} / ({bill:,.0f} - {costs:,.0f}) = {months:.1f} months")


def _growing(capex: float, opex: float, prices: Prices) -> Figure | None:
    months = growing_payback(capex, opex, prices)
    if months is None:
        return None
    growth = f"tenants grow from {prices.tenants_now} to {prices.tenants_projected} in {prices.ramp_months} months"
    return Figure(months, "months", f"{growth}: savings reach {_money(capex, prices)} after {months:.1f} months")


def _break_even(run_rate: float, prices: Prices) -> Figure:
    exact, tenants = tenants_for(run_rate, prices), break_even(run_rate, prices)
    equal = f"equal at {exact:.2f} tenants"
    text = f"{tenants} tenants are billed {cloud_bill(tenants, prices):,.0f}, the run-rate is {run_rate:,.0f}; {equal}"
    return Figure(tenants, "tenants", text)


def _claim(name: str, capex: float, opex: float, prices: Prices) -> Claim:
    months = prices.claims[name]
    saving = capex / months
    bill = saving + opex
    projected = cloud_bill(prices.tenants_projected, prices)
    return Claim(
        name=name,
        months=months,
        source=str(prices.sources["claims"][name]),
        needs_saving_month=_figure(saving, prices, f"{capex:,.0f} / {months} months"),
        needs_cloud_month=_figure(bill, prices, f"{saving:,.0f} + {opex:,.0f} opex"),
        needs_tenants=Figure(
            tenants_for(bill, prices),
            "tenants",
            f"a bill of {bill:,.0f} is that of {tenants_for(bill, prices):.1f} tenants, drawn on from the plan's two",
        ),
        needs_opex_month=_figure(projected - saving, prices, f"{projected:,.0f} - {saving:,.0f}"),
    )


def _energy(tier: Tier, prices: Prices, rule: PowerRule) -> Energy:
    kwh = facility_kwh_year(tier.plan_tdp_w, rule.pue, rule.hours_per_year) / 12
    colocation = prices.opex_month["colocation"]
    at = {
        name: _figure(kwh * tariff, prices, f"{kwh:,.0f} kWh x {prices.currency} {tariff:g}")
        for name, tariff in prices.tariff.items()
    }
    return Energy(
        kwh_month=Figure(
            kwh,
            "kWh",
            f"{tier.plan_tdp_w / 1000:g} kW x PUE {rule.pue:g} x {rule.hours_per_year} h / 12 = {kwh:,.0f} kWh",
        ),
        low=at["low"],
        usual=at["usual"],
        high=at["high"],
        colocation_month=colocation,
        covered=at["high"].value <= colocation,
    )


# --- findings --------------------------------------------------------------------------------------------------------


def findings(cost: Cost, prices: Prices) -> tuple[Finding, ...]:
    """Where the plan's money contradicts itself or does not come back, worst first."""
    budget = cost if cost.tier == prices.budget_tier else assess(prices.budget_tier, prices)
    found = [
        *_contradiction(budget, prices),
        *_never(cost, prices),
        *_slow_now(cost, prices),
        *_twice(budget),
        *_energy_finding(cost),
        *_upgrade(cost, prices),
        *_bill_per_tenant(budget, prices),
        _left_out(cost, prices),
    ]
    return in_order(found)


def _contradiction(budget: Cost, prices: Prices) -> list[Finding]:
    """The plan's sentences about payback beside the one figure its own inputs give."""
    short = min(budget.claims, key=lambda claim: claim.months)
    long = max(budget.claims, key=lambda claim: claim.months)
    if short.months >= AGREE * long.months:
        return []
    cash, bill = budget.projected.cash, _money(budget.projected.cloud_month.value, prices)
    fix = "strike both: nothing is saved"
    if cash:
        fix = f"strike the {short.months:g} months and say {cash.value:.0f}, from the day the cloud's bill is {bill}"
    return [
        Finding(
            "payback-contradiction",
            "major",
            0.9,
            f"The plan says payback in {short.months:g} months and in {long.months:g}: {short.months:g} need a saving"
            f" of {short.needs_saving_month.arithmetic}, the bill of {short.needs_tenants.value:.0f} tenants;"
            f" its own inputs at {budget.projected.tenants} tenants give {cash.arithmetic if cash else 'no payback'}",
            fix,
            "; ".join(claim.source for claim in budget.claims),
        )
    ]


def _never(cost: Cost, prices: Prices) -> list[Finding]:
    """A tier whose monthly cost is above the cloud's projected bill: it does not pay back within its amortisation."""
    months, projected = cost.projected.cash, cost.projected
    if months is not None and months.value <= prices.amortisation_months:
        return []
    when = f"payback is {months.arithmetic}, after" if months else "it does not pay back in"
    tenants = cost.break_even_tenants
    return [
        Finding(
            "dearer-than-the-cloud",
            "major",
            1.0,
            f"At {projected.tenants} tenants {cost.tier} costs {_money(cost.run_rate_month.value, prices)} a month, the"
            f" cloud {_money(projected.cloud_month.value, prices)}: {when} the {prices.amortisation_months} months of"
            " its amortisation",
            f"have {tenants.value:.0f} tenants first ({tenants.arithmetic})"
            + (f", or take {prices.budget_tier}" if cost.tier != prices.budget_tier else ""),
            str(prices.sources["capex"].get(cost.tier)),
        )
    ]


def _slow_now(cost: Cost, prices: Prices) -> list[Finding]:
    """At today's number of tenants the hardware outlives its amortisation before it is paid."""
    now = cost.now.cash
    if now is not None and now.value <= prices.amortisation_months:
        return []
    months = now.arithmetic if now else f"never: {cost.now.saving_month.arithmetic}"
    growing = cost.growing
    grows = f"; if {growing.arithmetic.split(':')[0]} it is {growing.value:.1f} months" if growing else ""
    return [
        Finding(
            "payback-at-todays-tenants",
            "major",
            0.7,
            f"At today's {cost.now.tenants} tenants payback is {months}, longer than the {prices.amortisation_months}"
            f" months of amortisation{grows}",
            f"sign when {cost.break_even_tenants.value:.0f} tenants are sure: they are billed the run-rate or more",
            f"{prices.sources['cloud_month'][prices.tenants_now]}; growth {prices.sources['ramp_months']}",
        )
    ]


def _twice(budget: Cost) -> list[Finding]:
    cash, twice = budget.projected.cash, budget.projected.counted_twice
    if cash is None or twice is None:
        return []
    claim = max(budget.claims, key=lambda claim: claim.months)
    if AGREE * cash.value <= claim.months <= cash.value / AGREE:
        return []
    return [
        Finding(
            "amortisation-counted-twice",
            "minor",
            0.6,
            "The run-rate holds the hardware's amortisation, so payback against it counts the hardware twice:"
            f" {twice.arithmetic}, without it {cash.arithmetic}; the {claim.months:g} months are neither, they need"
            f" cash costs of {claim.needs_opex_month.arithmetic} a month",
            "use the run-rate to compare months, cash costs alone for payback",
            "upgrade plan, section 7",
        )
    ]


def _energy_finding(cost: Cost) -> list[Finding]:
    """Whether the price of the colocation covers the electricity alone."""
    energy = cost.energy
    if energy.covered:
        return []
    heavy = energy.low.value > energy.colocation_month
    return [
        Finding(
            "energy-above-colocation",
            "major" if heavy else "minor",
            0.5,
            f"The colocation's {cost.currency} {energy.colocation_month:,.0f} a month for power, cooling and bandwidth"
            f" {'is less than' if heavy else 'hardly covers'} the electricity alone at the plan's TDP:"
            f" {energy.kwh_month.arithmetic}, {energy.usual.arithmetic}"
            f" (from {energy.low.value:,.0f} to {energy.high.value:,.0f})",
            "ask for the offer in writing: which kW it includes, and what a kWh beyond costs",
            "upgrade plan, sections 3 and 7; catalog tariff (assumed) and PUE (assumed)",
        )
    ]


def _upgrade(cost: Cost, prices: Prices) -> list[Finding]:
    """The plan's way out, the premium tier later, at the number of tenants it names."""
    if cost.tier == prices.premium_tier:
        return []
    premium = assess(prices.premium_tier, prices)
    if premium.break_even_tenants.value <= prices.tenants_projected:
        return []
    return [
        Finding(
            "upgrade-too-early",
            "minor",
            0.5,
            f"The plan upgrades to {premium.tier} at {prices.tenants_projected} tenants, which then costs"
            f" {_money(premium.run_rate_month.value, prices)} a month against a cloud bill of"
            f" {_money(premium.projected.cloud_month.value, prices)}",
            f"upgrade for capacity, or at {premium.break_even_tenants.value:.0f} tenants:"
            f" {premium.break_even_tenants.arithmetic}",
            str(prices.sources["premium_tier"]),
        )
    ]


def _bill_per_tenant(budget: Cost, prices: Prices) -> list[Finding]:
    """The projection lets each tenant cost more than today; payback rests on that."""
    now, later = budget.now, budget.projected
    each, then = now.cloud_month.value / now.tenants, later.cloud_month.value / later.tenants
    if then <= each:
        return []
    bill = each * later.tenants
    months = _months(budget.capex, bill, budget.cash_opex_month.value)
    payback = months.arithmetic if months else "never"
    return [
        Finding(
            "cloud-bill-per-tenant",
            "minor",
            0.4,
            f"The projected bill takes {_money(then, prices)} per tenant, today's {_money(each, prices)}: at today's"
            f" price {later.tenants} tenants cost {_money(bill, prices)} and payback is {payback}",
            "say why a tenant will cost more, or plan with today's price",
            str(prices.sources["cloud_month"][later.tenants]),
        )
    ]


def _left_out(cost: Cost, prices: Prices) -> Finding:
    saving = cost.projected.saving_month.value
    step = _money(10_000, prices)
    more = f"each {step} more adds {10_000 / saving:.1f} months" if saving > 0 else f"each {step} more adds to the loss"
    return Finding(
        "capex-left-out",
        "note",
        0.5,
        f"The plan's capex of {_money(cost.capex, prices)} names no price for {LEFT_OUT}: {more} to the payback at"
        f" {cost.projected.tenants} tenants",
        "add their offers to the capex before the tier is picked",
        "upgrade plan, sections 1, 3 and 7",
    )


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(cost: Cost) -> dict[str, Any]:
    """Plain data: figures as `{value, unit, arithmetic}`, null where nothing ever pays; tenants are text keys."""
    plain = asdict(cost)
    plain["claims"] = {claim.pop("name"): claim for claim in plain["claims"]}
    plain["payback_by_tenants"] = {str(tenants): months for tenants, months in plain["payback_by_tenants"].items()}
    rounded(plain, 2)
    return plain
