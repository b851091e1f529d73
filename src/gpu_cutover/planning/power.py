"""Does the power hold: supplies with one lost, caps that survive it, UPS, battery, heat, energy. Pure.

Every figure comes with its arithmetic in one line. DC watts are what the parts draw behind the supplies, AC watts what
the supplies draw from the wall (DC over their efficiency). The formulas are the usual ones of rack planning; the
margins and efficiencies in them are `catalog/power.yml`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..catalog import Gpu, Tier
from ..catalog.power import PowerRule, load_power_rule
from ..site.model import Power as Declared
from .figure import Figure, rounded
from .finding import Finding, in_order

BTU_PER_WH = 3.412
W_PER_TON = 3517  # one ton of refrigeration
PLAN = "upgrade plan, section 3; catalog tier and GPU power"
SITE = "site power; catalog tier and GPU power"


@dataclass(frozen=True)
class Supplies:
    """Power supplies of one chassis, spread evenly over its feeds."""

    count: int
    watts: int
    feeds: int

    def __str__(self) -> str:
        return f"{self.count} x {self.watts} W on {self.feeds} feed{'s' if self.feeds > 1 else ''}"

    def usable_w(self) -> int:
        """DC watts while every supply works."""
        return self.count * self.watts

    def remaining(self) -> int:
        """Supplies left after the loss to be survived: with A/B feeds the fuller feed's, with one feed a single one."""
        lost = math.ceil(self.count / self.feeds) if self.feeds > 1 else 1
        return self.count - lost

    def remaining_w(self) -> int:
        """DC watts after that loss."""
        return self.remaining() * self.watts


@dataclass(frozen=True)
class Redundancy:
    """One set of supplies against the load.

    `gpu_cap_w` per GPU keeps the load within what remains; `cap_allowed` is None where nobody has read the board's
    lowest limit.
    """

    supplies: Supplies
    remaining_w: Figure
    load: Figure | None
    redundant: bool
    carries: bool
    gpu_cap_w: Figure
    cap_allowed: bool | None
    feed_loss: str


@dataclass(frozen=True)
class Sizing:
    """What a load of so many AC watts asks of the room."""

    load_w: float
    ups_kva: Figure
    battery_kwh: Figure
    heat_btu_h: Figure
    heat_tons: Figure
    facility_kwh_year: Figure


@dataclass(frozen=True)
class Power:
    """The power of one server; `declared` are the site's supplies, `plan` those of the plan as written."""

    dc_w: Figure
    ac_w: Figure
    tdp_headroom: Figure
    three_gpus_dc_w: Figure
    three_gpus_ac_w: Figure
    supply_a: Figure
    feed_a: Figure
    declared: Redundancy
    plan: Redundancy
    ups_kva: Figure
    ups_minutes: Figure
    battery_kwh: Figure
    heat_btu_h: Figure
    heat_tons: Figure
    facility_kwh_year: Figure
    at_plan_tdp: Sizing


# --- formulas --------------------------------------------------------------------------------------------------------


def dc_w(tier: Tier, gpu: Gpu, gpus: int | None = None) -> int:
    """Nameplate sum behind the supplies, W: GPUs at their board limit, processors at TDP, the rest."""
    count = tier.gpu_count if gpus is None else gpus
    return count * gpu.power_max_w + tier.cpu_count * tier.cpu_tdp_w + tier.rest_w


def ac_w(dc: float, efficiency: float) -> float:
    """Watts from the wall for `dc` watts behind supplies of this efficiency (0..1)."""
    return dc / efficiency


def ups_kva(load_w: float, margin: float, power_factor: float) -> float:
    """UPS rating: W x (1 + margin) / (power factor x 1000)."""
    return load_w * (1 + margin) / (power_factor * 1000)


def ups_minutes(battery_kwh: float, load_w: float, efficiency: float, usable: float = 1.0) -> float:
    """How long a battery carries a load: kWh x usable share x inverter efficiency / kW x 60."""
    return battery_kwh * usable * efficiency / (load_w / 1000) * 60


