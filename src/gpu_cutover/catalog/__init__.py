"""Facts as data, each with its source: GPUs, models, formats, tiers, engines, drivers, targets.

`load_catalog()` reads the YAML files beside this module once and returns typed, frozen values; `lookup()` tells an
unknown name with the nearest known ones and how to add it. Read on the controller only; nothing here travels to a
target. How to add a GPU, model or format: docs/catalog.md (an entry in a data file, no code).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

from ..errors import InputError
from .architecture import VISION_FAMILIES, Architecture
from .reading import DIRECTORY, EntryError, Reader, built, leaves, read_entry, read_file, whole

KINDS = ("decoder", "speech", "encoder")


@dataclass(frozen=True)
class Gpu:
    """A GPU model. Memory in MiB, bandwidth in bytes/s, T.Limit margins in °C, power in W, floors in GB/s.

    None (or no entry in `busbw_floor_gb_s`) is a figure nobody has read from such a board; `fp8_flops` None: the GPU
    has no FP8 arithmetic.
    """

    name: str
    compute_capability: float
    memory_mib: int
    free_mib: int | None
    memory_bandwidth: int
    bf16_flops: int
    fp8_flops: int | None
    activation_reserve_mib: int
    all_reduce_s: float
    prefill_comms_share: float
    tlimit_slowdown: int | None
    tlimit_shutdown: int | None
    max_operating_celsius: int | None
    memory_sensor: bool
    power_min_w: int | None
    power_max_w: int
    nvlink: bool
    nvlink_gpus: int
    fabric_manager: bool
    mig: bool
    error_containment: bool
    ecc_sram_banks: int | None
    pcie_gen: int
    pcie_width: int
    h2d_floor_gb_s: float
    busbw_floor_gb_s: Mapping[int, float]
    sources: Mapping[str, Any]

    def joined(self, gpus: Collection[int]) -> bool:
        """Whether NVLink joins all these GPUs directly: a mesh any of its GPUs, a bridge 0 and 1, 2 and 3."""
        return self.nvlink_gpus > 0 and len({gpu // self.nvlink_gpus for gpu in gpus}) == 1


@dataclass(frozen=True)
class Format:
    """Bits per quantised weight; `group_bits` more for every `group` weights (0: no groups).

    `arithmetic` is what multiplies the weights (`bf16` or `fp8`), `min_capability` the first CUDA compute capability
    with a kernel for them, `engines` those that can load such files.
    """

    bits: int
    group: int
    group_bits: int
    arithmetic: str
    min_capability: float
    engines: tuple[str, ...]
    sources: Mapping[str, Any]

    def bytes_per_weight(self) -> float:
        """Bytes of one weight of a linear layer, its share of the group's scale included."""
        return (self.bits + (self.group_bits / self.group if self.group else 0.0)) / 8

    def flops(self, gpu: Gpu) -> int:
        """Dense peak with which a GPU multiplies these weights; 16 bit where it has no FP8 arithmetic."""
        return gpu.fp8_flops if self.arithmetic == "fp8" and gpu.fp8_flops else gpu.bf16_flops

    def runs_on(self, gpu: Gpu) -> bool:
        """Whether an engine has a kernel for such weights on this GPU."""
        return gpu.compute_capability >= self.min_capability


@dataclass(frozen=True)
class KvFormat:
    """How the KV cache is stored: bits of each number, and the first CUDA compute capability it is planned with."""

    bits: int
    min_capability: float
    sources: Mapping[str, Any]

    def bytes_per_number(self) -> int:
        """What `Model.kv_bytes_per_token` takes."""
        return self.bits // 8

    def runs_on(self, gpu: Gpu) -> bool:
        """Whether to plan with such a cache on this GPU."""
        return gpu.compute_capability >= self.min_capability


