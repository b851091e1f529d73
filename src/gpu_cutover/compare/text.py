"""Free text: chat and reasoning. Likeness of wording, and three ways of being no answer at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapidfuzz import fuzz

from .types import Comparison
from .words import chat_text, finish_reason, is_refusal


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`answered`: the candidate answers wherever the baseline does. Likeness is reported, not judged: two models that

    are both right word it differently; what the gate must catch is refusing, falling silent or being cut short.
    """
    was, now = chat_text(base), chat_text(candidate)
    critical = invariants(was, now, finish_reason(base), finish_reason(candidate))
    likeness = fuzz.token_set_ratio(was, now) / 100
    longest = max(len(was), len(now))
    length = min(len(was), len(now)) / longest if longest else 1.0
    return Comparison({"answered": 0.0 if critical else 1.0, "likeness": likeness, "length": length}, critical)


def invariants(was: str, now: str, was_reason: str | None, now_reason: str | None) -> tuple[str, ...]:
    """What no likeness excuses: an empty, refused or truncated answer where the baseline gave a whole one."""
    broken = []
    if was.strip() and not now.strip():
        broken.append("empty answer")
    if is_refusal(now) and not is_refusal(was):
        broken.append("refused where the baseline answered")
    if now_reason == "length" and was_reason != "length":
        broken.append("truncated answer")
    return tuple(broken)
