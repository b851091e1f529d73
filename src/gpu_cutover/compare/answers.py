"""Compare two decoded answers by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import ranking, soap, speech, text, vectors, vision
from .kinds import SCORES
from .types import Comparison

Comparer = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Comparison]
COMPARERS: Mapping[str, Comparer] = {
    "text": text.compare,
    "soap": soap.compare,
    "speech": speech.compare,
    "vectors": vectors.compare,
    "ranking": ranking.compare,
    "vision": vision.compare,
}


def compare_answers(
    kind: str, request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]
) -> Comparison:
    """Compare two decoded answers. An answer that has not the shape of its kind counts as the worst."""
    try:
        return COMPARERS[kind](request, base, candidate)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return worst(kind)


def worst(kind: str) -> Comparison:
    """What a missing or unreadable answer scores: zero, not nothing."""
    return Comparison(dict.fromkeys(SCORES[kind], 0.0), ())
