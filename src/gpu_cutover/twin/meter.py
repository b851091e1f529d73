"""How much memory a rehearsal takes: the largest drop of the machine's available memory since it began."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

MEMINFO = Path("/proc/meminfo")


def available_mib(text: str) -> float:
    """MemAvailable in MiB, from the text of /proc/meminfo (kB there). Raises ValueError where it is missing."""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no MemAvailable")


class MemoryMeter:
    """Samples once a second while entered. Other programs of the machine count too: trust it on a quiet one."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s, self._stop = interval_s, threading.Event()
        self._first = self._lowest = available_mib(MEMINFO.read_text())
        self._thread = threading.Thread(target=self._sample, name="memory-meter", daemon=True)

    @property
    def peak_mib(self) -> float:
        """The largest drop so far, in MiB."""
        return self._first - self._lowest

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    def _sample(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._lowest = min(self._lowest, available_mib(MEMINFO.read_text()))
