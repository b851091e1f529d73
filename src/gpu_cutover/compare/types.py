"""The result of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparison:
    """`scores`: name → 0 (worst) .. 1 (as good as the baseline). `critical`: violations that no score can outweigh."""

    scores: Mapping[str, float]
    critical: tuple[str, ...]
