"""The kinds of answers, what each is scored by, and which score its gate tests."""

from __future__ import annotations

from collections.abc import Mapping

# First name: the primary score, the one that the gate tests for non-inferiority.
SCORES: Mapping[str, tuple[str, ...]] = {
    "text": ("answered", "likeness", "length"),
    "soap": ("entities", "sections", "numbers"),
    "speech": ("word_accuracy", "length"),
    "vectors": ("similarity_order", "sound"),
    "ranking": ("order", "overlap"),
    "vision": ("fields", "likeness"),
}
_BY_ROUTE = {"audio": "speech", "embed": "vectors", "rerank": "ranking", "vision": "vision"}


def primary(kind: str) -> str:
    """The score that decides for a kind of answer."""
    return SCORES[kind][0]


def kind_of(route: str, workload: str) -> str:
    """The kind of answer a route gives; a SOAP note is a kind of its own."""
    if route == "chat" and workload == "soap":
        return "soap"
    return _BY_ROUTE.get(route, "text")
