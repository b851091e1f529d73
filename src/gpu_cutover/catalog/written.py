"""The upgrade plan as it was written, each value with its source; `planning/written.py` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from .reading import built, read_entry, read_file, sourced


@dataclass(frozen=True)
class Written:
    """Placement (model → GPUs), calendar (day → date and the plan's weekday), dates, rules (s, GB/s, 0..1)."""

    placement: Mapping[str, tuple[int, ...]]
    published_format: str
    calendar: Mapping[str, tuple[date, str]]
    holidays: Mapping[date, str]
    decision: date
    lead_weeks: tuple[int, int]
    memory_rule: float
    latency_rule_s: float
    p2p_check_gb_s: float
    nvlink_links: int
    nvlink_gb_s: float
    sources: Mapping[str, Any]


@cache
def load_written() -> Written:
    """Read written.yml once."""
    return read_entry("written.yml", "(file)", read_file("written.yml"), _written)


def _written(name: str, entry: Mapping[str, Any]) -> Written:
    values = sourced(entry)
    placement = {model: tuple(gpus) for model, gpus in values.pop("placement").items()}
    calendar = {day: (at, weekday) for day, (at, weekday) in values.pop("calendar").items()}
    return built(Written, {**values, "placement": placement, "calendar": calendar})
