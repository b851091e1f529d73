"""The plan for a terminal: the verdict first, then what hurts, then the figures. At most 110 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import bars

WIDTH = 110


def lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """The whole answer as text."""
    yield from _headline(plan)
    yield from _section("What hurts, worst first", _findings(plan["findings"]))
    yield from _section("Targets", _targets(plan["targets"]))
    yield from _section("What would change it", _changes(plan))
    yield from _section(f"Placement, all GPUs   {bars.LEGEND}", _healthy(plan["placements"]))
    yield from _section("If one GPU is lost", _lost(plan["placements"]))
    yield from _section("Power", _power(plan["power"]))
    yield from _section("Money", _cost(plan["cost"]))
    yield from _section("Versions", _compat(plan["compat"]))
    yield from _section("The tiers side by side, each with the models that fit it best", _tiers(plan))


def _section(title: str, body: Iterator[str]) -> Iterator[str]:
    yield ""
    yield title
    yield from body


def wrapped(text: str, first: str, rest: str) -> Iterator[str]:
    """A paragraph with a hanging indent."""
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def sentence(text: str) -> str:
    """With a capital and a full stop, whoever wrote it."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def figure(value: float | None, unit: str) -> str:
    """A figure in words a person uses: 44.3 s, 5.0 h, 99.71 %, 1,200."""
    if value is None:
        return "-"
    if unit == "ratio":
        return _share(value)
    if unit != "s":
        return f"{value:,.0f}"
    if value >= 5400:
        return f"{value / 3600:,.1f} h"
    if value >= 180:
        return f"{value / 60:.1f} min"
    return f"{value:.3g} s" if value >= 0.1 or value == 0 else f"{value * 1000:.3g} ms"


def _share(value: float) -> str:
    """A share in per cent; what is not all never reads as 100 %."""
    if 0.99999 < value < 1:
        return "> 99.999 %"
    return f"{value * 100:.3f}".rstrip("0").rstrip(".") + " %"


# --- verdict and findings --------------------------------------------------------------------------------------------


def headline(plan: Mapping[str, Any]) -> str:
    """What the verdict rests on, in one sentence."""
    targets = plan["targets"]
    met = sum(target["verdict"] == "met" for target in targets)
    told = [f"{met} of the plan's {len(targets)} targets {'is' if met == 1 else 'are'} met."]
    for word in ("impossible", "at risk"):
        found = [target for target in targets if target["verdict"] == word]
        if found:
            told.append(f"{word.capitalize()}: {'; '.join(_against(target) for target in found)}.")
    return " ".join(told)


def _against(target: Mapping[str, Any]) -> str:
    """Planned and expected; for what is impossible the limit instead."""
    key, word = ("floor", "at best") if target["verdict"] == "impossible" else ("expected", "expected")
    unit = target["unit"]
    asked = "planned" if target["target"] == target["plan"] else "asked"
    return f"{title(target)}, {figure(target['target'], unit)} {asked}, {figure(target[key], unit)} {word}"


def title(target: Mapping[str, Any]) -> str:
    """The target's name without the statistic."""
    return str(target["title"]).removesuffix(", p95")


def accepted(plan: Mapping[str, Any]) -> str:
    """What holds of the figures the site accepts instead of the plan's; empty where it restates none."""
    restated = [target for target in plan["targets"] if "accepted" in target]
    if not restated:
        return ""
    told = [
        f"{title(t)}: {figure(t['accepted'], t['unit'])} instead of {figure(t['plan'], t['unit'])}"
        f" ({t['accepted_verdict']})"
        for t in restated
    ]
    return "This site accepts " + "; ".join(told) + "."


def demand(plan: Mapping[str, Any]) -> str:
    """What runs at once, in one line."""
    told = [
        f"{d['sessions']:,} {d['name']} of {d['tokens']:,} {'windows' if d['route'] == 'audio' else 'tokens'}"
        for d in plan["demand"]
    ]
    return "What runs at once: " + ", ".join(told) + "."


def _headline(plan: Mapping[str, Any]) -> Iterator[str]:
    gpu = plan["gpu"]
    other = "" if plan["tier"] == plan["declared_tier"] else f", declared for {plan['declared_tier']}"
    yield f"{plan['name']} on {plan['tier']} ({gpu['count']} x {gpu['name']}{other}): {plan['verdict'].upper()}"
    for text in (headline(plan), accepted(plan), demand(plan)):
        yield from wrapped(text, "  ", "  ") if text else ()


