"""Day 10: is everybody where the site declares it, and did the sensitive tenants' data stay inside? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import Check, at_most, equals, reading_of
from .tenants import placed, watched


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """Every check of the day, per gateway."""
    tenants = {name: tenant for name, tenant in plan["tenants"].items() if not tenant["synthetic"]}
    found: list[Check] = []
    for host in plan["hosts"]["gateway"]:
        found += [placed(plan, readings, name, host) for name in tenants]
        found += [_inside(readings, name, host) for name, one in tenants.items() if one["policy"] == "sensitive"]
        found.append(_sealed(readings, host))
    for name in plan["cutover"]["order"]:
        if name != plan["cutover"]["first"]:
            found += watched(plan, readings, name)
    return found


def _inside(readings: Mapping[str, Any], tenant: str, host: str) -> Check:
    reading, why = reading_of(readings, "routes", host)
    sent = reading.get("cloud_attempts")
    figure = sent.get(tenant) if isinstance(sent, Mapping) else None
    sentence = f"{tenant}: attempts on a cloud leg in all records"
    return at_most(
        f"audit.{tenant}.cloud_attempts",
        figure,
        0,
        "",
        "a sensitive tenant never reaches the cloud",
        sentence,
        host,
        why,
    )


def _sealed(readings: Mapping[str, Any], host: str) -> Check:
    reading, why = reading_of(readings, "router", host)
    seal = reading.get("seal")
    held = all(one.get("refused") is True for one in seal.values()) if isinstance(seal, Mapping) and seal else None
    sentence = "the kernel refuses the sealed router's packets to the outside, tried now"
    return equals("audit.seal_holds", held, True, "", "router_probe", sentence, host, why)
