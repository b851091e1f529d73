"""Telemetry on disk: one line per sample, only ever appended; a line torn by a crash is passed over, not trusted.

A line is `{"t", "m", "boot", "g": {index: [temperature, margin, power, bits, utilisation, limit]}, "c": {index: [ecc,
remapped, pending, failed, replays]}, "f": {index: [tflops, errors]}, "x": [[gpu, xid]]}`; `c` only when a counter
changed. `t` is the wall clock's time, `m` counts seconds since the boot: a clock that is set moves only `t`.
An hour's lines become a compressed segment `telemetry.jsonl.<n>.gz` beside the file.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SENSORS = ("temperature_celsius", "margin_celsius", "power_w", "clocks_event_bits", "utilisation_percent", "limit_w")
COUNTERS = ("ecc_uncorrected", "remap_uncorrected", "remap_pending", "remap_failure", "pcie_replays")


SEGMENT_LINES = 3600
CLOCK_SET_S = 2.0


def segments(path: Path) -> list[Path]:
    """The closed segments of a file, oldest first; of one that exists twice the compressed one, which is whole."""
    found: dict[str, Path] = {}
    for segment in sorted(path.parent.glob(f"{path.name}.[0-9]*")):
        if segment.suffix == ".gz" or segment.name not in found:
            found[segment.name.removesuffix(".gz")] = segment
    return [found[name] for name in sorted(found)]


def compress(segment: Path) -> None:
    """Replace a closed segment by its compressed form; a crash leaves one of them whole. Raises OSError."""
    packed = segment.with_name(f"{segment.name}.gz")
    fresh = segment.with_name(f".{packed.name}.new")
    with fresh.open("wb") as handle:
        handle.write(gzip.compress(segment.read_bytes(), 6, mtime=0))
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(packed)
    segment.unlink()


class Writer:
    """Appends lines; on disk for certain every `sync_every` lines. Every `SEGMENT_LINES` lines a segment is closed."""

    def __init__(self, path: Path, sync_every: int = 10, segment_lines: int = SEGMENT_LINES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._sync_every, self._segment_lines = path, sync_every, segment_lines
        for segment in path.parent.glob(f"{path.name}.[0-9]*[0-9]"):
            compress(segment)
        self._open()

    def _open(self) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        self._file = self._path.open("ab")
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")
        self._lines = content.count(b"\n")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line. Raises OSError (full disk)."""
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self._lines += 1
        if self._lines % self._sync_every == 0:
            os.fsync(self._file.fileno())
        if self._lines >= self._segment_lines:
            self._close_segment()

    def _close_segment(self) -> None:
        self.close()
        closed = self._path.with_name(f"{self._path.name}.{len(segments(self._path)):05d}")
        self._path.replace(closed)
        compress(closed)
        self._open()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def row(
    sample: Mapping[str, Any],
    load: Mapping[int, Mapping[str, Any]],
    boot: str,
    counters: dict[int, list[Any]],
    uptime_s: float,
) -> dict[str, Any]:
    """The line of one sample. `counters` holds the last counters written and is brought up to date."""
    line: dict[str, Any] = {"t": round(float(sample["t"]), 2), "m": round(uptime_s, 2), "boot": boot}
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


def read(content: bytes) -> list[dict[str, Any]]:
    """The whole lines, in order; a torn or foreign one is left out."""
    lines = content.splitlines()
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")  # at once, where none is torn: a third of the time
    except ValueError:
        found = [_line(line) for line in lines]
    return [row for row in found if isinstance(row, dict) and isinstance(row.get("t"), int | float)]


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Without garbage collection: a day is millions of small objects, all of them in use."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@undisturbed()
def read_file(path: Path) -> list[dict[str, Any]]:
    """All samples of a file and its segments; none when it is not there. Raises OSError for a damaged segment."""
    rows: list[dict[str, Any]] = []
    for segment in segments(path):
        content = segment.read_bytes()
        rows += read(gzip.decompress(content) if segment.suffix == ".gz" else content)
    return rows + read(path.read_bytes()) if path.exists() else rows


def steady(rows: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], list[dict[str, float]]]:
    """The rows with `t` as if nobody had set the clock, and the settings: `{t, seconds}` each, for more than 2 s.

    Within a boot the seconds since it count, between two only the wall clock can tell; it never runs backwards here.
    """
    steps = [_step(before, after) for before, after in pairwise(rows)]
    if not any(wall < 0 or abs(wall - counted) > CLOCK_SET_S for wall, counted in steps):
        return rows, []
    found = [rows[0]]
    settings: list[dict[str, float]] = []
    for row, (wall, counted) in zip(rows[1:], steps, strict=True):
        if abs(wall - counted) > CLOCK_SET_S:
            settings.append({"t": found[-1]["t"], "seconds": round(wall - counted, 1)})
        found.append({**row, "t": round(found[-1]["t"] + max(0.0, counted), 2)})
    return found, settings


def _step(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds between two rows by the wall clock, and as counted."""
    wall = after["t"] - before["t"]
    counts = before.get("boot") == after.get("boot") and "m" in before and "m" in after
    return wall, after["m"] - before["m"] if counts else wall
