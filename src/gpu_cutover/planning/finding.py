"""What the planner has to say about a site: one thing that hurts, with its arithmetic, its remedy and its source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["blocker", "major", "minor", "note"]
"""How bad: `blocker` the plan as written cannot work, `major` a promise breaks or money is lost, `minor` worse than it
need be, `note` to know."""

SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """`id` is kebab-case and stable; `weight` (0..1, 1 worst) orders findings inside a severity: how much it hurts.

    `text` is one sentence with the arithmetic, `fix` one sentence with the nearest change that makes it right, `source`
    where the figures come from.
    """

    id: str
    severity: Severity
    weight: float
    text: str
    fix: str
    source: str


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What hurts most first; the id decides between equals, so that the order never changes by itself."""
    return tuple(
        sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.weight, finding.id))
    )


def as_json(finding: Finding) -> dict[str, str]:
    """The keys that `gpu-cutover plan --json` promises."""
    return {
        "id": finding.id,
        "severity": finding.severity,
        "text": finding.text,
        "fix": finding.fix,
        "source": finding.source,
    }
