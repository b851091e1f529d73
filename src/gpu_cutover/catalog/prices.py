"""What things cost: the plan's figures and the electricity tariff of `prices.yml`, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .reading import leaves, read_entry, read_file


@dataclass(frozen=True)
class Prices:
    """Money in `currency`: `capex` by tier, `cloud_month` by tenants, `tariff` per kWh; `claims` in months."""

    currency: str
    capex: Mapping[str, int]
    amortisation_months: int
    opex_month: Mapping[str, int]
    cloud_month: Mapping[int, int]
    tenants_now: int
    tenants_projected: int
    budget_tier: str
    premium_tier: str
    plan_amortisation_month: int
    plan_run_rate_month: int
    claims: Mapping[str, int]
    ramp_months: int
    tariff: Mapping[str, float]
    sources: Mapping[str, Any]


@cache
def load_prices() -> Prices:
    """Read `prices.yml` once (about 2 ms)."""
    return read_entry("prices.yml", "prices", read_file("prices.yml"), leaves(Prices))
