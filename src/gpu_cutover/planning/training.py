"""What training takes: memory from parameters, gradients, optimiser and activations; hours from operations. Pure.

Fully sharded (FSDP): each of `n` GPUs holds 1/n of the states, its own activations, and two layers gathered whole.
Activations are checkpointed: each layer's input is kept and one layer is computed again at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..catalog import Gpu, Model
from ..catalog.scaling import Scaling
from .fit import MIB

GPUS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Need:
    """Bytes of one training run; `per_gpu` by number of GPUs, `gpus` the fewest that hold it (None: over 64)."""

    method: str
    parameters: int
    trained: int
    states: int
    activations: int
    per_gpu: Mapping[int, int]
    gpus: int | None
    hours: float | None
    arithmetic: str


def states_bytes(parameters: float, method: str, data: Scaling) -> float:
    """Bytes of weights, gradients and optimiser of the base model: parameters x the method's bytes."""
    return parameters * float(sum(data.methods[method]))


def adapter_parameters(model: Model, rank: int) -> int:
    """Weights of LoRA adapters on every linear layer: rank x (inputs + outputs)."""
    a = model.architecture
    query, key_value = a.heads * a.head_dim, a.kv_heads * a.head_dim
    ends = 2 * (a.hidden + query) + 2 * (a.hidden + key_value) + 3 * (a.hidden + a.intermediate)
    return rank * a.layers * ends


def activation_bytes(model: Model, data: Scaling) -> int:
    """Per GPU: each layer's checkpointed input, one layer's working set, and the logits with their gradient."""
    a = model.architecture
    tokens = data.train_sequence * data.train_micro_batch
    kept = a.layers * tokens * a.hidden * 2
    layer = data.layer_activation_bytes * tokens * a.hidden
    logits = tokens * a.vocab * (2 + 4)
    return kept + layer + logits


def usable_bytes(gpu: Gpu, data: Scaling) -> int:
    """What a training process may use of a GPU: memory free on an idle board (all, where unknown) less CUDA's own."""
    return ((gpu.free_mib or gpu.memory_mib) - data.train_context_mib) * MIB


def need(model: Model, method: str, gpu: Gpu, data: Scaling) -> Need:
    """Memory and hours of training a decoder by one of `data.methods` on GPUs of this kind."""
    parameters = model.parameters()
    adapters = adapter_parameters(model, data.lora_rank) if method in ("lora", "qlora") else 0
    states = _states(model, method, adapters, data)
    activations = activation_bytes(model, data)
    per_gpu = {n: _per_gpu(model, states, activations, n) for n in GPUS}
    fitting = [n for n in GPUS if per_gpu[n] <= usable_bytes(gpu, data)]
    base = " + ".join(f"{part:g}" for part in data.methods[method] if part)
    adapter = f" + {data.adapter_bytes} B x {adapters / 1e6:.0f} M of adapters" if adapters else ""
    return Need(
        method,
        parameters,
        adapters or parameters,
        states,
        activations,
        per_gpu,
        fitting[0] if fitting else None,
        hours(model, method, gpu, fitting[0], data) if fitting else None,
        f"{parameters / 1e9:.1f} B parameters x ({base}) B{adapter} = {states / 1e9:.0f} GB"
        f" + {activations / 1e9:.1f} GB of activations",
    )


def _states(model: Model, method: str, adapters: int, data: Scaling) -> int:
    """QLoRA quantises the linear layers alone; embeddings, output head and vision tower stay 16 bit."""
    parameters = model.parameters()
    linear = model.architecture.decoder_linear() if method == "qlora" else parameters
    return round(states_bytes(linear, method, data) + 2 * (parameters - linear) + data.adapter_bytes * adapters)


def _per_gpu(model: Model, states: int, activations: int, gpus: int) -> int:
    gathered = 2 * 2 * model.architecture.decoder_linear() // model.architecture.layers if gpus > 1 else 0
    return -(-states // gpus) + activations + gathered


def hours(model: Model, method: str, gpu: Gpu, gpus: int, data: Scaling) -> float:
    """Hours for `train_tokens`: 8 operations per weight and token (forward, again, backward), 6 with adapters."""
    operations = (8 if method.startswith("full") else 6) * model.parameters() * data.train_tokens
    scaled = 1 + (gpus - 1) * (1.0 if gpu.nvlink else data.train_scaling)
    return operations / (gpu.bf16_flops * data.train_efficiency * scaled) / 3600
