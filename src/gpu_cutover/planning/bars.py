"""GPU memory as a bar: who takes how much of what engines may use. Pure."""

from __future__ import annotations

from typing import Any

from .fit import GIB, Fit

WIDTH = 32  # characters
LEGEND = "# weights  = activations  + cache  . free"
PARTS = (("#", "weights_gib"), ("=", "activations_gib"), ("+", "cache_gib"))


def memory(found: Fit) -> list[dict[str, Any]]:
    """Every GPU of a placement: its budget, what is used of it and by whom, GiB."""
    return [
        {
            "gpu": gpu.gpu,
            "budget_gib": round(gpu.budget / GIB, 1),
            "used_gib": round(gpu.used / GIB, 1),
            "engines": [
                {
                    "model": share.name,
                    "weights_gib": round(share.weights / GIB, 2),
                    "activations_gib": round(share.activations / GIB, 2),
                    "cache_gib": round(share.kv / GIB, 2),
                    "fraction": share.fraction,
                }
                for share in gpu.shares
            ],
        }
        for gpu in found.gpus
    ]


def bar(gpu: dict[str, Any], width: int = WIDTH) -> str:
    """Parts of the budget as characters; rounding never makes the bar longer than it is."""
    drawn = ""
    reached = 0.0
    for sign, part in PARTS:
        reached += sum(engine[part] for engine in gpu["engines"])
        drawn += sign * (round(min(1.0, reached / gpu["budget_gib"]) * width) - len(drawn))
    return drawn.ljust(width, ".")


def line(gpu: dict[str, Any], lost: int | None) -> str:
    """One GPU of a placement as a line of text."""
    if gpu["gpu"] == lost:
        return f"GPU {gpu['gpu']}  lost"
    models = ", ".join(engine["model"] for engine in gpu["engines"]) or "free"
    return f"GPU {gpu['gpu']}  [{bar(gpu)}] {gpu['used_gib']:5.1f} of {gpu['budget_gib']:.1f} GiB  {models}"
