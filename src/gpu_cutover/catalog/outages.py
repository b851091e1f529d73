"""What stops a GPU host: counts per year, hours and seconds, each with its source (all assumed)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .reading import leaves, read_entry, read_file


@dataclass(frozen=True)
class Outages:
    """Counts per year, durations in the unit of the name, bytes per second of the drive the weights lie on."""

    hours_per_year: int
    reboots_per_year: int
    boot_s: int
    read_bytes_s: int
    engine_start_s: int
    lost_gpus_per_year: int
    host_failures_per_year: int
    repair_h: int
    sources: Mapping[str, Any]


@cache
def load_outages() -> Outages:
    """Read outages.yml once."""
    return read_entry("outages.yml", "(file)", read_file("outages.yml"), leaves(Outages))
