"""The plan on paper: does a site hold, before anyone pays for it? All rooms of planning in one answer, as plain data.

`make` judges a site on its own tier or on another one; every figure carries its arithmetic. Pure: the date comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from ..catalog import Catalog, Gpu, Tier, fix_for_unknown
from ..catalog.compat import load_compat
from ..catalog.power import PowerRule, load_power_rule
from ..catalog.prices import load_prices
from ..catalog.written import load_written
from ..errors import InputError
from ..site.model import Calendar, Site
from ..site.model import Power as Supplies
from . import bars, changes, compat, cost, finding, placement, power, tradeoff, written
from .changes import Wanted
from .demand import Demand, demands
from .finding import Finding
from .placement import Placement
from .plan_text import figure
from .targets import RECORDINGS_AT_ONCE, Answerer, Estimate, Load, Setting, estimates, setting_of, verdict

HEALTHY = placement.HEALTHY
WORST_FIRST = ("impossible", "at risk", "met", "measured")
FEEDS = 2  # supplies of a tier hang on two feeds


@dataclass(frozen=True)
class Question:
    """What is asked: a site, the tier to judge it on, how many sessions of which kind at once, and today's date."""

    site: Site
    tier_name: str
    asked: Mapping[str, int]
    today: date

    @property
    def own_tier(self) -> bool:
        """Whether the site is judged on the hardware it declares."""
        return self.tier_name == self.site.spec.tier


@dataclass(frozen=True)
class Ground:
    """A tier with its GPU and supplies, and what would run on it; `swaps`: route → sentence (`tradeoff.swaps`)."""

    name: str
    tier: Tier
    gpu: Gpu
    supplies: Supplies
    placements: Mapping[str, Placement]
    setting: Setting
    estimates: Mapping[str, Estimate]
    swaps: Mapping[str, str] = field(default_factory=dict)


def make(question: Question, catalog: Catalog) -> dict[str, Any]:
    """The whole answer. Raises InputError for an unknown tier or kind of demand, or a number that is none."""
    site = question.site
    if question.tier_name not in catalog.tiers:
        fix = fix_for_unknown("tier", question.tier_name, catalog)
        raise InputError("--tier", question.tier_name, "is not a tier of the catalog", fix)
    asked = demands(site, catalog, question.asked)
    sides = {name: _chosen(name, question, asked, catalog) for name in catalog.tiers}
    ground = _declared(question, asked, catalog) if question.own_tier else sides[question.tier_name]
    targets = _targets(site, ground, question.asked, catalog)
    open_ones = [Wanted(t["name"], t["target"], t["better"]) for t in targets if t["verdict"] in WORST_FIRST[:2]]
    rule = _power_rule(site)
    assessed = power.assess(ground.supplies, ground.tier, ground.gpu, rule)
    price = cost.assess(ground.name, load_prices(), catalog)
    versions = compat.assess(site, load_compat(), question.today)
    found = [
        *written.findings(_bench(ground, sides[ground.name].placements[HEALTHY], question, asked, catalog)),
        *power.findings(assessed, ground.supplies, ground.tier, ground.gpu, rule),
        *cost.findings(price, load_prices()),
        *compat.findings(versions, load_compat()),
        *_site_findings(question, targets, ground, catalog),
    ]
    return {
        "name": site.spec.name,
        "stage": site.spec.stage,
        "tier": ground.name,
        "declared_tier": site.spec.tier,
        "gpu": {"name": ground.gpu.name, "count": ground.tier.gpu_count},
        "targets_from": site.targets_from,
        "verdict": worst(target["verdict"] for target in targets),
        "demand": [{"name": d.name, "route": d.route, "sessions": d.sessions, "tokens": d.tokens} for d in asked],
        "targets": targets,
        "findings": [finding.as_json(one) for one in finding.in_order(found)],
        "changes": [changes.as_json(one) for one in changes.changes(open_ones, ground.setting, catalog)],
        "placements": {name: _placement(one, ground, catalog) for name, one in ground.placements.items()},
        "power": power.as_json(assessed),
        "cost": cost.as_json(price),
        "compat": compat.as_json(versions),
        "tiers": {name: _side(side, question, catalog) for name, side in sides.items()},
    }


def _power_rule(site: Site) -> PowerRule:
    """The catalog's rule with the share of the supplies that this site's gates allow."""
    return replace(load_power_rule(), psu_load_max=float(site.spec.gates.psu_load_max))


