"""Comparing an on-prem answer with the cloud's, one file per kind of answer. Pure; nothing of either answer is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import ranking, soap, speech, text, vectors, vision
from .types import Comparison

__all__ = ["KINDS", "PRIMARY", "Comparison", "compare_answers", "kind_of", "worst"]

KINDS = {
    "text": text,
    "soap": soap,
    "speech": speech,
    "vectors": vectors,
    "ranking": ranking,
    "vision": vision,
}
# The score each kind's gate tests for non-inferiority.
PRIMARY = {kind: comparer.PRIMARY for kind, comparer in KINDS.items()}
_BY_ROUTE = {"audio": "speech", "embed": "vectors", "rerank": "ranking", "vision": "vision"}


def kind_of(route: str, workload: str) -> str:
    """The kind of answer a route gives; a SOAP note is a kind of its own."""
    if route == "chat" and workload == "soap":
        return "soap"
    return _BY_ROUTE.get(route, "text")


def compare_answers(
    kind: str, request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]
) -> Comparison:
    """Compare two decoded answers. An answer that has not the shape of its kind counts as the worst."""
    comparer: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Comparison] = KINDS[kind].compare
    try:
        return comparer(request, base, candidate)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return worst(kind)


def worst(kind: str) -> Comparison:
    """What a missing or unreadable answer scores: zero, not nothing."""
    return Comparison(dict.fromkeys(KINDS[kind].SCORES, 0.0), ())
