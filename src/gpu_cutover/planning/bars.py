"""GPU memory as a bar: who takes how much of what engines may use. Pure."""

from __future__ import annotations

from typing import Any

from ..catalog import Catalog, Gpu, Tier
from .fit import GIB, MIB, Fit, budget_bytes
from .placement import Placed, Placement

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


def memory_of(placement: Placement, tier: Tier, gpu: Gpu, catalog: Catalog) -> list[dict[str, Any]]:
    """The same of a placement of the planner, from the share of each GPU's memory that it gives an engine."""
    return [
        _gpu(index, [placed for placed in placement.models if index in placed.gpus], gpu, catalog)
        for index in range(tier.gpu_count)
    ]


def _gpu(index: int, here: list[Placed], gpu: Gpu, catalog: Catalog) -> dict[str, Any]:
    used = sum(placed.fraction for placed in here) * gpu.memory_mib / 1024
    return {
        "gpu": index,
        "budget_gib": round(budget_bytes(gpu, catalog) / GIB, 1),
        "used_gib": round(used, 1),
        "engines": [_engine(placed, gpu, catalog) for placed in here],
    }


def _engine(placed: Placed, gpu: Gpu, catalog: Catalog) -> dict[str, Any]:
    """An engine without vLLM's arguments is Triton's."""
    weights = catalog.models[placed.model].weight_bytes(catalog.formats[placed.format]) / len(placed.gpus)
    activations = (gpu.activation_reserve_mib if placed.flags else catalog.triton.workspace_mib) * MIB
    whole = placed.fraction * gpu.memory_mib * MIB
    return {
        "model": placed.model,
        "weights_gib": round(weights / GIB, 2),
        "activations_gib": round(activations / GIB, 2),
        "cache_gib": round(max(0.0, whole - weights - activations) / GIB, 2),
        "fraction": placed.fraction,
    }


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