def _findings(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for found in findings:
        first = f"  {found['severity'].upper():<8} "
        rest = " " * len(first)
        yield from wrapped(sentence(found["text"]), first, rest)
        yield from wrapped(f"-> {sentence(found['fix'])} [{found['id']}]", rest, rest + "   ")


# --- targets and changes ---------------------------------------------------------------------------------------------


def _targets(targets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"  {'':<36} {'plan':>10} {'limit':>10} {'expected':>10}  verdict"
    for target in targets:
        sign = "<=" if target["better"] == "lower" else ">="
        unit = target["unit"]
        wanted = f"{sign} {figure(target['target'], unit)}"
        figures = f"{wanted:>10} {figure(target['floor'], unit):>10} {figure(target['expected'], unit):>10}"
        yield f"  {target['title']:<36} {figures}  {mark(target['verdict'])}"
        yield from wrapped(target["arithmetic"], " " * 6, " " * 6)


def mark(verdict: str) -> str:
    """The verdict, loud where it should be."""
    return verdict if verdict in ("met", "measured") else verdict.upper()


def _changes(plan: Mapping[str, Any]) -> Iterator[str]:
    titles = {target["name"]: target for target in plan["targets"]}
    if not plan["changes"]:
        yield "  nothing needs to: every target is met"
    last = ""
    for change in plan["changes"]:
        target = titles[change["target"]]
        if change["target"] != last:
            sign = "<=" if target["better"] == "lower" else ">="
            yield f"  {target['title']} {sign} {figure(target['target'], target['unit'])}:  limit, expected"
            last = change["target"]
        limit, expected = (figure(change[key], target["unit"]) for key in ("floor", "expected"))
        arrow = "=>" if change["nearest"] else "  "
        first = f"  {arrow} {limit:>9} {expected:>9}  {mark(change['verdict']):<10}  "
        yield from wrapped(change["change"], first, " " * len(first))


# --- placements ------------------------------------------------------------------------------------------------------


def _healthy(placements: Mapping[str, Any]) -> Iterator[str]:
    healthy = placements["healthy"]
    for gpu in healthy["memory"]:
        yield f"  {bars.line(gpu, None)}"
    for placed in healthy["models"]:
        where = "+".join(str(index) for index in placed["gpus"])
        cache = f"{placed['kv_tokens']:,} tokens of {placed['kv_cache_dtype']} cache" if placed["kv_tokens"] else ""
        yield f"  {placed['model']:<26} {placed['format']:<9} GPU {where:<5} {cache}".rstrip()
    yield from wrapped(f"Fits at once: {_capacity(healthy)}. Limit: {healthy['binding']}.", "  ", "    ")


def _capacity(placement: Mapping[str, Any]) -> str:
    return ", ".join(f"{sessions:,} {name}" for name, sessions in placement["capacity"].items()) or "nothing"


def _lost(placements: Mapping[str, Any]) -> Iterator[str]:
    for placement in placements.values():
        if placement["lost"] is None:
            continue
        yield f"  Without GPU {placement['lost']}"
        for gpu in placement["memory"]:
            models = ", ".join(engine["model"] for engine in gpu["engines"]) or "free"
            if gpu["gpu"] != placement["lost"]:
                yield from wrapped(f"GPU {gpu['gpu']}  {gpu['used_gib']:5.1f} GiB  {models}", " " * 4, " " * 10)
        yield from wrapped(f"served: {', '.join(placement['served']) or 'nothing'}", " " * 4, " " * 6)
        for word in ("degraded", "off"):
            for entry in placement[word]:
                yield from wrapped(f"{word}: {entry['route']}, {entry['reason']}", " " * 4, " " * 6)
        moves = [
            f"{verb} {', '.join(placement[verb])}"
            for verb in ("keeps", "restarts", "starts", "stops")
            if placement[verb]
        ]
        yield from wrapped("; ".join(moves), " " * 4, " " * 6)


# --- power, money, versions ------------------------------------------------------------------------------------------


def _power(power: Mapping[str, Any]) -> Iterator[str]:
    for who, key in (("this site", "declared"), ("the plan", "plan")):
        one = power[key]
        word = "redundant" if one["redundant"] else "NOT REDUNDANT"
        supplies = f"{one['supplies']['count']} x {one['supplies']['watts']} W on {one['supplies']['feeds']} feeds"
        yield from wrapped(f"{who + ':':<10} {supplies}: {word}, {one['load']['arithmetic']}", "  ", " " * 13)
    for name, key in (
        ("DC", "dc_w"),
        ("AC", "ac_w"),
        ("UPS", "ups_kva"),
        ("UPS lasts", "ups_minutes"),
        ("heat", "heat_btu_h"),
    ):
        yield from wrapped(f"{name + ':':<10} {power[key]['arithmetic']}", "  ", " " * 13)


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    currency = cost["currency"]
    yield f"  capex {currency} {cost['capex']:,}, per month {cost['run_rate_month']['arithmetic']}"
    for moment in ("now", "projected"):
        payback = cost[moment]
        cash = payback["cash"]["arithmetic"] if payback["cash"] else "never"
        bill = f"{currency} {payback['cloud_month']['value']:,.0f}"
        yield from wrapped(
            f"at {payback['tenants']} tenants the cloud costs {bill} a month; payback {cash}", "  ", "    "
        )
    even = cost["break_even_tenants"]
    text = f"month by month cheaper than the cloud from {even['value']:.0f} tenants: {even['arithmetic']}"
    yield from wrapped(text, "  ", "    ")


def _compat(compat: Mapping[str, Any]) -> Iterator[str]:
    for part in compat["parts"]:
        first = f"  {part['part']:<22} {mark_part(part['verdict']):<12} "
        yield from wrapped(f"{part['pinned']}: {part['why']}", first, " " * len(first))


def mark_part(verdict: str) -> str:
    """A version's verdict, loud where it should be."""
    return verdict if verdict in ("ok", "limited") else verdict.upper()


# --- tiers -----------------------------------------------------------------------------------------------------------


def _tiers(plan: Mapping[str, Any]) -> Iterator[str]:
    tiers = plan["tiers"]
    names = list(tiers)
    column = max(24, (WIDTH - 38) // max(1, len(names)) - 1)

    def row(title: str, cells: Sequence[str]) -> str:
        return f"  {title:<36}" + "".join(f" {cell:<{column}}" for cell in cells).rstrip()

    yield row("", [f"{name} ({tiers[name]['gpu']['count']} x)" for name in names])
    yield row("verdict", [mark(tiers[name]["verdict"]) for name in names])
    for index, target in enumerate(plan["targets"]):
        cells = [tiers[name]["targets"][index] for name in names]
        yield row(target["title"], [f"{figure(c['expected'], c['unit'])} {mark(c['verdict'])}" for c in cells])
    for route in plan["placements"]["healthy"]["answers"]:
        yield row(route, [answers(tiers[name]["placements"]["healthy"], route) for name in names])
    yield row("one GPU lost: degraded or off", [lost_routes(tiers[name]["placements"]) for name in names])
    yield row("power, DC nameplate", [f"{tiers[name]['power']['dc_w']['value']:,} W" for name in names])
    yield row("the plan's supplies", [_redundant(tiers[name]["power"]["plan"]) for name in names])
    yield row("capex", [f"{tiers[name]['cost']['currency']} {tiers[name]['cost']['capex']:,}" for name in names])
    months = [tiers[name]["cost"] for name in names]
    yield row("per month", [f"{one['currency']} {one['run_rate_month']['value']:,.0f}" for one in months])
    yield row("payback at the projected tenants", [_months(tiers[name]["cost"]["projected"]) for name in names])
    for name in names:
        for swap in tiers[name]["swaps"]:
            yield from wrapped(f"{name}: {sentence(swap)}", "  ", "    ")


def answers(placement: Mapping[str, Any], route: str) -> str:
    """Who answers a route: model and format."""
    model = placement["answers"].get(route)
    formats = {placed["model"]: placed["format"] for placed in placement["models"]}
    return f"{model} {formats[model]}" if model else "nobody"


def lost_routes(placements: Mapping[str, Any]) -> str:
    """Routes that are not whole in any placement without a GPU."""
    found = {
        entry["route"]
        for placement in placements.values()
        if placement["lost"] is not None
        for word in ("degraded", "off")
        for entry in placement[word]
    }
    return ", ".join(sorted(found)) or "none"


def _redundant(redundancy: Mapping[str, Any]) -> str:
    return "redundant" if redundancy["redundant"] else "NOT REDUNDANT"


def _months(payback: Mapping[str, Any]) -> str:
    return f"{payback['cash']['value']:.1f} months" if payback["cash"] else "never"
