"""Which day may start, decided from the ledger's records alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from .records import Record

FIRST_DAY, LAST_DAY = 1, 10


@dataclass(frozen=True, slots=True)
class Waiver:
    """A named person's word that a day's gate need not promote until a date (that day included)."""

    day: int
    by: str
    reason: str
    until: date
    sequence: int

    def valid(self, today: date) -> bool:
        """True up to and including its last day."""
        return today <= self.until


@dataclass(frozen=True, slots=True)
class DayState:
    """The latest word on a day: its last verdict (None: no gate yet) and its last waiver."""

    day: int
    verdict: str | None = None
    open_checks: tuple[str, ...] = ()
    sequence: int | None = None
    waiver: Waiver | None = None
    critical: tuple[str, ...] = ()

    def opens_next(self, today: date) -> bool:
        """True when the day after this one may start. No waiver covers a critical difference that was found."""
        waived = self.waiver is not None and self.waiver.valid(today) and not self.critical
        return self.verdict == "promote" or waived


def day_states(records: Sequence[Record]) -> dict[int, DayState]:
    """The state of each of the ten days."""
    return {day: day_state(records, day) for day in range(FIRST_DAY, LAST_DAY + 1)}


def day_state(records: Sequence[Record], day: int) -> DayState:
    """The latest gate and the latest waiver of one day."""
    gate = _last(records, "gate", day)
    waiver = _last(records, "waiver", day)
    return DayState(
        day=day,
        verdict=str(gate.data.get("verdict")) if gate else None,
        open_checks=_open_checks(gate.data.get("checks", [])) if gate else (),
        sequence=gate.sequence if gate else None,
        waiver=_waiver(waiver) if waiver else None,
        critical=_critical(gate.data.get("checks", [])) if gate else (),
    )


def refusal(records: Sequence[Record], day: int, today: date) -> str | None:
    """Why `day` may not start today, and what to do about it; None when it may."""
    if day <= FIRST_DAY:
        return None
    before = day_state(records, day - 1)
    if before.opens_next(today):
        return None
    if before.critical:
        return (
            f"Day {day} may not start: {_standing(before, today)}.\n"
            f"A critical difference ({', '.join(before.critical)}) cannot be waived: correct the model or its prompt,\n"
            f"then run day {before.day} again:\n"
            f"  gpu-cutover day {before.day} -i SITE"
        )
    return (
        f"Day {day} may not start: {_standing(before, today)}.\n"
        f"To go on, run day {before.day} until its gate promotes:\n"
        f"  gpu-cutover day {before.day} -i SITE\n"
        f"or let a named person waive it, with a reason and a last day:\n"
        f'  gpu-cutover waive {before.day} --reason "…" --by "…" --until YYYY-MM-DD -i SITE'
    )


def _standing(state: DayState, today: date) -> str:
    if state.verdict is None:
        standing = f"day {state.day} has no verdict yet"
    else:
        checks = f" (open: {', '.join(state.open_checks)})" if state.open_checks else ""
        standing = f"the gate of day {state.day} says {state.verdict}{checks} (record {state.sequence})"
    if state.waiver is not None and not state.waiver.valid(today):
        standing += f", and the waiver by {state.waiver.by} ended on {state.waiver.until}"
    return standing


def _last(records: Sequence[Record], kind: str, day: int) -> Record | None:
    found = [record for record in records if record.kind == kind and record.data.get("day") == day]
    return found[-1] if found else None


def _open_checks(checks: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(check.get("id")) for check in checks if check.get("status") != "pass")


def _critical(checks: Sequence[Any]) -> tuple[str, ...]:
    """Checks of clinical safety (a changed dose, number, negation, drug) that were proven bad, not merely unproven."""
    failed = (str(check.get("id")) for check in checks if check.get("status") == "fail")
    return tuple(name for name in failed if name.split(".")[-1] == "critical")


def _waiver(record: Record) -> Waiver:
    data = record.data
    return Waiver(data["day"], data["by"], data["reason"], date.fromisoformat(data["until"]), record.sequence)
