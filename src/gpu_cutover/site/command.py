"""`gpu-cutover site check -i SITE [--json]`: is the declaration right, and what follows from it on one screen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `check` and its options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser("check", help="validate a site directory and show what follows from it")
    check.add_argument("-i", "--inventory", type=Path, required=True, metavar="SITE", help="the site's directory")
    check.add_argument("--json", action="store_true", help="print plain data instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the summary and return 0. Raises InputError (exit 2) for the first thing wrong."""
    from .load import load_site

    summary = summarise(load_site(args.inventory))
    print(json.dumps(summary, indent=2) if args.json else "\n".join(lines(summary)))
    return EXIT_DONE


def summarise(site: Any) -> dict[str, Any]:
    """What a person wants to know of a valid site, as plain data. Sizes in GiB, power in W."""
    from ..catalog import load_catalog
    from ..planning.derive import derive
    from ..planning.placement import better

    plan = derive(site)
    return {
        "name": plan["name"],
        "stage": plan["stage"],
        "tier": plan["tier"]["name"],
        "digest": plan["digest"],
        "targets_from": plan["targets_from"],
        "hosts": site.hosts,
        "routes": {name: route["model"] for name, route in site.declared()["routes"].items()},
        "tenants": {name: {**tenant, "order": _order(plan, name)} for name, tenant in plan["tenants"].items()},
        "placements": {name: _placement(site, name, plan, load_catalog()) for name in plan["placements"]},
        "better_placements": better(site, load_catalog()),
        "targets": plan["targets"],
        "power": {**plan["power"], "psu_load_max": plan["gates"]["psu_load_max"]},
        "unlocked_models": [name for name, engine in plan["engines"].items() if not engine["locked"]],
    }


def _order(plan: dict[str, Any], tenant: str) -> int | None:
    order = plan["cutover"]["order"]
    return order.index(tenant) + 1 if tenant in order else None


def _placement(site: Any, name: str, plan: dict[str, Any], catalog: Any) -> dict[str, Any]:
    from ..planning import bars
    from .rules import fit_of, lost_gpu

    verdict = fit_of(site.spec, name, catalog)
    return {
        "lost": lost_gpu(name),
        "gpus": bars.memory(verdict),
        "cache_tokens": {model: tokens for model, tokens in verdict.kv_tokens.items() if tokens},
        "off": plan["placements"][name]["off"],
        "degraded": plan["placements"][name]["degraded"],
    }


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary as text."""
    count = sum(len(hosts) for hosts in summary["hosts"].values())
    yield f"{summary['name']}: {summary['tier']}, {summary['stage']}, {count} hosts - the declaration is valid"
    yield ""
    yield from _tenant_lines(summary)
    yield ""
    yield from _placement_lines(summary)
    yield from (f"  {name} could be better: {how}" for name, how in summary["better_placements"].items())
    yield ""
    yield from _target_lines(summary)
    yield ""
    yield from _power_lines(summary["power"])
    if summary["unlocked_models"]:
        yield f"Not locked yet (day 5 refuses them): {', '.join(summary['unlocked_models'])}"


def _tenant_lines(summary: dict[str, Any]) -> Iterator[str]:
    yield "Tenants            policy      cutover"
    for name, tenant in summary["tenants"].items():
        moves = "drills only" if tenant["synthetic"] else "stays on the cloud"
        if tenant["order"]:
            moves = f"{tenant['order']}."
        kept = [route for route, state in tenant["declared"].items() if state == "cloud"]
        exceptions = f", {' '.join(kept)} on the cloud" if tenant["policy"] == "standard" and kept else ""
        yield f"  {name:<16} {tenant['policy']:<11} {moves}{exceptions}"


def _placement_lines(summary: dict[str, Any]) -> Iterator[str]:
    from ..planning import bars

    yield f"Placements         {bars.LEGEND}"
    for name, placement in summary["placements"].items():
        notes = [f"{route}: {reason}" for route, reason in placement["degraded"].items()]
        yield f"  {name}" + (f"  ({'; '.join(notes)})" if notes else "")
        for gpu in placement["gpus"]:
            yield f"    {bars.line(gpu, placement['lost'])}"


def _target_lines(summary: dict[str, Any]) -> Iterator[str]:
    source = " (restatements ignored: TARGETS=plan)" if summary["targets_from"] == "plan" else ""
    yield f"Targets                        plan  accepted     floor  expected{source}"
    for target in summary["targets"]:
        sign = "<=" if target["better"] == "lower" else ">="
        figures = "".join(f"{_figure(target[key]):>10}" for key in ("plan", "accepted", "floor", "expected"))
        note = "" if target["verdict"] in ("met", "measured") else f"  {target['verdict'].upper()}"
        yield f"  {target['name']:<22} {sign}{figures} {target['unit']}{note}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _power_lines(power: dict[str, Any]) -> Iterator[str]:
    allowed = power["usable_redundant_w"] * power["psu_load_max"]
    holds = "holds" if power["dc_w"] <= allowed else "DOES NOT HOLD"
    yield (
        f"Power: {power['dc_w']} W nameplate (DC), {power['usable_redundant_w']} W left when one of {power['feeds']}"
        f" feeds is lost, {allowed:.0f} W at {power['psu_load_max']:.0%}: redundancy {holds}"
    )
