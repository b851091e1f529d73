"""From telemetry to figures: what the gate of day 6 judges, and the thinned-out curves for the report. Pure.

Throughput is judged by medians: of a GPU over the whole time, and of the first against the last quarter. A busy host
that misses or stretches single seconds moves an average, but not these.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from ..probes import nvml, xid
from .telemetry import COUNTERS, SENSORS, steady, undisturbed

MAX_POINTS = 360
GAP_INTERVALS = 5.0
GAP_SHORTEST_S = 10.0  # a busy host that misses a few seconds does not let boards cool down
WARM_UP_SHARE = 0.1  # of the duration, at most a minute: load programs start, boards heat up
WARM_UP_LONGEST_S = 60.0

Rows = Sequence[Mapping[str, Any]]


def breaks(rows: Rows, interval_s: float) -> list[dict[str, Any]]:
    """Where telemetry stops for more than five intervals and 10 s, or the host was rebooted; seconds."""
    found = []
    for before, after in pairwise(rows):
        seconds = after["t"] - before["t"]
        rebooted = before.get("boot") != after.get("boot")
        if seconds > max(GAP_INTERVALS * interval_s, GAP_SHORTEST_S) or rebooted:
            found.append({"from": before["t"], "to": after["t"], "seconds": round(seconds, 1), "reboot": rebooted})
    return found


def covered(rows: Rows, started: float, duration_s: float, interval_s: float) -> float:
    """Share of the intervals from start to end with at least one good sample, 0..1."""
    wanted = max(1, int(duration_s / interval_s))
    slots = {int((row["t"] - started) / interval_s) for row in rows if row.get("g")}
    return min(1.0, len({slot for slot in slots if 0 <= slot < wanted}) / wanted)


def increase(values: Sequence[Any]) -> int | None:
    """How much a counter grew in all; one that fell was reset and counts from zero. None without any value."""
    known = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if not known:
        return None
    total = 0
    for before, after in pairwise(known):
        total += after - before if after >= before else after
    return total


class _Series:
    """One GPU's telemetry as columns; a day of four GPUs is judged from these in one pass each."""

    def __init__(self, rows: Rows, index: str) -> None:
        seen = [(row["t"], row["g"][index]) for row in rows if index in row.get("g", ())]
        self.times = [t for t, _ in seen]
        self.columns: list[Sequence[Any]] = list(zip(*(values for _, values in seen), strict=True)) or [()] * len(
            SENSORS
        )
        load = [(row["t"], row["f"][index]) for row in rows if index in row.get("f", ())]
        self.flops = [(t, values[0]) for t, values in load if _is_number(values[0])]
        self.errors = sum(values[1] or 0 for _, values in load)
        self.counters = [row["c"][index] for row in rows if index in row.get("c", ())]

    def numbers(self, name: str, since: float = -math.inf) -> list[float]:
        """The numbers of one sensor from `since` on."""
        column = self.columns[SENSORS.index(name)][bisect_left(self.times, since) :]
        return [v for v in column if type(v) is float or type(v) is int]

    def margins(self) -> list[tuple[float, float]]:
        """(time, margin), where there is one."""
        column = self.columns[SENSORS.index("margin_celsius")]
        return [(t, v) for t, v in zip(self.times, column, strict=True) if type(v) is float or type(v) is int]


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int  # not bool


def degree_seconds(pairs: Sequence[tuple[float, float]], floor: float, interval_s: float) -> float:
    """°C·s spent below a margin floor. A sample stands for the time to the next, at most three intervals."""
    total = 0.0
    for place in [place for place, (_, margin) in enumerate(pairs) if margin < floor]:
        t, margin = pairs[place]
        until = pairs[place + 1][0] if place + 1 < len(pairs) else t + interval_s
        total += (floor - margin) * min(until - t, 3 * interval_s)
    return total


def _forbidden(column: Sequence[Any]) -> dict[str, int]:
    """Forbidden clocks-event bit (hex) → samples that showed it."""
    seen: dict[str, int] = {}
    for bits, samples in Counter(column).items():
        for bit in (nvml.BIT_HW_SLOWDOWN, nvml.BIT_SW_THERMAL, nvml.BIT_HW_THERMAL, nvml.BIT_POWER_BRAKE):
            if isinstance(bits, int) and bits & bit:
                seen[hex(bit)] = seen.get(hex(bit), 0) + samples
    return seen


def drift(values: Sequence[float]) -> float | None:
    """Loss of the last quarter's median against the first's, as a share; negative when it grew. None under 8 values."""
    quarter = len(values) // 4
    if quarter < 2:
        return None
    first, last = median(values[:quarter]), median(values[-quarter:])
    return (first - last) / first if first > 0 else None


