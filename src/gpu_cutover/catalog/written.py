"""The upgrade plan as it was written, each value with its source; `planning/written.py` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from .sheet import read_sheet


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
    values, sources = read_sheet("written.yml")
    return Written(
        **{
            **values,
            "placement": {name: tuple(gpus) for name, gpus in values["placement"].items()},
            "calendar": {day: tuple(pair) for day, pair in values["calendar"].items()},
            "lead_weeks": tuple(values["lead_weeks"]),
        },
        sources=sources,
    )
