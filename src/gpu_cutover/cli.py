"""The command line: a table of commands, each in the `command.py` of its room.

A room is imported only when its command runs, so that `gpu-cutover status` starts in a fraction of a second.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .errors import EXIT_ERROR, EXIT_HOLD, EXIT_USAGE, InputError, Refused

COMMANDS: dict[str, tuple[str, str]] = {
    "site": ("gpu_cutover.site.command", "check a declared site"),
    "plan": ("gpu_cutover.planning.plan_command", "does a site hold, on paper, before anyone pays for it"),
    "day": ("gpu_cutover.runs.day_command", "run one of the ten days"),
    "play": ("gpu_cutover.runs.play_command", "run a verb: derate, restore, cutover, rollback"),
    "route": ("gpu_cutover.traffic.route_command", "where every tenant is; move one route; hold a breaker"),
    "cutover": ("gpu_cutover.traffic.cutover_command", "a tenant's routes go to our machine"),
    "rollback": ("gpu_cutover.traffic.rollback_command", "back to the cloud, at once, on every gateway"),
    "status": ("gpu_cutover.runs.status_command", "what has happened, what is next, what was interrupted"),
    "waive": ("gpu_cutover.evidence.waive_command", "waive a day's gate with a reason and an expiry date"),
    "evidence": ("gpu_cutover.evidence.command", "verify or show the ledger"),
    "audit": ("gpu_cutover.audit.command", "the gateways' request records: collect, verify, query, export"),
    "report": ("gpu_cutover.report.command", "write the HTML report from the ledger"),
    "bundle": ("gpu_cutover.bundle.command", "build or verify the offline bundle"),
    "twin": ("gpu_cutover.twin.command", "the rehearsal hosts: up, down, faults"),
    "rehearse": ("gpu_cutover.twin.rehearse_command", "the ten days on the twin, from nothing to a report"),
}


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-cutover", description="Ten gated days from cloud LLMs to an own GPU server."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == command:
            importlib.import_module(module).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (0 done, 2 usage, 10 hold, 20 fail, 30 error)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parsed = _parser(command).parse_args(arguments)
    os.umask(0o077)  # run artifacts and keys are private by default
    try:
        return int(importlib.import_module(COMMANDS[parsed.command][0]).run(parsed))
    except InputError as error:
        print(f"gpu-cutover: {error}", file=sys.stderr)
        return EXIT_USAGE
    except Refused as refusal:
        print(f"gpu-cutover: refused: {refusal}", file=sys.stderr)
        return EXIT_HOLD
    except BrokenPipeError:
        return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