def battery_kwh(load_w: float, minutes: float, efficiency: float, usable: float = 1.0) -> float:
    """Battery that carries a load for so many minutes: the inverse of `ups_minutes`."""
    return load_w / 1000 * minutes / 60 / efficiency / usable


def gpu_cap_w(remaining_w: float, load_max: float, others_w: float, gpus: int) -> float:
    """Watts each GPU may draw so that `remaining_w` of supplies carry the load: (rating x load_max - others) / GPUs."""
    return (remaining_w * load_max - others_w) / gpus


def facility_kwh_year(load_w: float, pue: float, hours: float) -> float:
    """Energy of the room in a year with the load always on: kW x PUE x hours."""
    return load_w / 1000 * pue * hours


# --- one server ------------------------------------------------------------------------------------------------------


def assess(declared: Declared, tier: Tier, gpu: Gpu, rule: PowerRule | None = None) -> Power:
    """The power of a site's server: nameplate sums, both sets of supplies, UPS, heat, energy.

    The plan's supplies are judged on two feeds, the best case it leaves open. A site with another `gates.psu_load_max`
    passes `replace(rule, psu_load_max=...)`.
    """
    rule = rule or load_power_rule()
    dc = _dc(tier, gpu, tier.gpu_count)
    ac = _ac(dc, tier)
    three = _dc(tier, gpu, tier.gpu_count - 1)
    ours = Supplies(declared.psu_count, declared.psu_watts, declared.feeds)
    plans = Supplies(tier.plan_psu_count, tier.psu_watts, 2)
    size = sizing(ac.value, declared.ups_minutes_min, rule)
    return Power(
        dc_w=dc,
        ac_w=ac,
        tdp_headroom=_headroom(ac.value, tier),
        three_gpus_dc_w=three,
        three_gpus_ac_w=_ac(three, tier),
        supply_a=_supply_amperes(declared.psu_watts, tier.psu_efficiency, rule),
        feed_a=_feed_amperes(ac.value, rule),
        declared=redundancy(ours, tier, gpu, rule),
        plan=redundancy(plans, tier, gpu, rule),
        ups_kva=size.ups_kva,
        ups_minutes=_minutes(declared.ups_battery_kwh, ac.value, rule),
        battery_kwh=size.battery_kwh,
        heat_btu_h=size.heat_btu_h,
        heat_tons=size.heat_tons,
        facility_kwh_year=size.facility_kwh_year,
        at_plan_tdp=sizing(tier.plan_tdp_w, declared.ups_minutes_min, rule),
    )


def redundancy(supplies: Supplies, tier: Tier, gpu: Gpu, rule: PowerRule) -> Redundancy:
    """Whether supplies carry the nameplate load with one feed (or, on one feed, one supply) lost, at `psu_load_max`."""
    dc, left = dc_w(tier, gpu), supplies.remaining_w()
    limit = rule.psu_load_max
    others = tier.cpu_count * tier.cpu_tdp_w + tier.rest_w
    cap = gpu_cap_w(left, limit, others, tier.gpu_count)
    lost = "one feed" if supplies.feeds > 1 else "one supply"
    return Redundancy(
        supplies=supplies,
        remaining_w=Figure(
            left, "W", f"{supplies}, {lost} lost: {supplies.remaining()} x {supplies.watts} W = {left} W"
        ),
        load=Figure(dc / left, "of rating", f"{dc} W / {left} W = {dc / left:.0%}") if left else None,
        redundant=dc <= left * limit,
        carries=dc <= supplies.usable_w(),
        gpu_cap_w=Figure(
            cap, "W", f"({left} W x {limit:g} - {others} W of processors and the rest) / {tier.gpu_count} = {cap:.0f} W"
        ),
        cap_allowed=None if gpu.power_min_w is None else cap >= gpu.power_min_w,
        feed_loss=_feed_loss(supplies, dc, dc <= left * limit),
    )


