"""`gpu-cutover evidence verify|show [--json] -i SITE`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import EXIT_DONE, EXIT_FAIL, InputError, Refused
from .records import Record, read_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("what", choices=["verify", "show"], help="prove that nothing was changed, or list the records")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("-i", "--inventory", required=True, metavar="SITE", help="the site directory")


def run(args: argparse.Namespace) -> int:
    """0: whole (or shown). 20: something was changed, and it is named. Raises Refused where nothing was recorded."""
    site_dir = Path(args.inventory)
    if not site_dir.is_dir():
        raise InputError(str(site_dir), "-i", "no such directory", "give the site directory, e.g. inventory/twin")
    return _verify(site_dir, args.json) if args.what == "verify" else _show(site_dir, args.json)


def _verify(site_dir: Path, as_json: bool) -> int:
    from .audit import broken, position_of, verify  # cryptography is loaded only here

    findings = verify(site_dir)
    damage = broken(findings)
    count = position_of(site_dir).sequence
    if not count and not findings:
        raise Refused(f"{site_dir}/evidence: nothing was recorded yet, so there is nothing to verify")
    if as_json:
        listed = [{"level": item.level, "file": item.file, "message": item.message} for item in findings]
        print(json.dumps({"whole": not damage, "records": count, "findings": listed}, indent=2))
    else:
        for finding in findings:
            print(finding)
        print(f"{count} records: " + (f"{len(damage)} findings, NOT whole" if damage else "whole and unchanged"))
    return EXIT_FAIL if damage else EXIT_DONE


def _show(site_dir: Path, as_json: bool) -> int:
    records = read_status(site_dir)
    if as_json:
        print(json.dumps([record.as_dict() for record in records], indent=2))
        return EXIT_DONE
    for record in records:
        print(
            f"{record.sequence:>6}  {record.time}  {record.kind:<8} {record.name:<24} {summary(record)}  ({record.by})"
        )
    if not records:
        print("nothing was recorded yet")
    return EXIT_DONE


def summary(record: Record) -> str:
    """What a record says, in a few words."""
    data = record.data
    match record.kind:
        case "gate":
            statuses = [check.get("status") for check in data.get("checks", [])]
            return f"{data.get('verdict')}: {statuses.count('pass')} of {len(statuses)} checks passed"
        case "waiver":
            return f"day {data.get('day')} until {data.get('until')} by {data.get('by')}: {data.get('reason')}"
        case _:
            words = (f"{key}={value}" for key, value in data.items() if isinstance(value, str | int | float))
            return " ".join(words)[:100]
