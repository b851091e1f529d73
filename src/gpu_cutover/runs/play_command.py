"""`gpu-cutover play NAME -i SITE -e key=value`: a verb (derate, restore, …) by the same machinery as a day."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ..catalog import load_catalog
from ..errors import InputError
from ..site import Site, load_site
from .days import Subject, checkout_of, require_site_dir, verb_playbook
from .engine import Finished, Order, execute
from .start import add_common_arguments, confirm, tell
from .verbs import Known, check_variables

_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`NAME`, `-e` and the common ones."""
    parser.add_argument("name", metavar="NAME", help="derate, restore, cutover or rollback")
    parser.add_argument(
        "-e",
        dest="variables",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for example tenant=doc-zam; can be repeated",
    )
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Exit codes: 0 done, 10 refused, 30 error, 2 wrong input or a host that could not be reached."""
    site_dir = require_site_dir(args.inventory)
    variables = parse_variables(args.variables)
    verb_playbook(checkout_of(site_dir), args.name)
    site = load_site(site_dir)
    check_variables(args.name, variables, known_of(site))
    if not args.check and not args.yes:
        words = " ".join([args.name, *(f"{key}={value}" for key, value in variables.items())])
        confirm(f"start {words}", site.hosts)
    stream = sys.stderr if args.json else sys.stdout
    finished, subject = run_verb(site_dir, args.name, variables, stream, check=args.check)
    return tell(finished, subject, site_dir, args.json, stream)


def known_of(site: Site) -> Known:
    """What a verb's variables may name on this site."""
    spec = site.spec
    routed = {route.model for route in spec.routes.values()}
    aliased = {model for routes in spec.aliases.values() for model in routes.values()}
    return Known(
        policies={name: tenant.policy for name, tenant in spec.tenants.items()},
        models=frozenset(routed | aliased),
        gpu_count=load_catalog().tiers[spec.tier].gpu_count,
    )


def parse_variables(pairs: list[str]) -> dict[str, str]:
    """`key=value` words. Raises InputError for anything else, or a key given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not _VARIABLE.fullmatch(key) or not value:
            raise InputError("command line", "-e", f"{pair!r} is not key=value", "write for example -e tenant=doc-zam")
        if key in found:
            raise InputError("command line", "-e", f"{key} is given twice", "give it once")
        found[key] = value
    return found


def run_verb(
    site_dir: Path, verb: str, variables: Mapping[str, str], stream: IO[str], *, check: bool = False
) -> tuple[Finished, Subject]:
    """Run a verb to its end; what the rehearsal uses too. Raises Refused and InputError as `execute` does."""
    checkout = checkout_of(site_dir)
    playbook = verb_playbook(checkout, verb)
    return execute(Order(checkout, site_dir, playbook, variables, check), stream), Subject(verb, None)
