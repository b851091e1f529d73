"""`gpu-cutover cutover TENANT [--route R]`: a tenant's routes go to our machine, where the days allow it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from ..errors import InputError, Refused
from ..evidence.records import read_status
from ..runs.days import require_site_dir
from ..runs.start import confirm
from ..site import Site, load_site
from ..site.problems import nearest, shown
from . import judge
from .common import add_change_arguments, through_ansible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who, which route, and how."""
    parser.add_argument("tenant", metavar="TENANT", help="a tenant of the site")
    parser.add_argument("--route", metavar="R", help="one route; else all that the site declares on-prem")
    add_change_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Exit codes: 0 done, 10 refused, 30 error, 2 wrong input."""
    site_dir = require_site_dir(args.inventory)
    site = load_site(site_dir)
    routes = declared_routes(site, args.tenant)
    if args.route:
        if args.route not in routes:
            fix = nearest(args.route, routes) if routes else "declare its policy or its routes otherwise"
            raise InputError("command line", "--route", f"{args.tenant} is not declared on-prem for it", fix)
        routes = [args.route]
    if not routes:
        raise InputError("command line", "TENANT", f"no route of {args.tenant} is declared on-prem", "name another")
    return set_routes(site, args.tenant, routes, "onprem", args, direct=args.direct)


def declared_routes(site: Site, tenant: str) -> list[str]:
    """The routes that a tenant's cutover ends on-prem with. Raises InputError for a tenant the site does not have."""
    from ..planning.derive import derive

    tenants = derive(site)["tenants"]
    if tenant not in tenants:
        raise InputError(
            "command line", "TENANT", f"{shown(tenant)} is not a tenant of this site", nearest(tenant, tenants)
        )
    return [route for route, state in tenants[tenant]["declared"].items() if state == "onprem"]


def set_routes(
    site: Site, tenant: str, routes: list[str], state: str, args: argparse.Namespace, *, direct: bool
) -> int:
    """Put routes into a state on every gateway, once gates and the person agree. Raises Refused and InputError."""
    site_dir: Path = site.directory
    today = datetime.now(UTC).date()
    refused = judge.gate_refusal(read_status(site_dir), tenant, state, site.spec.first_tenant, today)
    if refused:
        raise Refused(refused)
    if not args.yes and not args.check:
        confirm(f"{tenant}: {', '.join(routes)} → {state}", {"gateway": site.hosts["gateway"]})
    if not direct:
        if args.degraded:
            raise InputError("command line", "--degraded", "Ansible stops at a lost host", "add --direct")
        variables = {"tenant": tenant, "routes": ",".join(routes), "state": state, "reason": args.reason}
        return through_ansible(site_dir, "cutover", variables, args)
    from .direct import change, new_order

    order = new_order(
        "set",
        states={tenant: dict.fromkeys(routes, state)},
        reason=args.reason,
        record="cutover" if state in ("mirror", "onprem") else "rollback",
    )
    order["check"] = args.how
    return change(site_dir, order, degraded=args.degraded, dry=args.check, as_json=args.json)
