"""Facts as data, each with its source: GPUs, models, formats, tiers, engines, drivers, targets.

`load_catalog()` reads the YAML files beside this module once and returns typed, frozen values. It is read on the
controller only; nothing here travels to a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .architecture import Architecture, Vision

KINDS = ("decoder", "speech", "encoder")


@dataclass(frozen=True)
class Gpu:
    """A GPU model. Memory in MiB, bandwidth in bytes/s, T.Limit margins in °C, power in W, floors in GB/s."""

    name: str
    memory_mib: int
    free_mib: int
    memory_bandwidth: int
    bf16_flops: int
    fp8_flops: int
    activation_reserve_mib: int
    all_reduce_s: float
    prefill_comms_share: float
    tlimit_slowdown: int
    tlimit_shutdown: int
    max_operating_celsius: int
    memory_sensor: bool
    power_min_w: int
    power_max_w: int
    nvlink: bool
    fabric_manager: bool
    mig: bool
    error_containment: bool
    ecc_sram_banks: int
    pcie_gen: int
    pcie_width: int
    h2d_floor_gb_s: float
    busbw_floor_gb_s: Mapping[int, float]
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """Bits per quantised weight; `group_bits` more for every `group` weights (0: no groups)."""

    bits: int
    group: int
    group_bits: int
    sources: Mapping[str, Any]

    def bytes_per_weight(self) -> float:
        """Bytes of one weight of a linear layer, its share of the group's scale included."""
        return (self.bits + (self.group_bits / self.group if self.group else 0.0)) / 8


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
    """A server as bought: the parts day 1 expects, and its power sum."""

    gpu: str
    gpu_count: int
    cpu_model: str
    cpu_count: int
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
    tiers: Mapping[str, Tier]
    vllm: VllmRule
    triton: TritonRule
    drivers: Mapping[str, Driver]
    targets: Mapping[str, Target]
    routes: Mapping[str, Route]
    providers: Mapping[str, Provider]


def _read(name: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load((Path(__file__).parent / name).read_bytes(), Loader=loader)
    return document


def _is_leaf(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"value", "source"}


def _split(entry: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Values and sources of `{key: {value, source}}`, one level of nesting allowed."""
    values: dict[Any, Any] = {}
    sources: dict[Any, Any] = {}
    for key, leaf in entry.items():
        values[key], sources[key] = (leaf["value"], leaf["source"]) if _is_leaf(leaf) else _split(leaf)
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}, sources


def _sourced(entry: Mapping[str, Any]) -> dict[str, Any]:
    values, sources = _split(entry)
    return {**values, "sources": sources}


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    numbers = dict(entry["architecture"])
    vision = numbers.pop("vision", None)
    shape = Architecture(**numbers, vision=Vision(**vision) if vision else None)
    return Model(name, entry["kind"], entry["source"], shape)


@cache
def load_catalog() -> Catalog:
    """Read the catalog once (about 15 ms)."""
    engines = _read("engines.yml")
    return Catalog(
        gpus={name: Gpu(**_sourced(entry)) for name, entry in _read("gpus.yml").items()},
        models={name: _model(name, entry) for name, entry in _read("models.yml").items()},
        formats={name: Format(**_sourced(entry)) for name, entry in _read("formats.yml").items()},
        tiers={name: Tier(**_sourced(entry)) for name, entry in _read("tiers.yml").items()},
        vllm=VllmRule(**_sourced(engines["vllm"])),
        triton=TritonRule(**_sourced(engines["triton"])),
        drivers={name: Driver(**_sourced(entry)) for name, entry in _read("drivers.yml").items()},
        targets={name: Target(**entry) for name, entry in _read("targets.yml").items()},
        routes={
            name: Route(entry["path"], tuple(entry["kinds"]), entry["mode"], entry["source"])
            for name, entry in _read("routes.yml").items()
        },
        providers={name: Provider(**_sourced(entry)) for name, entry in _read("providers.yml").items()},
    )
