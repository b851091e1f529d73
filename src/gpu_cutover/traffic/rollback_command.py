"""`gpu-cutover rollback TENANT | --route R | --model M | --all`: back to the cloud, straight to all gateways."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..runs.days import require_site_dir
from . import judge
from .common import add_change_arguments, through_ansible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who goes back, and how."""
    parser.add_argument("tenant", nargs="?", metavar="TENANT", help="this tenant")
    parser.add_argument("--route", metavar="R", help="one route, of the tenant or of everybody")
    parser.add_argument("--model", metavar="M", help="every route that this model answers")
    parser.add_argument("--all", action="store_true", help="everybody, every route")
    parser.add_argument("--clear", action="store_true", help="with --model: give the model back instead")
    parser.add_argument(
        "--accept-off", action="store_true", help="take sensitive tenants out of service instead of leaving them"
    )
    add_change_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Exit codes: 0 done, 10 refused or something had to wait, 30 not confirmed everywhere, 2 wrong input.

    No question is asked: a rollback is legal in every state and waits for nobody.
    """
    site_dir = require_site_dir(args.inventory)
    what = named(args)
    if args.ansible:
        if args.degraded:
            raise InputError("command line", "--degraded", "Ansible stops at a lost host", "leave --ansible out")
        return through_ansible(site_dir, "rollback", {**what, "reason": args.reason}, args)
    from . import direct  # late: wrong words are told without opening anything

    order = direct.new_order(**order_of(what), reason=args.reason, record=record_of(what), check=args.how)

    def stop_where_nothing_can_move(predicted: Mapping[str, judge.Answer]) -> None:
        refuse_sensitive(args.tenant, predicted)

    return direct.change(
        site_dir,
        order,
        degraded=args.degraded,
        dry=args.check,
        as_json=args.json,
        ask=stop_where_nothing_can_move,
    )


def named(args: argparse.Namespace) -> dict[str, str]:
    """What goes back, in the words of `playbooks/rollback.yml`. Raises InputError unless exactly one thing is named."""
    found = ["TENANT"] if args.tenant else ["--route"] if args.route else []
    found += [f"--{key}" for key in ("model", "all") if getattr(args, key)]
    if len(found) != 1:
        problem = f"names {' and '.join(found)} at once" if found else "does not say what goes back"
        raise InputError("command line", "rollback", problem, "give TENANT, --route R (or both), --model M or --all")
    if args.clear and not args.model:
        raise InputError("command line", "--clear", "gives a model back, and none is named", "add --model M")
    what = {key: getattr(args, key) for key in ("tenant", "route", "model") if getattr(args, key)}
    what |= {key: "true" for key in ("all", "clear", "accept_off") if getattr(args, key)}
    return what


def order_of(what: Mapping[str, str]) -> dict[str, Any]:
    """The order that means the same as the playbook's variables. Pure."""
    accept_off = "accept_off" in what
    if "model" in what:
        clear = "clear" in what
        pools = ["hybrid", "sealed"] if clear or accept_off else ["hybrid"]
        return {"do": "model", "model": what["model"], "out": not clear, "pools": pools}
    chosen = {key: what[key] for key in ("tenant", "route") if key in what}
    return {"do": "roll_back", **chosen, "accept_off": accept_off}


def record_of(what: Mapping[str, str]) -> str:
    """The kind of its record."""
    return "cutover" if "clear" in what else "rollback"


def refuse_sensitive(tenant: str | None, predicted: Mapping[str, judge.Answer]) -> None:
    """Raises InputError when one tenant was named and all of it has to stay because it is sensitive."""
    answers = list(predicted.values())
    if tenant and all(one["kept"] and not one["changed"] and not one["waiting"] for one in answers):
        problem = f"{tenant} is sensitive: it has no cloud to go back to and stays on-prem; nothing was changed"
        fix = "add --accept-off to take it out of service, or roll back the model that answers badly"
        raise InputError("command line", "TENANT", problem, fix)
