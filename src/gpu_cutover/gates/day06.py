"""Day 6: does the machine stay cool, correct and steady for the whole burn-in?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import Check, at_least, at_most, equals, reading_of, unproven

POWER_SHARE_MIN = 0.95
REPLAYS_PER_MINUTE_MAX = 1.0  # a link that replays more often is not seated or not cooled well; no vendor names a limit
NVML = "NVML counters over the whole burn-in"
ACCEPTANCE = "burn-in practice: fleet acceptance suites allow none"


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """The checks of every GPU host."""
    found: list[Check] = []
    for host in plan["hosts"]["gpu"]:
        reading, why = reading_of(readings, "burn_in", host)
        found += _host(plan, reading, why, host)
        gpus = reading.get("gpus") or {}
        for index in range(_gpu_count(plan)):
            gpu = gpus.get(str(index)) or {}
            found += _gpu(plan, gpu, reading, why or f"no figures of GPU {index}", host, index)
    return found


def _gpu_count(plan: Mapping[str, Any]) -> int:
    return int(plan["tier"]["profile"]["gpu_count"])


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, list | Mapping) else None


def _host(plan: Mapping[str, Any], reading: Mapping[str, Any], why: str, host: str) -> list[Check]:
    gates, durations = plan["gates"], plan["durations"]
    return [
        at_least(
            "burn_in.duration",
            reading.get("duration_s") if reading.get("finished") else None,
            durations["burn_in_s"],
            "s",
            "site durations.burn_in_s",
            "the burn-in ran as long as declared",
            host,
            why or "the burn-in has not finished",
        ),
        _coverage(gates["telemetry_coverage_min"], reading, why, host),
        _breaks(reading, why, host),
        equals(
            "burn_in.xid",
            _count(reading.get("xids_hardware")),
            0,
            "",
            "NVIDIA Xid catalogue",
            "no Xid that speaks of hardware",
            host,
            why,
        ),
        at_most(
            "burn_in.spread",
            reading.get("tflops_spread"),
            gates["throughput_spread_max"],
            "",
            "site gates.throughput_spread_max",
            "the slowest GPU is not far behind the fastest (medians)",
            host,
            why,
        ),
    ]


def _coverage(floor: float, reading: Mapping[str, Any], why: str, host: str) -> Check:
    """Seconds without a sample are missing data, so too little coverage is unproven, not bad."""
    sentence, source = "share of the seconds with a sample of every GPU", "site gates.telemetry_coverage_min"
    check = at_least("burn_in.coverage", reading.get("coverage"), floor, "", source, sentence, host, why)
    if check.status != "fail":
        return check
    reason = f"only {check.figure:.1%} of the seconds have a sample"
    return unproven("burn_in.coverage", source, sentence, host, reason, limit=floor, relation="at least")


def _breaks(reading: Mapping[str, Any], why: str, host: str) -> Check:
    """A break lets the boards cool down: nothing is proven, and the burn-in has to run again."""
    sentence, source = "the telemetry has no break and the host did not reboot", "an interrupted load proves nothing"
    breaks = reading.get("breaks")
    if breaks:
        longest = max(gap["seconds"] for gap in breaks)
        why = f"{len(breaks)} breaks, the longest {longest:g} s; run the burn-in again"
    figure = None if breaks else _count(breaks)
    return equals("burn_in.breaks", figure, 0, "", source, sentence, host, why)


def _gpu(
    plan: Mapping[str, Any], gpu: Mapping[str, Any], reading: Mapping[str, Any], why: str, host: str, index: int
) -> list[Check]:
    gates = plan["gates"]
    name = f"burn_in.gpu{index}"
    bits = _count(gpu.get("forbidden_bits")) if gpu.get("bits_samples") else None
    floor = gates["thermal_margin_min_celsius"]
    return [
        at_most(
            f"{name}.thermal",
            gpu.get("below_floor_celsius_s"),
            0,
            "°C·s",
            "site gates.thermal_margin_min_celsius on NVML's T.Limit margin",
            f"time-integrated heat above a margin of {floor:g} °C (least margin {gpu.get('margin_min_celsius')} °C)",
            host,
            why,
        ),
        equals(
            f"{name}.clocks",
            bits,
            0,
            "",
            "NVML clocks-event reasons 0x8, 0x20, 0x40, 0x80",
            "never slowed down by heat, hardware or a power brake",
            host,
            why,
        ),
        equals(
            f"{name}.ecc", gpu.get("ecc_uncorrected_delta"), 0, "", NVML, "no uncorrectable memory error", host, why
        ),
        equals(f"{name}.remap", _remaps(gpu), 0, "", NVML, "no row remapped, pending or failed", host, why),
        at_most(
            f"{name}.pcie",
            _replays_per_minute(gpu, reading),
            REPLAYS_PER_MINUTE_MAX,
            "/min",
            f"{NVML}; practice of acceptance suites, no vendor names a limit",
            "the PCIe link hardly ever had to send a packet again",
            host,
            why,
        ),
        equals(
            f"{name}.results",
            gpu.get("compute_errors"),
            0,
            "",
            ACCEPTANCE,
            "every product of the load was right",
            host,
            why,
        ),
        at_most(
            f"{name}.drift",
            gpu.get("tflops_drift"),
            gates["throughput_drift_max"],
            "",
            "site gates.throughput_drift_max",
            "as fast in the last quarter as in the first (medians)",
            host,
            why,
        ),
        at_least(
            f"{name}.power",
            gpu.get("power_high_w"),
            _power_floor(gpu),
            "W",
            f"{POWER_SHARE_MIN:.0%} of the power limit; less means it was not loaded",
            "the load drew the power that the board allows (90th percentile)",
            host,
            why,
        ),
    ]


def _remaps(gpu: Mapping[str, Any]) -> int | None:
    values = [gpu.get(name) for name in ("remap_uncorrected_delta", "remap_pending_last", "remap_failure_last")]
    return sum(values) if all(isinstance(value, int) for value in values) else None  # type: ignore[arg-type]


def _replays_per_minute(gpu: Mapping[str, Any], reading: Mapping[str, Any]) -> float | None:
    replays, seconds = gpu.get("pcie_replays_delta"), reading.get("elapsed_s")
    if not isinstance(replays, int) or not isinstance(seconds, int | float) or seconds <= 0:
        return None
    return round(replays * 60 / max(seconds, 60.0), 2)


def _power_floor(gpu: Mapping[str, Any]) -> float | None:
    limit = gpu.get("limit_w")
    return round(POWER_SHARE_MIN * limit, 1) if isinstance(limit, int | float) else None
