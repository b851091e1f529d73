"""How power is sized: the margins and efficiencies of `power.yml`, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .reading import leaves, read_entry, read_file


@dataclass(frozen=True)
class PowerRule:
    """Shares 0..1 unless the name says otherwise; `cpu_min_w` is W per processor model."""

    psu_load_max: float
    ups_margin: float
    power_factor: float
    ups_efficiency: float
    battery_usable: float
    pue: float
    hours_per_year: int
    mains_v: float
    inlet_a: float
    breaker_share: float
    tdp_headroom_min: float
    cpu_min_w: Mapping[str, int]
    sources: Mapping[str, Any]


@cache
def load_power_rule() -> PowerRule:
    """Read `power.yml` once (about 2 ms)."""
    return read_entry("power.yml", "power", read_file("power.yml"), leaves(PowerRule))
