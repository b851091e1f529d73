"""Day 9: can a tenant be taken back in a second, and does the first one stay well on-prem? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import Check, at_most, equals, reading_of
from .tenants import placed, watched


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """Every check of the day, per gateway."""
    tenant = plan["cutover"]["first"]
    found: list[Check] = []
    for host in plan["hosts"]["gateway"]:
        found += drilled(plan, readings, host)
        found.append(placed(plan, readings, tenant, host))
    return found + watched(plan, readings, tenant)


def drilled(plan: Mapping[str, Any], readings: Mapping[str, Any], host: str) -> list[Check]:
    """Did the drill on the synthetic tenant go on-prem and back, fast and lately?"""
    reading, why = reading_of(readings, "drill", host)
    gates, durations = plan["gates"], plan["durations"]
    return [
        equals("drill.served_after_cutover", reading.get("served_after_cutover"), "onprem", "", "drill",
               "the synthetic tenant's question was answered on-prem after its cutover", host, why),
        equals("drill.served_after_rollback", reading.get("served_after_rollback"), "cloud", "", "drill",
               "its next question was answered by the cloud after the rollback", host, why),
        at_most("drill.rollback_s", reading.get("rollback_s"), gates["rollback_max_s"], "s", "site.gates",
                "from the command on the gateway to the router's own confirmation", host, why),
        at_most("drill.age_s", reading.get("age_s"), durations["drill_max_age_s"], "s", "site.durations",
                "age of the drill", host, why),
    ]  # fmt: skip
