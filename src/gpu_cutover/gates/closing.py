"""From what the roles registered to what the ledger holds: collect the readings, judge them, say the result. Pure."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .check import Check, verdict_of

# A role registers `<role>_reading_<subject>` (or plainly `reading_<subject>`): several roles may read one subject.
READING = re.compile(r"(?:[a-z0-9_]+_)?reading_(?P<subject>[a-z0-9_]+)")

Readings = dict[str, dict[str, dict[str, Any]]]


def collect(hostvars: Mapping[str, Mapping[str, Any]]) -> tuple[Readings, list[dict[str, Any]]]:
    """({subject: {host: reading}}, attachments) out of every host's registered readings.

    A registered result without a `reading` (a skipped task) gives nothing, so its checks are unproven. A reading's
    `attachment` {name, content} is taken out of it; it goes beside the record, not into it.
    """
    readings: Readings = {}
    attachments: list[dict[str, Any]] = []
    for host, variables in hostvars.items():
        for name, result in variables.items():
            named = READING.fullmatch(name)
            reading = result.get("reading") if named and isinstance(result, Mapping) else None
            if named and isinstance(reading, Mapping):
                kept = dict(reading)
                attachment = kept.pop("attachment", None)
                attachments += [dict(attachment)] if isinstance(attachment, Mapping) else []
                readings.setdefault(named["subject"], {})[host] = kept
    return readings, attachments


def judge(day: int, plan: Mapping[str, Any], readings: Readings) -> list[Check]:
    """The day's checks. `plan` is `site_plan` with `hosts` {group: [names]} and `records` {file: content} added."""
    module = importlib.import_module(f".day{day:02d}", __package__)
    checks: list[Check] = module.checks(plan, readings)
    return checks


def gate_data(
    day: int, checks: Sequence[Check], started: str | None, finished: str, site_digest: str | None, run: str | None
) -> dict[str, Any]:
    """The data of a gate's record. Times are UTC in ISO 8601."""
    return {
        "day": day,
        "verdict": str(verdict_of(checks)),
        "checks": [check.as_dict() for check in checks],
        "started": started,
        "finished": finished,
        "site_digest": site_digest,
        "run": run,
    }


def sentence(day: int, checks: Sequence[Check], *, predicted: bool = False) -> str:
    """The verdict for a person: first what failed or is unproven, then what passed, figures against limits."""
    passed = [check for check in checks if check.status == "pass"]
    rest = sorted((check for check in checks if check.status != "pass"), key=lambda check: check.status)
    word = "would say" if predicted else "says"
    head = f"The gate of day {day} {word} {verdict_of(checks)}: {len(passed)} of {len(checks)} checks passed"
    return "\n".join([head, *_lines(rest), *_lines(passed)])


def _lines(checks: Iterable[Check]) -> list[str]:
    return [f"  {check.line()}" for check in checks]
