"""Embeddings of two models share no space: what must agree is which inputs are alike, and the vectors' health."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .ranking import kendall
from .types import Comparison

NORM_TOLERANCE = 0.02  # bge-m3 returns unit vectors; half precision costs about 1e-3


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`similarity_order`: Kendall agreement (0..1) of all pairwise cosine similarities, for three inputs or more."""
    was, now = _vectors(base), _vectors(candidate)
    critical = unsound(now, expected=len(was))
    if critical:
        return Comparison({"similarity_order": 0.0, "sound": 0.0}, critical)
    order = (1 + kendall(_similarities(was), _similarities(now))) / 2 if len(was) >= 3 else 1.0
    return Comparison({"similarity_order": order, "sound": 1.0}, ())


def unsound(vectors: Sequence[Sequence[float]], expected: int) -> tuple[str, ...]:
    """What disqualifies a set of vectors whatever they mean."""
    broken = []
    if len(vectors) != expected:
        broken.append("number of vectors differs from the number of inputs")
    if len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        broken.append("dimensions differ")
    if any(not math.isfinite(value) for vector in vectors for value in vector):
        broken.append("not a number in a vector")
    elif any(abs(math.hypot(*vector) - 1) > NORM_TOLERANCE for vector in vectors):
        broken.append("a vector is not of unit length")
    return tuple(broken)


def _vectors(answer: Mapping[str, Any]) -> list[list[float]]:
    rows = sorted(answer["data"], key=lambda row: row["index"])
    return [[float(value) for value in row["embedding"]] for row in rows]


def _similarities(vectors: Sequence[Sequence[float]]) -> list[float]:
    return [_cosine(one, other) for one, other in combinations(vectors, 2)]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norms = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / norms if norms else 0.0
