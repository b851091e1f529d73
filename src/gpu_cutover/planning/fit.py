"""What fits on which GPU, by the engines' own rule.

vLLM takes `gpu_memory_utilization` of a GPU's memory, loads weights, measures its activations, and makes KV cache of
the rest. Several engines on one GPU share it by explicit fractions: an engine with a declared `kv_gib`, or with no KV
cache, gets exactly what it needs; the others share what is left. So an engine keeps its fraction, and need not restart,
when its neighbours change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..catalog import Catalog, Format, Gpu, Model

MIB = 1024 * 1024
GIB = 1024 * MIB
STEPS = 1000  # fractions are given to the engine with three digits


@dataclass(frozen=True)
class Instance:
    """One engine: a model in a format, with how its KV cache is stored and, if declared, how large it is (GiB)."""

    model: Model
    weights: Format
    engine: str
    kv_bytes: int = 2
    max_model_len: int = 0
    kv_gib: float | None = None

    @property
    def takes_the_rest(self) -> bool:
        """Its KV cache is whatever the others leave."""
        return self.kv_gib is None and self.model.kind == "decoder"

    def smallest_kv(self) -> int:
        """Bytes of KV cache below which the engine refuses to start: one request of full length."""
        per_request = self.max_model_len * self.model.kv_bytes_per_token(self.kv_bytes)
        if self.model.kind == "speech":
            per_request += self.kv_bytes * self.model.architecture.cross_kv_elements()
        return per_request


@dataclass(frozen=True)
class Share:
    """Bytes of one engine on one GPU, and the fraction of the GPU's memory it is told to use."""

    name: str
    weights: int
    activations: int
    kv: int
    fraction: float

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.kv


@dataclass(frozen=True)
class GpuFit:
    """One GPU: its memory, the budget of the engine rule, and who has what of it (bytes)."""

    gpu: int
    memory: int
    budget: int
    shares: tuple[Share, ...]

    @property
    def used(self) -> int:
        return sum(share.total for share in self.shares)

    @property
    def over(self) -> int:
        """Bytes over the budget; 0 when everything fits."""
        return max(0, self.used - self.budget)


@dataclass(frozen=True)
class Fit:
    """A placement's verdict: `fits` is false when any GPU is over its budget."""

    gpus: tuple[GpuFit, ...]
    kv_tokens: Mapping[str, int]
    fractions: Mapping[str, float]

    @property
    def fits(self) -> bool:
        return all(gpu.over == 0 for gpu in self.gpus)


def tensor_parallel_problem(instance: Instance, gpus: int) -> str | None:
    """Why this model cannot be split over so many GPUs, or None.

    vLLM refuses a tensor-parallel size that does not divide the attention heads; KV heads divide or are replicated.
    """
    shape = instance.model.architecture
    if gpus == 1:
        return None
    if instance.engine != "vllm":
        return f"{instance.engine} serves a model from one GPU, not from {gpus}"
    if shape.heads % gpus:
        return f"{shape.heads} attention heads cannot be divided by {gpus} GPUs"
    if shape.kv_heads % gpus and gpus % shape.kv_heads:
        return f"{shape.kv_heads} key-value heads can be neither divided by nor replicated over {gpus} GPUs"
    return None


def budget_bytes(gpu: Gpu, catalog: Catalog) -> int:
    """Bytes of a GPU that engines may use: total memory x gpu_memory_utilization."""
    return int(gpu.memory_mib * MIB * catalog.vllm.gpu_memory_utilization)


def allowed_steps(catalog: Catalog) -> int:
    """The same in steps of a GPU's memory, as fractions are given to engines."""
    return math.floor(catalog.vllm.gpu_memory_utilization * STEPS)


def _reserve(instance: Instance, gpu: Gpu, catalog: Catalog) -> int:
    return (catalog.triton.workspace_mib if instance.engine == "triton" else gpu.activation_reserve_mib) * MIB


def need(name: str, instance: Instance, split: int, gpu: Gpu, catalog: Catalog) -> Share:
    """What the engine needs of each of its GPUs at least; the cache is rounded up to a whole step of the fraction."""
    memory = gpu.memory_mib * MIB
    weights = math.ceil(instance.model.weight_bytes(instance.weights) / split)
    activations = _reserve(instance, gpu, catalog)
    declared = round(instance.kv_gib * GIB) if instance.kv_gib is not None else 0
    kv = math.ceil(max(declared, instance.smallest_kv()) / split)
    return _share(name, weights, activations, math.ceil((weights + activations + kv) / memory * STEPS), memory)


def _share(name: str, weights: int, activations: int, steps: int, memory: int) -> Share:
    return Share(name, weights, activations, steps * memory // STEPS - weights - activations, steps / STEPS)


def fit(
    instances: Mapping[str, Instance], placement: Mapping[str, Sequence[int]], gpu: Gpu, count: int, catalog: Catalog
) -> Fit:
    """Divide `count` equal GPUs among the engines of a placement (name → GPU indices, all below `count`).

    A tensor-parallel engine has the same fraction on each of its GPUs: the smallest it finds.
    """
    memory = gpu.memory_mib * MIB
    shares = {name: need(name, instances[name], len(gpus), gpu, catalog) for name, gpus in placement.items()}
    needed = {name: round(share.fraction * STEPS) for name, share in shares.items()}
    takers = {name for name in placement if instances[name].takes_the_rest}
    allowed = allowed_steps(catalog)
    for name in takers:
        spare = min(_spare_steps(index, placement, needed, takers, allowed) for index in placement[name])
        share = shares[name]
        shares[name] = _share(name, share.weights, share.activations, needed[name] + max(0, spare), memory)
    return Fit(
        gpus=tuple(
            GpuFit(
                index,
                memory,
                budget_bytes(gpu, catalog),
                tuple(shares[name] for name in sorted(placement) if index in placement[name]),
            )
            for index in range(count)
        ),
        kv_tokens={name: _tokens(instances[name], shares[name].kv * len(gpus)) for name, gpus in placement.items()},
        fractions={name: share.fraction for name, share in shares.items()},
    )


def _spare_steps(
    index: int, placement: Mapping[str, Sequence[int]], needed: Mapping[str, int], takers: Collection[str], allowed: int
) -> int:
    """Each taker's equal part of what all needs leave on this GPU (negative when they are over)."""
    here = [name for name, gpus in placement.items() if index in gpus]
    return (allowed - sum(needed[name] for name in here)) // sum(name in takers for name in here)


def _tokens(instance: Instance, kv: int) -> int:
    per_token = instance.model.kv_bytes_per_token(instance.kv_bytes)
    return kv // per_token if per_token else 0
