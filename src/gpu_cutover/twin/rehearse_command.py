"""`gpu-cutover rehearse [-i SITE] [--keep] [--resume]`: the ten days on the twin, from nothing to a report."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_SITE = Path("inventory/twin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE --keep --resume -o FILE`."""
    parser.add_argument(
        "-i", "--inventory", type=Path, default=DEFAULT_SITE, metavar="SITE", help="a site of stage twin"
    )
    parser.add_argument("--keep", action="store_true", help="leave the hosts running at the end")
    parser.add_argument(
        "--resume", action="store_true", help="keep evidence and hosts, go on after the last promoted day"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the report (default: SITE/.state/report.html)"
    )


def run(args: argparse.Namespace) -> int:
    """0 when everything promoted; else the exit code of the step that stopped it, with its reason."""
    from ..runs.days import require_site_dir
    from .rehearsal import Rehearsal

    site_dir = require_site_dir(args.inventory)
    output = args.output or site_dir / ".state" / "report.html"
    return Rehearsal(site_dir, output, keep=args.keep, resume=args.resume).run()
