"""`gpu-cutover status -i SITE`: the ledger, the run files, and what the gateways changed without the ledger knowing.

Gateways are asked only once day 4 was judged, for at most some seconds; `--offline` asks nobody, imports nothing slow.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evidence.records import Record, read_status
from .days import checkout_of, require_site_dir, subject_of
from .record import newest_first, running
from .status import build_status, text

GATEWAYS_FROM_DAY = 4  # day 4 installs the route tables
LOOKED_AT_RUNS = 10  # newest first: enough to look past dry runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE --json --offline`."""
    parser.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--offline", action="store_true", help="do not ask the gateways for changes of their own")


def run(args: argparse.Namespace) -> int:
    """Always 0 for a site that can be read: a status is no judgement."""
    now_s, site_dir = time.time(), require_site_dir(args.inventory)
    status = site_status(site_dir, now_s)
    if not args.offline:
        status["gateways"] = gateways(site_dir, read_status(site_dir))
    print(json.dumps(status, ensure_ascii=False) if args.json else text(status, now_s))
    return 0


def site_status(site_dir: Path, now_s: float) -> dict[str, Any]:
    """A site's status as plain data. Raises InputError for a ledger that cannot be read."""
    holder = running(site_dir)
    runs = list(islice(newest_first(site_dir), LOOKED_AT_RUNS))
    return build_status(site_dir.name, read_status(site_dir), runs, holder, _playbooks(site_dir), now_s)


def gateways(site_dir: Path, records: Sequence[Record]) -> dict[str, Any] | None:
    """Changes that the gateways keep and the ledger does not tell; None before there are route tables."""
    if not any(record.kind == "gate" and int(record.data.get("day", 0)) >= GATEWAYS_FROM_DAY for record in records):
        return None
    from ..traffic import unrecorded  # late: it imports paramiko

    try:
        told = unrecorded.ask(site_dir, records).as_dict()
    except InputError as error:
        told = {"changes": [], "not_asked": {"gateways": str(error)}}
    return {**told, "record_with": f"gpu-cutover route show -i {site_dir}"}


def _playbooks(site_dir: Path) -> dict[int, str]:
    """{day: playbook}, relative to the checkout; a missing one is the day's own error, not this command's."""
    checkout = checkout_of(site_dir)
    found = sorted((checkout / "playbooks").glob("day*.yml"))
    subjects = ((subject_of(path), str(path.relative_to(checkout))) for path in found)
    return {subject.day: name for subject, name in subjects if subject and subject.day}
