"""Telemetry on disk: one line per sample, only ever appended; a line torn by a crash is passed over, not trusted.

A line is `{"t", "boot", "g": {index: [temperature, margin, power, bits, utilisation, limit]}, "c": {index: [ecc,
remapped, pending, failed, replays]}, "f": {index: [tflops, errors]}, "x": [[gpu, xid]]}`; `c` only when
a counter changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SENSORS = ("temperature_celsius", "margin_celsius", "power_w", "clocks_event_bits", "utilisation_percent", "limit_w")
COUNTERS = ("ecc_uncorrected", "remap_uncorrected", "remap_pending", "remap_failure", "pcie_replays")


class Writer:
    """Appends lines; on disk for certain every `sync_every` lines."""

    def __init__(self, path: Path, sync_every: int = 10) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("ab")
        if torn:
            self._file.write(b"\n")
        self._sync_every, self._lines = sync_every, 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line. Raises OSError (full disk)."""
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self._lines += 1
        if self._lines % self._sync_every == 0:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def row(
    sample: Mapping[str, Any], load: Mapping[int, Mapping[str, Any]], boot: str, counters: dict[int, list[Any]]
) -> dict[str, Any]:
    """The line of one sample. `counters` holds the last counters written and is brought up to date."""
    line: dict[str, Any] = {"t": round(float(sample["t"]), 2), "boot": boot}
    changed = {}
    for gpu in sample.get("gpus", []):
        index = gpu["index"]
        line.setdefault("g", {})[str(index)] = [gpu.get(name) for name in SENSORS]
        now = [gpu.get(name) for name in COUNTERS]
        if counters.get(index) != now:
            counters[index] = changed[str(index)] = now
    if changed:
        line["c"] = changed
    if load:
        line["f"] = {str(index): [seen.get("tflops"), seen.get("errors", 0)] for index, seen in load.items()}
    if sample.get("xids"):
        line["x"] = [[event["gpu"], event["xid"]] for event in sample["xids"]]
    if "error" in sample:
        line["error"] = sample["error"]
    return line


def read(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The whole lines, in order; a torn or foreign one is left out."""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("t"), int | float):
            yield found


def read_file(path: Path) -> list[dict[str, Any]]:
    """All samples of a file; none when it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as handle:
        return list(read(handle))
