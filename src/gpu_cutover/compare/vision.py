"""Document reading: the fields, normalised, match; numbers and dates exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rapidfuzz import fuzz

from .text import invariants
from .types import Comparison
from .words import chat_text, doses, finish_reason, numbers

_FENCE = re.compile(r"^```\w*\s*|\s*```$")


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`fields`: share of the baseline's fields the candidate gives alike (all figures, where the answer is no form)."""
    was, now = chat_text(base), chat_text(candidate)
    critical = [*invariants(was, now, finish_reason(base), finish_reason(candidate))]
    was_fields, now_fields = fields(was), fields(now)
    score = sum(now_fields.get(name) == value for name, value in was_fields.items()) / max(1, len(was_fields))
    if doses(was) != doses(now):
        critical.append("a dose differs")
    if numbers(was) - numbers(now):
        critical.append("a number is missing")
    return Comparison(
        {"fields": score if was_fields else 1.0, "likeness": fuzz.token_set_ratio(was, now) / 100}, tuple(critical)
    )


def fields(text: str) -> dict[str, str]:
    """The fields of an answer: a JSON object's, `name: value` lines', or every figure by itself."""
    try:
        data = json.loads(_FENCE.sub("", text.strip()))
    except ValueError:
        data = None
    if isinstance(data, dict):
        return {_normal(str(name)): _normal(str(value)) for name, value in data.items()}
    pairs = (line.partition(":") for line in text.splitlines())
    found = {_normal(name): _normal(value) for name, mark, value in pairs if mark and value.strip()}
    return found or {f"figure {figure}": str(count) for figure, count in numbers(text).items()}


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
