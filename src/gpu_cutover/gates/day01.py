"""Day 1: is everything that was bought in the rack, and does the power hold when a feed fails? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..planning.power import ups_kva, ups_minutes
from .check import About, Check, equals, number, reading_of, unproven

PURCHASE = "records/purchase.yml"

# part: (words, the tier's key for how many, who is asked)
PARTS = {
    "gpus": ("GPUs", "gpu_count", "gpus"),
    "nvme": ("NVMe drives", "nvme_count", "nvme"),
    "nics": ("network adapters", "nic_count", "bmc"),
    "psus": ("power supplies", "psu_count", "bmc"),
}


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """The gate of day 1 over every GPU host."""
    purchase = (plan.get("records") or {}).get("purchase") or {}
    found: list[Check] = []
    for host in plan["hosts"]["gpu"]:
        machine, why = reading_of(readings, "machine", host)
        bought = (purchase.get("hosts") or {}).get(host) or {}
        found += _machine(host, plan["tier"], machine, bought, why)
        found += power(host, plan, machine)
    return found


def _machine(
    host: str, tier: Mapping[str, Any], machine: Mapping[str, Any], bought: Mapping[str, Any], why: str
) -> list[Check]:
    profile, gpu, errors = tier["profile"], tier["gpu"], machine.get("errors") or {}
    reasons = {source: why or str(errors.get(source, "")) for source in ("dmi", "gpus", "nvme", "bmc")}
    system, ordered = machine.get("system") or {}, bought.get("system") or {}
    cpus, gpus, supplies = machine.get("cpus"), machine.get("gpus"), machine.get("psus")
    note = About(host, PURCHASE, reasons["dmi"])
    dmi, driver, kernel, bmc = (
        About(host, f"catalog tier {tier['name']}", reasons[source]) for source in ("dmi", "gpus", "nvme", "bmc")
    )
    right_cpus, right_gpus = _matching(cpus, "model", profile["cpu_model"]), _matching(gpus, "name", gpu["name"])
    slots = len(machine.get("dimms") or [])
    found = [
        note.equals("system.product", system.get("product"), ordered.get("product"), "The chassis is the one bought"),
        note.equals("system.serial", system.get("serial"), ordered.get("serial"), "Its serial number is as delivered"),
        dmi.equals("cpu.count", right_cpus, profile["cpu_count"], f"Processors that are {profile['cpu_model']}"),
        dmi.at_least("cpu.cores", _smallest(cpus, "cores"), profile["cpu_cores"], "cores", "Cores of each processor"),
        dmi.at_least(
            "memory.gib", machine.get("memory_gib"), profile["memory_gib"], "GiB", f"Memory in {slots} modules"
        ),
        driver.equals("gpu.model", right_gpus, profile["gpu_count"], f"GPUs that are {gpu['name']}"),
        kernel.at_least(
            "nvme.gb", _smallest(machine.get("nvme"), "gb"), profile["nvme_gb"], "GB", "Size of the smallest drive"
        ),
        bmc.at_least(
            "nic.gbit_s",
            _smallest(machine.get("nics"), "gbit_s"),
            profile["nic_gbit_s"],
            "Gbit/s",
            "Speed of the slowest adapter",
        ),
        bmc.at_least(
            "psu.watts", _smallest(supplies, "watts"), profile["psu_watts"], "W", "Rating of the smallest supply"
        ),
        bmc.equals("psu.healthy", _matching(supplies, "health", "OK"), _count(supplies), "Supplies in good health"),
    ]
    for part, (words, counted, source) in PARTS.items():
        about = About(host, f"catalog tier {tier['name']}", reasons[source])
        found.append(about.equals(f"{part}.count", _count(machine.get(part)), profile[counted], f"Number of {words}"))
        found.append(serials(part, words, host, machine.get(part), bought.get(part), reasons[source]))
    return found


def serials(part: str, words: str, host: str, seen: Any, ordered: Any, why: str) -> Check:
    """Every serial number of the delivery note is there, and no other. A part that hides its serial is unproven."""
    name = f"{part}.serials"
    if not isinstance(seen, Sequence) or not seen or not isinstance(ordered, Sequence) or not ordered:
        missing = why or (f"{PURCHASE} lists none" if seen else "none was seen")
        return unproven(name, PURCHASE, f"Serial numbers of the {words}", host, missing)
    here, bought = [item.get("serial") for item in seen], {str(item["serial"]) for item in ordered}
    if not all(here):
        return unproven(
            name,
            PURCHASE,
            f"Serial numbers of the {words}",
            host,
            f"{sum(not serial for serial in here)} do not tell theirs",
        )
    absent, strange = sorted(bought - set(here)), sorted(set(here) - bought)
    sentence = f"Serial numbers of the {words} that are on the delivery note"
    if absent or strange:
        sentence += f"; missing: {', '.join(absent) or 'none'}; not bought: {', '.join(strange) or 'none'}"
    return equals(name, len(bought) - len(absent) - len(strange), len(bought), "", PURCHASE, sentence, host)


def power(host: str, plan: Mapping[str, Any], machine: Mapping[str, Any]) -> list[Check]:
    """Supplies with one feed lost, and the battery, at the larger of nameplate sum and measured draw."""
    declared, efficiency = plan["power"], float(plan["tier"]["profile"]["psu_efficiency"])
    measured_ac = number(machine.get("power_w"))
    nameplate, usable = float(declared["dc_w"]), float(declared["usable_redundant_w"])
    dc = max(nameplate, (measured_ac or 0.0) * efficiency)
    ac = dc / efficiency
    seen = f"{measured_ac:.0f} W AC measured" if measured_ac is not None else "no draw measured"
    load = f"{dc:.0f} W DC (nameplate sum {nameplate:.0f} W, {seen})"
    rule = declared["rule"]
    kva = ups_kva(ac, rule["ups_margin"], rule["power_factor"])
    minutes = ups_minutes(float(declared["ups_battery_kwh"]), ac, rule["ups_efficiency"], rule["battery_usable"])
    supplies = f"{declared['psu_count']} x {declared['psu_watts']} W on {declared['feeds']} feeds"
    redundancy = About(host, "site gates.psu_load_max", "nothing is left when one feed is lost")
    ups = About(
        host,
        f"site power.ups_*; sizing with {rule['ups_margin']:.0%} margin, power factor {rule['power_factor']:g},"
        f" inverter efficiency {rule['ups_efficiency']:g}",
    )
    return [
        redundancy.at_most(
            "power.redundancy",
            round(dc / usable, 3) if usable else None,
            plan["gates"]["psu_load_max"],
            "of rating",
            f"{supplies} leave {usable:.0f} W with one feed lost; the load is {load}",
        ),
        ups.at_least(
            "power.ups_kva", declared["ups_kva"], round(kva, 2), "kVA", f"UPS rating for {ac:.0f} W AC with margin"
        ),
        ups.at_least(
            "power.ups_minutes",
            round(minutes, 1),
            declared["ups_minutes_min"],
            "min",
            f"{declared['ups_battery_kwh']} kWh of battery carry {ac:.0f} W AC",
        ),
    ]


def _matching(parts: Any, key: str, wanted: str) -> int | None:
    """How many parts say `wanted` (DMI adds words such as "32-Core Processor")."""
    if not parts:
        return None
    return sum(str(part.get(key) or "").startswith(wanted) for part in parts)


def _smallest(parts: Any, key: str) -> float | None:
    values = [number(part.get(key)) for part in parts or []]
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def _count(parts: Any) -> int | None:
    return len(parts) if parts else None
