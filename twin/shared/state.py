"""Read the simulated GPUs' state: the same file that the simulated NVML reads."""

from __future__ import annotations

import os
from pathlib import Path

PATH = Path(os.environ.get("NVML_STANDIN_STATE", "/var/lib/twin/nvml.state"))


def read(path: Path = PATH) -> dict[str, str]:
    """All keys and values; empty when there is no driver."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def of_gpu(state: dict[str, str], index: int, key: str, default: str = "0") -> str:
    """`gpuN.key`, else `gpu.key`, else the default."""
    return state.get(f"gpu{index}.{key}", state.get(f"gpu.{key}", default))


def count(state: dict[str, str]) -> int:
    """How many GPUs the driver knows."""
    return int(state.get("count", "0"))


def visible(state: dict[str, str], devices: str | None) -> list[int]:
    """Indices that CUDA_VISIBLE_DEVICES selects (by index or UUID; unset: all). Stops at the first unknown, as CUDA
    does.
    """
    if devices is None:
        return list(range(count(state)))
    by_uuid = {of_gpu(state, index, "uuid"): index for index in range(count(state))}
    chosen: list[int] = []
    for item in (part.strip() for part in devices.split(",")):
        index = by_uuid.get(item, int(item) if item.isdigit() else -1)
        if not 0 <= index < count(state):
            break
        chosen.append(index)
    return chosen


def is_lost(state: dict[str, str], index: int) -> bool:
    """Has this GPU fallen off the bus?"""
    return of_gpu(state, index, "lost") not in ("0", "")


def slowdown(state: dict[str, str], gpus: list[int]) -> float:
    """By how much the slowest of these GPUs is throttled: 1.0 not at all, 2.0 under a thermal or hardware slowdown."""
    throttled = any(int(of_gpu(state, index, "reasons"), 0) & 0x68 for index in gpus)
    return 2.0 if throttled else 1.0