def sizing(load_w: float, minutes: float, rule: PowerRule) -> Sizing:
    """UPS, battery, heat and energy for an AC load in W that the battery must carry for `minutes`."""
    kva = ups_kva(load_w, rule.ups_margin, rule.power_factor)
    kwh = battery_kwh(load_w, minutes, rule.ups_efficiency, rule.battery_usable)
    heat, tons = load_w * BTU_PER_WH, load_w / W_PER_TON
    year = facility_kwh_year(load_w, rule.pue, rule.hours_per_year)
    return Sizing(
        load_w=load_w,
        ups_kva=Figure(
            kva, "kVA", f"{load_w:.0f} W x {1 + rule.ups_margin:g} / ({rule.power_factor:g} x 1000) = {kva:.2f} kVA"
        ),
        battery_kwh=Figure(
            kwh,
            "kWh",
            f"{load_w / 1000:.2f} kW x {minutes:g} min / 60 / {rule.ups_efficiency:g} / {rule.battery_usable:g}"
            f" = {kwh:.2f} kWh",
        ),
        heat_btu_h=Figure(heat, "BTU/h", f"{load_w:.0f} W x {BTU_PER_WH} = {heat:.0f} BTU/h"),
        heat_tons=Figure(tons, "tons", f"{load_w:.0f} W / {W_PER_TON} = {tons:.2f} tons of cooling"),
        facility_kwh_year=Figure(
            year, "kWh", f"{load_w / 1000:.2f} kW x PUE {rule.pue:g} x {rule.hours_per_year} h = {year:.0f} kWh"
        ),
    )


def _dc(tier: Tier, gpu: Gpu, gpus: int) -> Figure:
    total = dc_w(tier, gpu, gpus)
    parts = f"{gpus} x {gpu.power_max_w} W + {tier.cpu_count} x {tier.cpu_tdp_w} W + {tier.rest_w} W"
    return Figure(total, "W", f"{parts} = {total} W")


def _ac(dc: Figure, tier: Tier) -> Figure:
    value = ac_w(dc.value, tier.psu_efficiency)
    return Figure(value, "W", f"{dc.value:.0f} W / {tier.psu_efficiency:g} = {value:.0f} W")


def _headroom(ac: float, tier: Tier) -> Figure:
    share = tier.plan_tdp_w / ac - 1
    return Figure(share, "share", f"{tier.plan_tdp_w} W / {ac:.0f} W - 1 = {share:.0%}")


def _supply_amperes(watts: int, efficiency: float, rule: PowerRule) -> Figure:
    amperes = watts / efficiency / rule.mains_v
    return Figure(amperes, "A", f"{watts} W / {efficiency:g} / {rule.mains_v:g} V = {amperes:.1f} A")


def _feed_amperes(ac: float, rule: PowerRule) -> Figure:
    """What one feed carries when the other is lost: the whole server."""
    amperes = ac / rule.mains_v
    breaker = math.ceil(amperes / rule.breaker_share)
    text = f"{ac:.0f} W / {rule.mains_v:g} V = {amperes:.1f} A on the surviving feed, a breaker of {breaker} A or more"
    return Figure(amperes, "A", text)


def _minutes(kwh: float, ac: float, rule: PowerRule) -> Figure:
    value = ups_minutes(kwh, ac, rule.ups_efficiency, rule.battery_usable)
    return Figure(
        value,
        "min",
        f"{kwh:g} kWh x {rule.battery_usable:g} x {rule.ups_efficiency:g} / {ac / 1000:.2f} kW x 60 = {value:.1f} min",
    )


def _feed_loss(supplies: Supplies, dc: int, redundant: bool) -> str:
    if supplies.feeds == 1:
        return "one feed: when it is lost and the UPS is empty the whole node is off, every route with it"
    left = supplies.remaining_w()
    if redundant:
        return f"nothing: {left} W remain for {dc} W"
    return f"the whole node: {left} W cannot carry {dc} W, what survives switches off on overload and every GPU with it"


# --- findings --------------------------------------------------------------------------------------------------------


def findings(
    power: Power, declared: Declared, tier: Tier, gpu: Gpu, rule: PowerRule | None = None
) -> tuple[Finding, ...]:
    """What is wrong with the plan's power and with the site's, worst first."""
    rule = rule or load_power_rule()
    found = [
        *_plan_supplies(power, tier, gpu, rule),
        *_site_supplies(power, tier, gpu, rule),
        *_ups(power, declared),
        *_headroom_finding(power, tier, rule),
        *_cords(power, rule),
    ]
    return in_order(found)


