"""A GPU host in memory, and a plan for it, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from gpu_cutover.guard import placement

ENGINES: dict[str, dict[str, Any]] = {
    model: {"unit": f"{engine}@{model}.service", "engine": engine, "port": port, "weights_digest": f"w-{model}"}
    for model, engine, port in [("llama", "vllm", 8101), ("llava", "vllm", 8102), ("bge", "triton", 8000)]
}


def entry(gpus: list[int], **env: str) -> dict[str, Any]:
    return {"gpus": gpus, "env": {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), **env}}


PLACEMENTS: dict[str, dict[str, Any]] = {
    "healthy": {
        "engines": {"llama": entry([2, 3]), "llava": entry([1]), "bge": entry([0])},
        "routes": {"chat": "llama", "vision": "llava", "embed": "bge"},
    },
    "without-gpu2": {
        "engines": {"llama": entry([1, 3]), "bge": entry([0])},
        "routes": {"chat": "llama", "vision": None, "embed": "bge"},
        "off": ["vision"],
        "degraded": {"chat": "shares GPU 1"},
    },
}


class MemoryHost:
    """Units in memory; `broken` never become healthy, `die_after` raises after so many acts."""

    def __init__(self, directory: Path, broken: Collection[str] = (), die_after: int = 10**9) -> None:
        self.directory, self.broken, self.die_after = directory, broken, die_after
        self.units: dict[str, str] = {}
        self.enabled: set[str] = set()
        self.clock = 0.0
        self.acts: list[str] = []

    def _act(self, what: str) -> None:
        if self.die_after <= 0:
            raise InterruptedError("killed here")
        self.die_after -= 1
        self.acts.append(what)

    def running(self, units: Iterable[str]) -> dict[str, str | None]:
        return {unit: self.units.get(unit) for unit in units}

    def stop(self, units: Iterable[str]) -> None:
        for unit in units:
            self._act(f"stop {unit}")
            del self.units[unit]

    def start(self, units: Iterable[str]) -> None:
        for unit in units:
            self._act(f"start {unit}")
            model = unit.split("@")[1].removesuffix(".service")
            text = (self.directory / "current" / f"{model}.env").read_text()
            self.units[unit] = text.split(f"{placement.DIGEST_VARIABLE}=")[1].strip()

    def set_boot(self, enabled: Collection[str], disabled: Collection[str]) -> None:
        self._act("boot")
        self.enabled = (self.enabled | set(enabled)) - set(disabled)

    def healthy(self, url: str) -> bool:
        return not any(name in url for name in self.broken)

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


def bring(directory: Path, host: MemoryHost, name: str) -> placement.Applied:
    return placement.apply(placement.load_plan(directory), name, directory, host, 5.0, lambda event: None)
