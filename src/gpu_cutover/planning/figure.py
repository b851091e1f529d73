"""A number that shows how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A number, its unit, and its arithmetic in one line."""

    value: float
    unit: str
    arithmetic: str


def rounded(data: dict[str, Any], digits: int = 4) -> None:
    """Round every float of nested plain data in place: sums of watts and money are not known to more digits."""
    for key, value in data.items():
        if isinstance(value, dict):
            rounded(value, digits)
        elif isinstance(value, float):
            data[key] = round(value, digits)
