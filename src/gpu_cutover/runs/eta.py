"""How long a run will still take: from this site's last complete run of that day, else from what it declares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What the declared durations say about a day, at least: the waits a day cannot be faster than.
DECLARED: dict[int, tuple[str, ...]] = {6: ("burn_in_s",), 8: ("mirror_s",), 9: ("watch_s",), 10: ("watch_s",)}


def remaining_s(
    elapsed_s: float,
    position: int,
    earlier: Sequence[Sequence[Any]] | None,
    earlier_total_s: float,
    declared_s: float | None,
) -> float | None:
    """Seconds left, or None when nobody can know.

    `position` is the number of the task now running (from 0) and `earlier` the last complete run's timeline
    ([task, seconds since its start]): what is left is what that run had still to do after the same task, and half of
    that task itself. Without an earlier run, the declared waits are the floor.
    """
    if earlier and position < len(earlier):
        begun = float(earlier[position][1])
        after = float(earlier[position + 1][1]) if position + 1 < len(earlier) else earlier_total_s
        return max(earlier_total_s - after, 0.0) + max(after - begun, 0.0) / 2
    if declared_s is None:
        return None
    return max(declared_s - elapsed_s, 0.0)


def declared_s(day: int | None, durations: Mapping[str, Any]) -> float | None:
    """The declared waits of a day in seconds, or None where the site declares none for it."""
    waits = [float(durations[key]) for key in DECLARED.get(day or 0, ()) if isinstance(durations.get(key), int | float)]
    return sum(waits) if waits else None


def clock(seconds: float) -> str:
    """m:ss, from an hour on h:mm:ss."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def ago(seconds: float) -> str:
    """For people: "20 s", "3 min", "5 h", "2 days"."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= (2 * size if unit == "days" else size):
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
