"""SOAP notes: the four sections, and the drugs, doses and numbers in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .text import invariants
from .types import Comparison
from .words import chat_text, doses, drugs, f1, finish_reason, numbers

SECTIONS = ("subjective", "objective", "assessment", "plan")
_HEADING = re.compile(r"^[\W_]*(subjective|objective|assessment|plan|s|o|a|p)[\W_]*:(.*)$", re.IGNORECASE)


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`entities`: mean F1 of drugs and doses; critical: one that neither baseline nor transcript contains."""
    was, now = chat_text(base), chat_text(candidate)
    source = prompt_text(request)
    critical = [*invariants(was, now, finish_reason(base), finish_reason(candidate))]
    sections = filled_sections(now)
    wanted = filled_sections(was)
    critical += [f"section lost: {name}" for name in SECTIONS if name in wanted and name not in sections]
    known_drugs, known_doses = drugs(was) + drugs(source), doses(was) + doses(source)
    critical += [f"unknown drug x{count}" for count in _count(set(drugs(now)) - set(known_drugs))]
    critical += [f"unknown dose x{count}" for count in _count(set(doses(now)) - set(known_doses))]
    entities = (f1(drugs(was), drugs(now)) + f1(doses(was), doses(now))) / 2
    kept = len(wanted & sections) / len(wanted) if wanted else 1.0
    scores = {"entities": entities, "sections": kept, "numbers": f1(numbers(was), numbers(now))}
    return Comparison(scores, tuple(critical))


def prompt_text(request: Mapping[str, Any]) -> str:
    """Everything the caller said: a drug in the transcript is no invention even if the baseline left it out."""
    messages = request.get("messages") or []
    return "\n".join(str(message.get("content", "")) for message in messages if isinstance(message, dict))


def filled_sections(note: str) -> set[str]:
    """Names of the sections that are present and not empty."""
    filled: set[str] = set()
    current: str | None = None
    for line in note.splitlines():
        heading = _HEADING.match(line.strip())
        if heading:
            name = heading.group(1).lower()
            current = next(section for section in SECTIONS if section.startswith(name))
        if current and (heading.group(2) if heading else line).strip(" *_#"):
            filled.add(current)
    return filled


def _count(names: set[str]) -> list[int]:
    """The number of offenders as a message's figure: their names are content and stay out of records."""
    return [len(names)] if names else []
