"""`gpu-cutover day N -i SITE`: one of the ten days."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import IO

from .days import Subject, checkout_of, day_playbook, require_site_dir, subject_of
from .engine import Finished, Order, execute
from .eta import declared_s
from .start import add_common_arguments, confirm, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`N` and the common ones."""
    parser.add_argument("day", type=int, metavar="N", help="1 to 10")
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Exit codes: 0 promote, 10 hold or refused, 20 fail, 30 error, 2 wrong input or a host out of reach."""
    site_dir = require_site_dir(args.inventory)
    day_playbook(checkout_of(site_dir), args.day)
    from ..site import load_site  # late: wrong words on the command line are told without loading a site

    site = load_site(site_dir)
    if not args.check and not args.yes:
        confirm(f"start day {args.day}", site.hosts)
    stream = sys.stderr if args.json else sys.stdout
    finished, subject = run_day(site_dir, args.day, site.spec.durations.model_dump(), stream, check=args.check)
    return tell(finished, subject, site_dir, args.json, stream)


def run_day(
    site_dir: Path, day: int, durations: dict[str, object], stream: IO[str], *, check: bool = False
) -> tuple[Finished, Subject]:
    """Run a day to its end; what the rehearsal uses too. Raises Refused and InputError as `execute` does."""
    checkout = checkout_of(site_dir)
    playbook = day_playbook(checkout, day)
    subject = subject_of(playbook) or Subject(playbook.stem, day)
    order = Order(checkout, site_dir, playbook, check=check, declared_s=declared_s(day, durations))
    return execute(order, stream), subject