def worst(verdicts: Iterable[str]) -> str:
    """The worst of the verdicts; what only a measurement can tell counts as met."""
    found = set(verdicts)
    return next((word for word in WORST_FIRST[:2] if word in found), "met")


# --- what would run --------------------------------------------------------------------------------------------------


def _load(asked: Iterable[Demand], explicit: Mapping[str, int]) -> Load:
    """Sessions at once. Two recordings meet even where the memory is planned for one, unless a number is asked for."""
    sessions = {demand.name: demand.sessions for demand in asked}
    return Load(sessions.get("soap", 0), sessions.get("chat", 0), explicit.get("audio", RECORDINGS_AT_ONCE))


def _declared(question: Question, asked: tuple[Demand, ...], catalog: Catalog) -> Ground:
    """The site on its own hardware, as it declares itself."""
    site, tier = question.site, catalog.tiers[question.tier_name]
    setting = setting_of(site, catalog, _load(asked, question.asked))
    return Ground(
        question.tier_name,
        tier,
        catalog.gpus[tier.gpu],
        site.spec.power,
        placement.declared_placements(site, catalog, question.asked),
        setting,
        estimates(setting, catalog, _promised(site)),
    )


def _chosen(name: str, question: Question, asked: tuple[Demand, ...], catalog: Catalog) -> Ground:
    """A tier with the models the planner would choose for the site's routes, whatever the site declares."""
    site, tier = question.site, catalog.tiers[name]
    gpu = catalog.gpus[tier.gpu]
    wishes = placement.chosen_wishes(site, catalog, question.asked)
    placements = placement.all_placements(wishes, tuple(site.spec.routes), asked, tier, catalog)
    healthy = placements[HEALTHY]
    setting = Setting(
        gpu=gpu,
        gpu_count=tier.gpu_count,
        answerers=_answerers(healthy, catalog),
        load=_load(asked, question.asked),
        weights_bytes=sum(
            catalog.models[placed.model].weight_bytes(catalog.formats[placed.format]) for placed in healthy.models
        ),
        derate_s=float(site.spec.gates.derate_max_s),
    )
    parts = {"psu_count": tier.psu_count, "psu_watts": tier.psu_watts, "feeds": FEEDS}
    supplies = site.spec.power.model_copy(update=parts)
    return Ground(
        name,
        tier,
        gpu,
        supplies,
        placements,
        setting,
        estimates(setting, catalog, _promised(site)),
        dict(tradeoff.swaps(healthy, _calm(site, asked, tier, catalog), asked)),
    )


def _calm(site: Site, asked: tuple[Demand, ...], tier: Tier, catalog: Catalog) -> Placement:
    """What the planner would choose if nothing ran twice at once."""
    once = {demand.name: min(1, demand.sessions) for demand in asked}
    wishes = placement.chosen_wishes(site, catalog, once)
    return placement.best(wishes, tuple(site.spec.routes), demands(site, catalog, once), tier, catalog)


def _answerers(healthy: Placement, catalog: Catalog) -> dict[str, Answerer]:
    placed = {one.model: one for one in healthy.models}
    return {
        route: Answerer(
            model,
            catalog.models[model],
            catalog.formats[placed[model].format],
            len(placed[model].gpus),
            placed[model].kv_tokens,
        )
        for route, model in healthy.answers.items()
        if model is not None
    }


def _promised(site: Site) -> float:
    return site.spec.targets["availability"].plan


def _placement(one: Placement, ground: Ground, catalog: Catalog) -> dict[str, Any]:
    return {**placement.as_json(one), "memory": bars.memory_of(one, ground.tier, ground.gpu, catalog)}


# --- targets ---------------------------------------------------------------------------------------------------------


def _targets(site: Site, ground: Ground, explicit: Mapping[str, int], catalog: Catalog) -> list[dict[str, Any]]:
    """Every target against the plan's figure, or the number of sessions asked for; a restated one beside it."""
    told = []
    for name, known in catalog.targets.items():
        declared, estimate = site.spec.targets[name], ground.estimates.get(name)
        wanted = float(explicit.get(name.removeprefix("concurrent_"), declared.plan))
        entry: dict[str, Any] = {
            "name": name,
            "title": known.title,
            "unit": known.unit,
            "better": known.better,
            "plan": declared.plan,
            "target": wanted,
            "floor": round(estimate.floor, 8) if estimate and estimate.floor is not None else None,
            "expected": round(estimate.expected, 8) if estimate else None,
            "verdict": verdict(known.better, wanted, estimate),
            "arithmetic": estimate.how if estimate else "nothing in this site answers it",
        }
        if declared.restated:
            entry["accepted"] = declared.restated.accepted
            entry["accepted_verdict"] = verdict(known.better, declared.restated.accepted, estimate)
            entry["reason"], entry["by"] = declared.restated.reason, declared.restated.by
        told.append(entry)
    return told