@dataclass(frozen=True)
class Model:
    """A model's architecture and what follows from it."""

    name: str
    kind: str
    source: str
    architecture: Architecture

    def parameters(self) -> int:
        """Number of weights; equals the published count."""
        shape = self.architecture
        if self.kind == "speech":
            return shape.speech_parameters()
        if self.kind == "encoder":
            return shape.encoder_parameters()
        return shape.decoder_linear() + shape.decoder_rest() + shape.vision_parameters()

    def weight_bytes(self, weights: Format) -> int:
        """Bytes of all weights in this format."""
        if weights.bits == 16 or self.kind != "decoder":
            return 2 * self.parameters()
        shape = self.architecture
        linear = shape.decoder_linear(grouped=weights.group > 0) * weights.bytes_per_weight()
        return round(linear + 2 * (shape.decoder_rest() + shape.vision_parameters()))

    def decode_bytes(self, weights: Format) -> int:
        """Bytes read from memory for one decoded token: all weights but the input embedding and the vision tower."""
        shape = self.architecture
        if self.kind == "speech":
            return 2 * (
                shape.embedding() + shape.decoder_layers * (8 * shape.hidden**2 + 2 * shape.hidden * shape.intermediate)
            )
        return self.weight_bytes(weights) - 2 * (shape.embedding() + shape.vision_parameters())

    def kv_bytes_per_token(self, kv_bytes: int = 2) -> int:
        """Bytes of KV cache per token of context; `kv_bytes` is 2 for 16 bit, 1 for fp8. An encoder keeps none."""
        return 0 if self.kind == "encoder" else self.architecture.kv_elements_per_token() * kv_bytes


@dataclass(frozen=True)
class Tier:
    """A server as bought: the parts day 1 expects, its power sum, and how its GPUs are spread over the sockets."""

    gpu: str
    gpu_count: int
    cpu_model: str
    cpu_count: int
    sockets: int
    gpus_per_socket: int
    cpu_cores: int
    memory_gib: int
    nvme_count: int
    nvme_gb: int
    nvme_pcie_gen: int
    nic_count: int
    nic_gbit_s: int
    psu_count: int
    psu_watts: int
    plan_psu_count: int
    plan_tdp_w: int
    cpu_tdp_w: int
    rest_w: int
    psu_efficiency: float
    sources: Mapping[str, Any]

    def socket_of(self, gpu: int) -> int:
        """The CPU socket a GPU hangs on: the first `gpus_per_socket` on socket 0, and so on."""
        return gpu // self.gpus_per_socket

    def same_socket(self, gpus: Collection[int]) -> bool:
        """Whether no traffic between these GPUs crosses from one CPU socket to another."""
        return len({self.socket_of(gpu) for gpu in gpus}) <= 1

    def with_gpus(self, count: int) -> Tier:
        """The same server with another number of GPUs, spread evenly over its sockets; supplies are not changed."""
        return replace(self, gpu_count=count, gpus_per_socket=math.ceil(count / self.sockets))


