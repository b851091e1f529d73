"""`gpu-cutover waive N --reason … --by … --until YYYY-MM-DD -i SITE`: a person answers for a day's gate."""

from __future__ import annotations

import argparse
import re
from datetime import date
from pathlib import Path

from ..errors import EXIT_DONE, InputError
from ..site import is_site
from .days import FIRST_DAY, LAST_DAY, day_state
from .ledger import Ledger, utc_now


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("day", metavar="N", help="the day whose gate is waived, 1 to 10")
    parser.add_argument("--reason", required=True, help="why it is safe to go on")
    parser.add_argument("--by", required=True, help="the person who answers for it")
    parser.add_argument("--until", required=True, metavar="YYYY-MM-DD", help="the last day the waiver holds")
    parser.add_argument("-i", "--inventory", required=True, metavar="SITE", help="the site directory")


def run(args: argparse.Namespace) -> int:
    """Record the waiver.

    Raises InputError for a day out of range, empty words, a date that is no future day, or a directory that is no site.
    """
    today = utc_now().date()
    day = day_of(args.day)
    data = waiver_data(day, args.reason, args.by, args.until, today)
    site_dir = Path(args.inventory)
    if not is_site(site_dir):  # or a ledger would begin there
        problem = "not a site: group_vars/all/site.yml is missing"
        raise InputError(str(site_dir), "-i", problem, "give the site's directory, for example -i inventory/twin")
    ledger = Ledger.open(site_dir)
    state = day_state(ledger.records(), day)
    record = ledger.append("waiver", f"day{day:02d}", {**data, "verdict": state.verdict, "gate": state.sequence})
    print(f"recorded {record.file}: day {day} is waived by {data['by']} until {data['until']}: {data['reason']}")
    return EXIT_DONE


def waiver_data(day: int, reason: str, by: str, until: str, today: date) -> dict[str, int | str]:
    """The waiver as it is recorded, after all its words were judged."""
    return {
        "day": day,
        "reason": _words("--reason", reason),
        "by": _words("--by", by),
        "until": _last_day(until, today).isoformat(),
    }


def day_of(text: str) -> int:
    """The day's number. Raises InputError when it is none of the plan's."""
    if not re.fullmatch(r"[0-9]{1,2}", text) or not FIRST_DAY <= int(text) <= LAST_DAY:
        raise InputError("waive", "day", f"{text!r} is no day of the plan", f"a number from {FIRST_DAY} to {LAST_DAY}")
    return int(text)


def _words(option: str, text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise InputError("waive", option, "is empty or not printable", "say it in words: it is recorded and signed")
    return text.strip()


def _last_day(text: str, today: date) -> date:
    try:
        until = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        until = None
    if until is None:
        raise InputError("waive", "--until", f"{text!r} is no date", "a date like 2026-12-31")
    if until <= today:
        raise InputError("waive", "--until", f"{until} is not in the future (today is {today}, UTC)", "a later date")
    return until
