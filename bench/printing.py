"""How the bench prints: a line per figure, with its target and whether it is met; and what the machine was."""

from __future__ import annotations

import os
import platform
from pathlib import Path

WIDTH = 76


def heading(text: str) -> None:
    """A part begins."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def show(what: str, figure: str, target: str = "", met: bool | None = None) -> None:
    """One line; `met` None where there is no target to judge."""
    verdict = "" if met is None else "met" if met else "MISSED"
    print(f"{what:<{WIDTH}}{figure:>14}   {target:<14}{verdict}".rstrip(), flush=True)


def seconds(what: str, value: float, limit_s: float | None = None) -> None:
    """A duration in seconds with its limit."""
    show(what, f"{value:.2f} s", f"≤ {limit_s:g} s" if limit_s else "", value <= limit_s if limit_s else None)


def change(what: str, middle: float, low: float, high: float, limit: float) -> None:
    """A relative change with its interval: met where all of it is within the limit, missed where none of it is."""
    verdict = "met" if high <= limit else "MISSED" if low > limit else "unproven: the interval is too wide"
    figure = f"{middle:+.1%}"
    print(f"{f'{what} [{low:+.1%}, {high:+.1%}]':<{WIDTH}}{figure:>14}   {f'≤ {limit:.0%}':<14}{verdict}", flush=True)


def at_most(what: str, value: float, limit: float, unit: str, digits: int = 2) -> None:
    """A figure that may be at most that."""
    show(what, f"{value:.{digits}f} {unit}", f"≤ {limit:g} {unit}", value <= limit)


def machine() -> None:
    """What this was measured on, and how busy it is now."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"machine: {os.cpu_count()} × {model}; load {load}", flush=True)