def enough(tier: Tier, gpu: Gpu, watts: int, rule: PowerRule) -> Supplies:
    """The fewest supplies of this rating, as many on each of two feeds, that carry the load with one feed lost."""
    each = math.ceil(dc_w(tier, gpu) / (watts * rule.psu_load_max))
    return Supplies(2 * each, watts, 2)


def _enough_words(tier: Tier, gpu: Gpu, watts: int, rule: PowerRule) -> str:
    fix = enough(tier, gpu, watts, rule)
    half = fix.count // 2
    single = dc_w(tier, gpu) / rule.psu_load_max
    text = f"{fix.count} x {watts} W, {half} on each of two feeds ({half}+{half}: {fix.remaining_w()} W remain)"
    return f"{text}, or two supplies of at least {math.ceil(single / 100) * 100} W if the chassis takes them"


def _plan_supplies(power: Power, tier: Tier, gpu: Gpu, rule: PowerRule) -> list[Finding]:
    plan, fix = power.plan, f"order {_enough_words(tier, gpu, tier.psu_watts, rule)}"
    if plan.redundant:
        return []
    three = power.three_gpus_dc_w.value
    derated = f", with three GPUs too ({three:.0f} W)" if three > plan.remaining_w.value * rule.psu_load_max else ""
    found = [
        Finding(
            "psu-not-redundant",
            "major",
            0.95,
            f"The plan's {plan.supplies.count} x {plan.supplies.watts} W are called redundant, but with one lost"
            f" {plan.remaining_w.value:.0f} W remain for {power.dc_w.arithmetic} (nameplate): the whole node goes off"
            f"{derated}",
            fix,
            PLAN,
        )
    ]
    return [*found, _cap(power, tier, gpu, rule)]


def _cap(power: Power, tier: Tier, gpu: Gpu, rule: PowerRule) -> Finding:
    """Whether the GPUs can be capped so far that one supply of the plan carries the server."""
    cap, lowest = power.plan.gpu_cap_w, gpu.power_min_w
    source = "board power range: catalog GPU; supplies: upgrade plan, section 3"
    if lowest is not None and cap.value < lowest:
        below = _lowest(power, tier, gpu)
        text = f"No GPU cap lets the plan's supplies survive the loss of one: {cap.arithmetic}, below {below}"
        fix = _processor_cap(power.plan.remaining_w.value, tier, lowest, rule)
        return Finding("psu-cap-impossible", "major", 0.6, text, fix, source)
    allowed = "; what the board allows is not known" if lowest is None else f", and the board allows {lowest} W or more"
    return Finding(
        "psu-cap",
        "note",
        0.6,
        f"With the plan's supplies a lost one is survived only with every GPU capped: {cap.arithmetic}{allowed}"
        f" (its limit is {gpu.power_max_w} W)",
        f"as an emergency measure set `nvidia-smi -pl {math.floor(cap.value)}` at every start, before any load: it does"
        " not survive a reboot and costs speed",
        source,
    )


def _lowest(power: Power, tier: Tier, gpu: Gpu) -> str:
    """The board's lowest limit, and what the server draws there."""
    least = gpu.power_min_w or 0
    draw = dc_w(tier, gpu) - tier.gpu_count * (gpu.power_max_w - least)
    left = power.plan.remaining_w.value
    share = f" ({draw / left:.0%})" if left else ""
    return f"the board's {least} W, and even there the server draws {draw} W of {left:.0f} W{share}"


def _processor_cap(remaining: float, tier: Tier, least: int, rule: PowerRule) -> str:
    """Whether capping the processors too leaves the GPUs a legal cap."""
    more = "more supplies are the remedy"
    lowest = rule.cpu_min_w.get(tier.cpu_model)
    if lowest is None:
        return f"{more}; how far the {tier.cpu_model} can be capped is not in the catalog"
    cap = gpu_cap_w(remaining, rule.psu_load_max, tier.cpu_count * lowest + tier.rest_w, tier.gpu_count)
    if cap < least:
        return f"{more}: even with processors at {lowest} W each GPU would have {cap:.0f} W"
    return f"{more}; with processors at {lowest} W (cTDP) each GPU could have {cap:.0f} W, at a fraction of its speed"