@dataclass(frozen=True)
class VllmRule:
    """How vLLM divides a GPU's memory, and how far from the floors it runs."""

    gpu_memory_utilization: float
    decode_efficiency: float
    prefill_efficiency: float
    batch_slope: float
    first_port: int
    whisper_tokens_per_window: int
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class TritonRule:
    """Triton's ports and the memory of one model beside its weights."""

    workspace_mib: int
    http_port: int
    metrics_port: int
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Driver:
    """A driver branch: what runs on it and the packages that make it."""

    kind: str
    end_of_life: str
    max_cuda_major: int
    native_cuda: str
    minimum_version: str
    open_modules: bool
    vllm: str
    triton: str
    packages: tuple[str, ...]
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A target of the plan; `better` is `lower` or `higher`."""

    plan: float
    unit: str
    better: str
    title: str
    source: str


@dataclass(frozen=True)
class Route:
    """A route's API path on an engine, the kinds of model that can answer it, and LiteLLM's `mode`."""

    path: str
    kinds: tuple[str, ...]
    mode: str
    source: str


@dataclass(frozen=True)
class Provider:
    """A cloud provider: its public address and the environment variable with the key."""

    api_base: str
    key_variable: str
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Catalog:
    """All facts, by name."""

    gpus: Mapping[str, Gpu]
    models: Mapping[str, Model]
    formats: Mapping[str, Format]
    kv_formats: Mapping[str, KvFormat]
    tiers: Mapping[str, Tier]
    vllm: VllmRule
    triton: TritonRule
    drivers: Mapping[str, Driver]
    targets: Mapping[str, Target]
    routes: Mapping[str, Route]
    providers: Mapping[str, Provider]


Kind = Literal["gpu", "model", "format", "tier"]


# --- names -----------------------------------------------------------------------------------------------------------


def fix_for_unknown(kind: Kind, name: object, catalog: Catalog) -> str:
    """The nearest known names (all of them where none is near) and how to add one."""
    names = sorted(_names(kind, catalog))
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names)}."
    return f"{known} To add it, write an entry in catalog/{kind}s.yml (docs/catalog.md)"


@overload
def lookup(kind: Literal["gpu"], name: str, catalog: Catalog) -> Gpu: ...
@overload
def lookup(kind: Literal["model"], name: str, catalog: Catalog) -> Model: ...
@overload
def lookup(kind: Literal["format"], name: str, catalog: Catalog) -> Format: ...
@overload
def lookup(kind: Literal["tier"], name: str, catalog: Catalog) -> Tier: ...
def lookup(kind: Kind, name: str, catalog: Catalog) -> Gpu | Model | Format | Tier:
    """The entry of this name. Raises InputError with the nearest known names and how to add one."""
    found: Gpu | Model | Format | Tier | None = _names(kind, catalog).get(name)
    if found is None:
        problem = f"{name} is not a {kind} of the catalog"
        raise InputError(f"catalog/{kind}s.yml", name, problem, fix_for_unknown(kind, name, catalog))
    return found


def _names(kind: Kind, catalog: Catalog) -> Mapping[str, Any]:
    table: Mapping[str, Any] = getattr(catalog, f"{kind}s")
    return table


# --- reading ---------------------------------------------------------------------------------------------------------


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    shape = entry.get("architecture")
    if isinstance(shape, dict) and "vision" in shape:
        shape = {**shape, "vision": _vision(shape["vision"])}
    architecture = built(Architecture, shape, _SHAPE)
    model = built(Model, {**entry, "name": name, "architecture": architecture})
    if model.kind not in KINDS:
        raise EntryError("kind", f"{model.kind!r} is none of {', '.join(KINDS)}")
    return model


def _vision(entry: Any) -> Any:
    numbers = dict(entry) if isinstance(entry, dict) else {}
    family = str(numbers.pop("family", None))
    if family not in VISION_FAMILIES:
        raise EntryError("vision.family", f"{family} is none of {', '.join(VISION_FAMILIES)}")
    return built(VISION_FAMILIES[family], numbers, ("layers", "hidden", "patch"))


_SHAPE = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "max_positions")
_TABLES: Mapping[str, Reader[Any]] = {
    "gpus": leaves(Gpu, "memory_mib", "memory_bandwidth", "bf16_flops", "power_max_w"),
    "models": _model,
    "formats": leaves(Format, "bits"),
    "kv_formats": leaves(KvFormat, "bits"),
    "tiers": leaves(Tier, "gpu_count", "sockets", "gpus_per_socket", "psu_count", "psu_watts", "psu_efficiency"),
    "drivers": leaves(Driver),
    "targets": whole(Target),
    "routes": whole(Route),
    "providers": leaves(Provider),
}
_ENGINES: Mapping[str, Reader[Any]] = {"vllm": leaves(VllmRule), "triton": leaves(TritonRule)}


def read_catalog(directory: Path) -> Catalog:
    """Read a catalog directory. Raises InputError for an entry that is incomplete, misspelt or without a source."""
    tables: dict[str, Any] = {}
    for table, read in _TABLES.items():
        file = f"{table}.yml"
        tables[table] = {
            name: read_entry(file, name, entry, read) for name, entry in read_file(file, directory).items()
        }
    engines = read_file("engines.yml", directory)
    for name, read in _ENGINES.items():
        tables[name] = read_entry("engines.yml", name, engines.get(name), read)
    catalog = Catalog(**tables)
    for name, tier in catalog.tiers.items():
        if tier.gpu not in catalog.gpus:
            problem = f"{tier.gpu} is not a gpu of the catalog"
            raise InputError("catalog/tiers.yml", f"{name}.gpu", problem, fix_for_unknown("gpu", tier.gpu, catalog))
    return catalog


@cache
def load_catalog() -> Catalog:
    """Read this project's catalog once (about 12 ms)."""
    return read_catalog(DIRECTORY)
