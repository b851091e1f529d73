"""`gpu-cutover route show | set | breaker`: where every tenant is, by the gateways' own word; and one route moved."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_HOLD, InputError, Refused
from ..router.table import ROUTES, STATES
from ..runs.days import require_site_dir
from .common import REASON, add_change_arguments

TOWARDS_US = ("mirror", "onprem")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`show`, `set` and `breaker`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|set|breaker")
    show = verbs.add_parser("show", help="where every tenant is now, asked from every gateway")
    show.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    show.add_argument("--json", action="store_true", help="print JSON")
    put = verbs.add_parser("set", help="put one route of a tenant into a state")
    put.add_argument("tenant", metavar="TENANT")
    put.add_argument("route", metavar="ROUTE", choices=ROUTES, help=", ".join(ROUTES))
    put.add_argument("state", metavar="STATE", choices=STATES, help=", ".join(STATES))
    add_change_arguments(put)
    breaker = verbs.add_parser("breaker", help="hold a model's breaker open (its requests go to the cloud) or closed")
    breaker.add_argument("model", metavar="MODEL")
    breaker.add_argument("override", metavar="open|closed|auto", choices=("open", "closed", "auto"))
    breaker.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    breaker.add_argument("--reason", default=REASON, metavar="WORDS", help="why, for the record")
    breaker.add_argument("--degraded", action="store_true", help="act although a gateway cannot be reached")
    breaker.add_argument("--check", action="store_true", help="dry run: predict, change and record nothing")
    breaker.add_argument("--json", action="store_true", help="print the outcome as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Exit codes: 0 done, 10 refused or a gateway that was not asked or differs, 30 error, 2 wrong input."""
    site_dir = require_site_dir(args.inventory)
    if args.verb == "show":
        return _show(site_dir, args.json)
    return _breaker(site_dir, args) if args.verb == "breaker" else _set(site_dir, args)


def _set(site_dir: Path, args: argparse.Namespace) -> int:
    """Away from our machine a change goes straight; onto it, through Ansible (docs/decisions/0010)."""
    from ..site import load_site
    from .cutover_command import declared_routes, set_routes

    site = load_site(site_dir)
    declared_routes(site, args.tenant)
    direct = args.direct or (args.state not in TOWARDS_US and not args.ansible)
    return set_routes(site, args.tenant, [args.route], args.state, args, direct=direct)


def _breaker(site_dir: Path, args: argparse.Namespace) -> int:
    from .direct import change, new_order

    record = "rollback" if args.override == "open" else "cutover"
    order = new_order("breaker", model=args.model, override=args.override, reason=args.reason, record=record)
    return change(site_dir, order, degraded=args.degraded, dry=args.check, as_json=args.json)


def _show(site_dir: Path, as_json: bool) -> int:
    from .direct import record_from
    from .gateways import Gateways

    with Gateways(site_dir) as gateways:
        answers = gateways.ask({"do": "show"})
        lost = dict(gateways.lost)
        try:
            recorded = record_from(site_dir, gateways, {}, {})
        except (InputError, Refused) as error:
            recorded = []
            print(f"gpu-cutover: changes that the gateways keep were not recorded: {error}", file=sys.stderr)
    shown = {host: answer for host, answer in answers.items() if answer.get("ok")}
    lost |= {host: str(answer.get("message")) for host, answer in answers.items() if not answer.get("ok")}
    different = differences({host: answer["states"] for host, answer in shown.items()})
    if as_json:
        print(json.dumps({"gateways": shown, "lost": lost, "differences": different, "recorded": recorded}))
    else:
        print("\n".join(lines(shown, lost, different, recorded)))
    return EXIT_HOLD if lost or different else EXIT_DONE


def differences(states: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    """Sentences for every route whose state the gateways do not agree on. Pure."""
    found = []
    places = sorted({(tenant, route) for one in states.values() for tenant in one for route in one[tenant]})
    for tenant, route in places:
        told = {host: one.get(tenant, {}).get(route, "–") for host, one in states.items()}
        if len(set(told.values())) > 1:
            found.append(f"{tenant}/{route}: " + ", ".join(f"{state} on {host}" for host, state in told.items()))
    return found


def lines(shown: Mapping[str, Any], lost: Mapping[str, str], different: list[str], recorded: list[str]) -> list[str]:
    """The same for people. Pure."""
    found = []
    for host, answer in shown.items():
        for pool, one in answer["pools"].items():
            found.append(f"{host}, {pool}: version {one['version']} of {one['changed']} ({one['reason']})")
            found += [f"  {sentence}" for sentence in _trouble(one)]
    found += [f"{host} NOT ASKED: {why}" for host, why in lost.items()]
    if shown:
        found += ["", *_states_lines(next(iter(shown.values()))["states"])]
    found += [f"DIFFERENT: {sentence}" for sentence in different]
    found += [f"recorded: {file}" for file in recorded]
    return found


def _trouble(pool: Mapping[str, Any]) -> list[str]:
    router = pool["router"]
    found = [f"the router says: {problem}" for problem in router.get("problems") or []]
    if router.get("table_version") not in (None, pool["version"]):
        found.append(f"the router decides by version {router['table_version']}")
    if router.get("placement") not in (None, "healthy"):
        found.append(f"placement {router['placement']}")
    found += [f"model {model} is rolled back" for model in pool["models_rolled_back"]]
    found += [f"breaker of {model} is held {word}" for model, word in sorted(pool["overrides"].items())]
    held = pool["overrides"]
    return found + [f"breaker of {model} is open" for model in router.get("breakers_open") or [] if model not in held]


def _states_lines(states: Mapping[str, Mapping[str, str]]) -> list[str]:
    routes = [route for route in ROUTES if any(route in one for one in states.values())]
    wide = max((len(tenant) for tenant in states), default=0) + 2
    head = "tenant".ljust(wide) + "".join(f"{route:<8}" for route in routes)
    body = [
        tenant.ljust(wide) + "".join(f"{one.get(route, '–'):<8}" for route in routes)
        for tenant, one in sorted(states.items())
    ]
    return [line.rstrip() for line in (head, *body)]