def _gpu(rows: Rows, index: str, loaded_from: float, floor: float, interval_s: float) -> dict[str, Any]:
    series = _Series(rows, index)
    margins = series.margins()
    power, limits = series.numbers("power_w", loaded_from), series.numbers("limit_w", loaded_from)
    values = [tflops for t, tflops in series.flops if t >= loaded_from]
    counters, bits = series.counters, series.columns[SENSORS.index("clocks_event_bits")]
    return {
        "samples": len(margins),
        "temperature_max_celsius": max(series.numbers("temperature_celsius"), default=None),
        "margin_min_celsius": min((margin for _, margin in margins), default=None),
        "below_floor_celsius_s": round(degree_seconds(margins, floor, interval_s), 2) if margins else None,
        "forbidden_bits": _forbidden(bits),
        "bits_samples": sum(isinstance(one, int) for one in bits),
        "power_median_w": round(median(power), 1) if power else None,
        "power_high_w": round(sorted(power)[int(len(power) * 0.9)], 1) if power else None,
        "limit_w": limits[-1] if limits else None,
        "tflops_median": round(median(values), 2) if values else None,
        "tflops_drift": None if drift(values) is None else round(drift(values) or 0.0, 4),
        "tflops_samples": len(values),
        "compute_errors": series.errors,
        **{f"{name}_delta": increase([row[place] for row in counters]) for place, name in enumerate(COUNTERS)},
        "remap_pending_last": counters[-1][2] if counters else None,
        "remap_failure_last": counters[-1][3] if counters else None,
    }


def spread(gpus: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How far the slowest GPU's median throughput is behind the fastest's, as a share; None when one has no figure."""
    medians = [gpu["tflops_median"] for gpu in gpus.values()]
    if not medians or any(value is None for value in medians) or max(medians) <= 0:
        return None
    return float((max(medians) - min(medians)) / max(medians))


@undisturbed()
def summarise(rows: Rows, state: Mapping[str, Any], floor: float) -> dict[str, Any]:
    """The reading of a burn-in. `state` has started, duration_s, interval_s, gpus; `floor` is a margin in °C."""
    started, duration, interval = state["started"], state["duration_s"], state["interval_s"]
    rows, clock_set = steady(rows)
    inside = [row for row in rows if started <= row["t"] <= started + duration + 2 * interval]
    loaded_from = started + min(WARM_UP_SHARE * duration, WARM_UP_LONGEST_S)
    gpus = {str(i): _gpu(inside, str(i), loaded_from, floor, interval) for i in range(state["gpus"])}
    events = [[row["t"], *event] for row in inside for event in row.get("x", [])]
    found = spread(gpus)
    return {
        "started": started,
        "duration_s": duration,
        "elapsed_s": round(inside[-1]["t"] - started, 1) if inside else 0.0,
        "interval_s": interval,
        "samples": len(inside),
        "coverage": round(covered(inside, started, duration, interval), 4),
        "breaks": breaks(inside, interval),
        "clock_set": clock_set,
        "margin_floor_celsius": floor,
        "xids": events,
        "xids_hardware": [event for event in events if xid.fails_acceptance(event[2])],
        "tflops_spread": None if found is None else round(found, 4),
        "gpus": gpus,
    }


@undisturbed()
def curves(rows: Rows, state: Mapping[str, Any], host: str, floor: float) -> dict[str, Any]:
    """The thinned-out telemetry, as attached to the gate's record: of every bucket the hottest sample."""
    rows, clock_set = steady(rows)
    size = max(1, -(-len(rows) // MAX_POINTS))
    chosen = [_hottest(rows[start : start + size]) for start in range(0, len(rows), size)]
    indexes = [str(i) for i in range(state["gpus"])]
    return {
        "schema": 1,
        "host": host,
        "what": "burn-in",
        "t": [row["t"] for row in chosen],
        "gpus": {
            index: {
                "temperature_celsius": [_cell(row, "g", index, 0) for row in chosen],
                "margin_celsius": [_cell(row, "g", index, 1) for row in chosen],
                "power_w": [_cell(row, "g", index, 2) for row in chosen],
                "tflops": [_cell(row, "f", index, 0) for row in chosen],
            }
            for index in indexes
        },
        "marks": [{"t": gap["from"], "event": "telemetry breaks off"} for gap in breaks(rows, state["interval_s"])]
        + [{"t": was["t"], "event": f"the clock was set by {was['seconds']:g} s"} for was in clock_set],
        "margin_floor_celsius": floor,
    }


def _cell(row: Mapping[str, Any], key: str, index: str, place: int) -> Any:
    values = row.get(key, {}).get(index)
    return values[place] if values else None


def _hottest(bucket: Rows) -> Mapping[str, Any]:
    def margin(row: Mapping[str, Any]) -> float:
        return min((g[1] for g in row.get("g", {}).values() if _is_number(g[1])), default=1e9)

    return min(bucket, key=margin)