def _site_supplies(power: Power, tier: Tier, gpu: Gpu, rule: PowerRule) -> list[Finding]:
    ours = power.declared
    fix = f"declare and buy {_enough_words(tier, gpu, ours.supplies.watts, rule)}"
    if not ours.carries:
        text = f"{ours.supplies} give {ours.supplies.usable_w()} W, the nameplate sum is {power.dc_w.arithmetic}"
        return [Finding("site-psu-overloaded", "blocker", 1.0, text, fix, SITE)]
    if not ours.redundant:
        text = (
            f"{ours.remaining_w.arithmetic}, and the nameplate sum {power.dc_w.value:.0f} W may be at most"
            f" {rule.psu_load_max:.0%} of it: day 1 fails"
        )
        return [Finding("site-psu-not-redundant", "blocker", 0.8, text, fix, SITE)]
    if ours.supplies.feeds == 1:
        text = f"{ours.supplies} survive a lost supply, but {ours.feed_loss}"
        return [
            Finding("site-one-feed", "minor", 0.6, text, "bring a second feed to the rack and split the supplies", SITE)
        ]
    return []


def _ups(power: Power, declared: Declared) -> list[Finding]:
    found = []
    if declared.ups_kva < round(power.ups_kva.value, 2):
        text = f"The UPS of {declared.ups_kva:g} kVA is too small: {power.ups_kva.arithmetic}"
        fix = f"a UPS of {math.ceil(power.ups_kva.value * 2) / 2:g} kVA or more"
        found.append(Finding("ups-too-small", "blocker", 0.7, text, fix, SITE))
    if round(power.ups_minutes.value, 1) < declared.ups_minutes_min:
        text = f"The battery is empty before {declared.ups_minutes_min:g} minutes: {power.ups_minutes.arithmetic}"
        fix = f"{math.ceil(power.battery_kwh.value * 10) / 10:g} kWh of usable battery: {power.battery_kwh.arithmetic}"
        found.append(Finding("ups-too-short", "blocker", 0.6, text, fix, SITE))
    return found


def _headroom_finding(power: Power, tier: Tier, rule: PowerRule) -> list[Finding]:
    headroom = power.tdp_headroom
    text = f"The plan's TDP of {tier.plan_tdp_w} W against {power.ac_w.value:.0f} W AC nameplate: {headroom.arithmetic}"
    if headroom.value < 0:
        fix = f"size rack, feeds and UPS for {math.ceil(power.ac_w.value / 100) * 100} W"
        return [Finding("tdp-headroom", "major", 0.5, f"{text}, less than nothing is left", fix, PLAN)]
    if headroom.value < rule.tdp_headroom_min:
        fix = "measure the draw in burn-in (day 6) with the fans at full speed before the rack's budget is signed"
        words = f"{text} is left for fans at full speed and estimates of the rest ({tier.rest_w} W)"
        return [Finding("tdp-headroom", "minor", 0.5, words, fix, PLAN)]
    fix = "none needed; measure the draw in burn-in (day 6)"
    return [Finding("tdp-headroom", "note", 0.2, f"{text} is left", fix, PLAN)]


def _cords(power: Power, rule: PowerRule) -> list[Finding]:
    if power.supply_a.value <= rule.inlet_a:
        return []
    text = f"A supply at full load draws {power.supply_a.arithmetic}, more than the {rule.inlet_a:g} A of a C13 outlet"
    fix = f"order C19 outlets and 200-240 V; and for a lost feed: {power.feed_a.arithmetic}"
    return [Finding("supply-needs-c19", "note", 0.5, text, fix, str(rule.sources["inlet_a"]))]


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(power: Power) -> dict[str, Any]:
    """Plain data: figures as `{value, unit, arithmetic}`, values to four digits after the point."""
    plain = asdict(power)
    rounded(plain)
    return plain
