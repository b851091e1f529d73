"""What a gate is made of: a `Check` is one judged figure, a `Verdict` is what all checks of a day add up to.

A figure that is missing, not a number or infinite never passes: it is `unproven`, and an unproven check holds the day.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

Status = Literal["pass", "fail", "unproven"]
Figure = float | int | str | bool | None

PASS: Status = "pass"
FAIL: Status = "fail"
UNPROVEN: Status = "unproven"


class Verdict(StrEnum):
    """promote: every check passed. fail: one is proven bad. hold: anything else, an empty list of checks too."""

    PROMOTE = "promote"
    HOLD = "hold"
    FAIL = "fail"

    @property
    def exit_code(self) -> int:
        """The command line's exit code for a day that ends with this verdict."""
        return {Verdict.PROMOTE: 0, Verdict.HOLD: 10, Verdict.FAIL: 20}[self]


@dataclass(frozen=True, slots=True)
class Check:
    """One judged figure.

    `unit` is the figure's and the limit's ("" for words and counts); `source` says where the limit comes from;
    `sentence` says to a person what was judged; `relation` is how figure and limit were compared.
    """

    id: str
    status: Status
    figure: Figure
    unit: str
    limit: Figure
    source: str
    sentence: str
    host: str | None = None
    relation: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the ledger."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Check:
        """The check a ledger's record holds; unknown keys are refused with TypeError."""
        return cls(**data)

    def line(self) -> str:
        """One line for a terminal: status, id, host, figure against limit, sentence."""
        where = f" [{self.host}]" if self.host else ""
        unit = f" {self.unit}" if self.unit else ""
        figure = "no figure" if self.figure is None else f"{_text(self.figure)}{unit}"
        limit = "" if self.limit is None else f" ({self.relation or 'limit'} {_text(self.limit)}{unit})"
        return f"{self.status:<8} {self.id}{where}: {figure}{limit} - {self.sentence}"


def _text(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """Any fail → fail; else any unproven, or no check at all → hold; else promote."""
    statuses = {check.status for check in checks}
    if FAIL in statuses:
        return Verdict.FAIL
    return Verdict.PROMOTE if statuses == {PASS} else Verdict.HOLD


def number(value: object) -> float | int | None:
    """`value` if it is a finite number (not a bool, not a numeric string), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class _Bound:
    """A comparison with a limit."""

    relation: Literal["at least", "at most"]

    def __call__(
        self,
        id: str,
        figure: object,
        limit: object,
        unit: str,
        source: str,
        sentence: str,
        host: str | None = None,
        why: str = "",
    ) -> Check:
        """Pass when it holds. Figure or limit no finite number → unproven; `why` then says what is missing."""
        got, bound = number(figure), number(limit)
        if got is None or bound is None:
            reason = why or ("no limit declared" if got is not None else "no figure")
            return unproven(id, source, sentence, host, reason, unit=unit, limit=bound, relation=self.relation)
        good = got >= bound if self.relation == "at least" else got <= bound
        return Check(id, PASS if good else FAIL, got, unit, bound, source, sentence, host, self.relation)


at_least, at_most = _Bound("at least"), _Bound("at most")


def equals(
    id: str,
    figure: object,
    limit: object,
    unit: str = "",
    source: str = "",
    sentence: str = "",
    host: str | None = None,
    why: str = "",
) -> Check:
    """Pass when figure = limit (numbers, words or booleans of one kind). None, NaN, "" or anything else → unproven."""
    got, want = _scalar(figure), _scalar(limit)
    if got is None or want is None:
        return unproven(id, source, sentence, host, why, unit=unit, limit=want, relation="equal to")
    same = got == want and isinstance(got, bool) == isinstance(want, bool)
    return Check(id, PASS if same else FAIL, got, unit, want, source, sentence, host, "equal to")


def unproven(
    id: str,
    source: str,
    sentence: str,
    host: str | None = None,
    why: str = "",
    *,
    unit: str = "",
    limit: Figure = None,
    relation: str = "",
) -> Check:
    """A check that could not be judged: no data, stale, a hung probe, not run. `why` is added to the sentence."""
    reason = why or "no figure"
    return Check(id, UNPROVEN, None, unit, limit, source, f"{sentence} (not proven: {reason})", host, relation)


@dataclass(frozen=True, slots=True)
class About:
    """What several checks share: the host, the source of their limits, and why figures may be missing."""

    host: str | None
    source: str
    why: str = ""

    def at_least(self, id: str, figure: object, limit: object, unit: str, sentence: str) -> Check:
        """See the function of this name."""
        return at_least(id, figure, limit, unit, self.source, sentence, self.host, self.why)

    def at_most(self, id: str, figure: object, limit: object, unit: str, sentence: str) -> Check:
        """See the function of this name."""
        return at_most(id, figure, limit, unit, self.source, sentence, self.host, self.why)

    def equals(self, id: str, figure: object, limit: object, sentence: str, unit: str = "") -> Check:
        """See the function of this name."""
        return equals(id, figure, limit, unit, self.source, sentence, self.host, self.why)


def reading_of(readings: Mapping[str, Any], subject: str, host: str) -> tuple[Mapping[str, Any], str]:
    """The reading of a subject on a host and, where it is missing or an error, an empty one and the reason.

    >>> reading_of({"driver": {"gpu1": {"error": "nvidia-smi: no answer in 10 s"}}}, "driver", "gpu1")
    ({}, 'nvidia-smi: no answer in 10 s')
    """
    of_subject = readings.get(subject)
    reading = of_subject.get(host) if isinstance(of_subject, Mapping) else None
    if not isinstance(reading, Mapping) or not reading:
        return {}, f"no reading of {subject} from {host}"
    if reading.get("error"):
        return {}, str(reading["error"])
    return reading, ""


def first_reading(
    readings: Mapping[str, Any], subject: str, hosts: Iterable[str]
) -> tuple[str | None, Mapping[str, Any], str]:
    """(host, reading, why it is missing) of a subject that is read once, on whichever of the hosts."""
    host, why = None, f"no reading of {subject}"
    for host in hosts:
        reading, why = reading_of(readings, subject, host)
        if reading:
            return host, reading, ""
    return host, {}, why


def _scalar(value: object) -> Figure:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value or None
    return number(value)
