"""Reranking: the same documents, in nearly the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .types import Comparison

TOP = 3


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`order`: Kendall agreement (0..1) of the ranks; `overlap`: shared documents among the first three."""
    was, now = _ids(base), _ids(candidate)
    critical = []
    if set(was) - set(now):
        critical.append("documents lost")
    if len(set(now)) != len(now):
        critical.append("documents duplicated")
    shared = [one for one in was if one in set(now)]
    order = (1 + kendall([was.index(one) for one in shared], [now.index(one) for one in shared])) / 2
    top = min(TOP, len(was))
    overlap = len(set(was[:top]) & set(now[:top])) / top if top else 1.0
    return Comparison({"order": 0.0 if critical else order, "overlap": overlap}, tuple(critical))


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b of two equally long sequences, -1..1; 1.0 where there is nothing to order."""
    concordant = discordant = only_one = only_other = 0
    for (a, b), (c, d) in combinations(list(zip(one, other, strict=True)), 2):
        left, right = (a > c) - (a < c), (b > d) - (b < d)
        concordant += left * right > 0
        discordant += left * right < 0
        only_one += left == 0 and right != 0
        only_other += right == 0 and left != 0
    weight = ((concordant + discordant + only_one) * (concordant + discordant + only_other)) ** 0.5
    return (concordant - discordant) / weight if weight else 1.0


def _ids(answer: Mapping[str, Any]) -> list[int]:
    rows = sorted(answer["results"], key=lambda row: -float(row["relevance_score"]))
    return [int(row["index"]) for row in rows]
