"""The last hours of samples in memory, packed: a tenth of what dictionaries would take."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from .decide import LEVELS

COLUMNS = ("temperature_celsius", "margin_celsius", "power_w", "limit_w")


def _packed(value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good else math.nan  # type: ignore[arg-type]


class History:
    """A ring of samples; not safe from several threads by itself."""

    def __init__(self, samples: int, gpus: int) -> None:
        self._row = struct.Struct("<d" + "4fB" * gpus)
        self._rows: deque[bytes] = deque(maxlen=samples)
        self._gpus = gpus

    def append(self, t: float, seen: Mapping[int, Mapping[str, Any]], levels: Sequence[str]) -> None:
        """`seen` has the readings by GPU; what is missing is kept as missing."""
        values: list[float] = [t]
        for index, level in enumerate(levels):
            reading = seen.get(index, {})
            values += [_packed(reading.get(name)) for name in COLUMNS]
            values.append(LEVELS.index(level))
        self._rows.append(self._row.pack(*values))

    def since(self, t: float) -> list[dict[str, Any]]:
        """Samples from `t` (epoch seconds) on, oldest first, as plain data."""
        return [self._plain(row) for row in self._rows if struct.unpack_from("<d", row)[0] >= t]

    def _plain(self, row: bytes) -> dict[str, Any]:
        t, *values = self._row.unpack(row)
        groups = [values[start : start + 5] for start in range(0, 5 * self._gpus, 5)]
        named = [dict(zip(COLUMNS, (_shown(v) for v in g[:4]), strict=True)) | {"level": LEVELS[g[4]]} for g in groups]
        return {"t": round(t, 3), "gpus": named}


def _shown(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
