"""`gpu-cutover status -i SITE`: reads the ledger and the run files; no host is asked, nothing slow is imported."""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

from ..evidence.records import read_status
from .days import checkout_of, require_site_dir, subject_of
from .record import newest_first, running
from .status import build_status, text

LOOKED_AT_RUNS = 10  # newest first: enough to look past dry runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE --json`."""
    parser.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Always 0 for a site that can be read: a status is no judgement."""
    now_s = time.time()
    status = site_status(require_site_dir(args.inventory), now_s)
    print(json.dumps(status, ensure_ascii=False) if args.json else text(status, now_s))
    return 0


def site_status(site_dir: Path, now_s: float) -> dict[str, Any]:
    """A site's status as plain data. Raises InputError for a ledger that cannot be read."""
    holder = running(site_dir)
    runs = list(islice(newest_first(site_dir), LOOKED_AT_RUNS))
    return build_status(site_dir.name, read_status(site_dir), runs, holder, _playbooks(site_dir), now_s)


def _playbooks(site_dir: Path) -> dict[int, str]:
    """{day: playbook}, relative to the checkout; a missing one is the day's own error, not this command's."""
    checkout = checkout_of(site_dir)
    found = sorted((checkout / "playbooks").glob("day*.yml"))
    subjects = ((subject_of(path), str(path.relative_to(checkout))) for path in found)
    return {subject.day: name for subject, name in subjects if subject and subject.day}