# --- findings --------------------------------------------------------------------------------------------------------


def _bench(
    ground: Ground, free: Placement, question: Question, asked: tuple[Demand, ...], catalog: Catalog
) -> written.Bench:
    site = question.site

    def instead(route: str, model: str) -> Placement:
        wishes = placement.chosen_wishes(site, catalog, question.asked)
        models = {**free.answers, route: model}
        only = [wish for wish in wishes if all(models[one] == wish.model for one in wish.routes)]
        return placement.best(only, tuple(site.spec.routes), asked, ground.tier, catalog)

    calendar = {day: getattr(site.spec.calendar, day) for day in Calendar.model_fields}
    healthy = ground.placements[HEALTHY]
    chat = healthy.gpus().get(healthy.answers.get("chat") or "", [])
    return written.Bench(
        tier=ground.tier,
        gpu=ground.gpu,
        setting=ground.setting,
        estimates=ground.estimates,
        written=load_written(),
        catalog=catalog,
        calendar=calendar,
        chat_gpus=tuple(chat),
        free=free,
        instead=instead,
    )


def _site_findings(
    question: Question, targets: list[dict[str, Any]], ground: Ground, catalog: Catalog
) -> Iterator[Finding]:
    """What this site itself promises and declares, as against the plan as written."""
    for target in targets:
        if target.get("accepted_verdict", "met") != "met":
            yield Finding(
                f"accepted-{target['name'].replace('_', '-')}",
                "major",
                0.85,
                f"The accepted {target['accepted']:g} {target['unit']} for {target['title']} is"
                f" {target['accepted_verdict']} on {ground.name}: {target['arithmetic']}.",
                f"Accept {figure(target['expected'], target['unit'])} or more, or take one of the changes below.",
                "the site's targets; arithmetic of the planner",
            )
    healthy = ground.placements[HEALTHY]
    for route, reason in {**healthy.degraded, **healthy.off}.items():
        yield Finding(
            f"{route}-not-whole",
            "blocker" if route in healthy.off else "major",
            0.85,
            f"With all GPUs {route} is {'off' if route in healthy.off else 'degraded'}: {reason}.",
            "See what limits the healthy placement, and the changes below.",
            healthy.binding,
        )
    for route, sentence in ground.swaps.items():
        yield Finding(
            f"{route}-model-swapped",
            "note",
            0.8,
            f"{sentence}.",
            "Compare the answers of both before the change, or ask for fewer sessions at once.",
            "the planner's exact search over all legal placements",
        )
    if question.own_tier:
        yield from _better_placements(question.site, catalog)


def _better_placements(site: Site, catalog: Catalog) -> Iterator[Finding]:
    for name, difference in placement.better(site, catalog).items():
        yield Finding(
            f"better-placement-{name}",
            "minor" if name == HEALTHY else "note",
            0.9,
            f"The declared placement {name} is not the best for the site's models: {difference}.",
            "Declare the planner's in site.yml: it keeps every route and the memory rule.",
            "the planner's exact search over all legal placements",
        )


# --- tiers side by side ----------------------------------------------------------------------------------------------


def _side(ground: Ground, question: Question, catalog: Catalog) -> dict[str, Any]:
    """One tier in a few lines: what would run, what holds, its power and its price."""
    assessed = power.as_json(power.assess(ground.supplies, ground.tier, ground.gpu, _power_rule(question.site)))
    price = cost.as_json(cost.assess(ground.name, load_prices(), catalog))
    targets = _targets(question.site, ground, question.asked, catalog)
    keys = ("name", "title", "unit", "better", "target", "floor", "expected", "verdict", "arithmetic")
    prices = ("currency", "capex", "run_rate_month", "now", "projected", "break_even_tenants")
    return {
        "gpu": {"name": ground.gpu.name, "count": ground.tier.gpu_count},
        "verdict": worst(target["verdict"] for target in targets),
        "targets": [{key: target[key] for key in keys} for target in targets],
        "placements": {name: _placement(one, ground, catalog) for name, one in ground.placements.items()},
        "swaps": list(ground.swaps.values()),
        "power": {key: assessed[key] for key in ("dc_w", "ac_w", "heat_btu_h", "declared", "plan")},
        "cost": {key: price[key] for key in prices},
    }
