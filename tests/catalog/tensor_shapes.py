"""The tensors of three published files, written out by name and shape: a second way to a model's size.

Nothing here knows the catalog: shapes are those of the public modelling code, so that a wrong formula there shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "F8_E4M3": 1}


@dataclass(frozen=True)
class Tensor:
    """An entry of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * BYTES[self.dtype]


def llama_3_1_70b() -> Iterator[Tensor]:
    """Llama-3.1-70B-Instruct as published, BF16."""
    yield Tensor("model.embed_tokens.weight", "BF16", (128256, 8192))
    for index in range(80):
        layer = f"model.layers.{index}"
        yield Tensor(f"{layer}.input_layernorm.weight", "BF16", (8192,))
        yield Tensor(f"{layer}.self_attn.q_proj.weight", "BF16", (8192, 8192))
        yield Tensor(f"{layer}.self_attn.k_proj.weight", "BF16", (1024, 8192))
        yield Tensor(f"{layer}.self_attn.v_proj.weight", "BF16", (1024, 8192))
        yield Tensor(f"{layer}.self_attn.o_proj.weight", "BF16", (8192, 8192))
        yield Tensor(f"{layer}.post_attention_layernorm.weight", "BF16", (8192,))
        yield Tensor(f"{layer}.mlp.gate_proj.weight", "BF16", (28672, 8192))
        yield Tensor(f"{layer}.mlp.up_proj.weight", "BF16", (28672, 8192))
        yield Tensor(f"{layer}.mlp.down_proj.weight", "BF16", (8192, 28672))
    yield Tensor("model.norm.weight", "BF16", (8192,))
    yield Tensor("lm_head.weight", "BF16", (128256, 8192))


def llama_3_1_70b_fp8() -> Iterator[Tensor]:
    """The same with its linear layers in FP8: one scale for each weight and each input."""
    for tensor in llama_3_1_70b():
        if "_proj.weight" in tensor.name:
            yield Tensor(tensor.name, "F8_E4M3", tensor.shape)
            yield Tensor(f"{tensor.name}_scale", "F32", (1,))
            yield Tensor(tensor.name.replace("weight", "input_scale"), "F32", (1,))
        else:
            yield tensor


def _awq(name: str, inputs: int, outputs: int) -> Iterator[Tensor]:
    """An AWQ linear layer: eight 4-bit weights in an I32, and per group of 128 inputs a scale and a packed zero."""
    yield Tensor(f"{name}.qweight", "I32", (inputs, outputs // 8))
    yield Tensor(f"{name}.qzeros", "I32", (inputs // 128, outputs // 8))
    yield Tensor(f"{name}.scales", "F16", (inputs // 128, outputs))


def qwen2_5_72b_awq() -> Iterator[Tensor]:
    """Qwen2.5-72B-Instruct-AWQ as published: the MLP padded to 29,696."""
    yield Tensor("model.embed_tokens.weight", "F16", (152064, 8192))
    for index in range(80):
        layer = f"model.layers.{index}"
        yield Tensor(f"{layer}.input_layernorm.weight", "F16", (8192,))
        yield from _awq(f"{layer}.self_attn.q_proj", 8192, 8192)
        yield Tensor(f"{layer}.self_attn.q_proj.bias", "F16", (8192,))
        yield from _awq(f"{layer}.self_attn.k_proj", 8192, 1024)
        yield Tensor(f"{layer}.self_attn.k_proj.bias", "F16", (1024,))
        yield from _awq(f"{layer}.self_attn.v_proj", 8192, 1024)
        yield Tensor(f"{layer}.self_attn.v_proj.bias", "F16", (1024,))
        yield from _awq(f"{layer}.self_attn.o_proj", 8192, 8192)
        yield Tensor(f"{layer}.post_attention_layernorm.weight", "F16", (8192,))
        yield from _awq(f"{layer}.mlp.gate_proj", 8192, 29696)
        yield from _awq(f"{layer}.mlp.up_proj", 8192, 29696)
        yield from _awq(f"{layer}.mlp.down_proj", 29696, 8192)
    yield Tensor("model.norm.weight", "F16", (8192,))
    yield Tensor("lm_head.weight", "F16", (152064, 8192))


def _with_bias(name: str, outputs: int, *inputs: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", "BF16", (outputs, *inputs))
    yield Tensor(f"{name}.bias", "BF16", (outputs,))


def _clip_vit_l_14_336() -> Iterator[Tensor]:
    root = "vision_tower.vision_model"
    yield Tensor(f"{root}.embeddings.class_embedding", "BF16", (1024,))
    yield Tensor(f"{root}.embeddings.patch_embedding.weight", "BF16", (1024, 3, 14, 14))
    yield Tensor(f"{root}.embeddings.position_embedding.weight", "BF16", (577, 1024))
    yield from _with_bias(f"{root}.pre_layrnorm", 1024)
    for index in range(24):
        layer = f"{root}.encoder.layers.{index}"
        yield from _with_bias(f"{layer}.layer_norm1", 1024)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _with_bias(f"{layer}.self_attn.{part}", 1024, 1024)
        yield from _with_bias(f"{layer}.layer_norm2", 1024)
        yield from _with_bias(f"{layer}.mlp.fc1", 4096, 1024)
        yield from _with_bias(f"{layer}.mlp.fc2", 1024, 4096)
    yield from _with_bias(f"{root}.post_layernorm", 1024)


def llava_1_6_mistral_7b() -> Iterator[Tensor]:
    """llava-v1.6-mistral-7b-hf as published: tower, projector, row separator, Mistral-7B with 32,064 tokens."""
    yield from _clip_vit_l_14_336()
    yield from _with_bias("multi_modal_projector.linear_1", 4096, 1024)
    yield from _with_bias("multi_modal_projector.linear_2", 4096, 4096)
    yield Tensor("image_newline", "BF16", (4096,))
    yield Tensor("language_model.model.embed_tokens.weight", "BF16", (32064, 4096))
    for index in range(32):
        layer = f"language_model.model.layers.{index}"
        yield Tensor(f"{layer}.input_layernorm.weight", "BF16", (4096,))
        for part, outputs in (("q_proj", 4096), ("k_proj", 1024), ("v_proj", 1024), ("o_proj", 4096)):
            yield Tensor(f"{layer}.self_attn.{part}.weight", "BF16", (outputs, 4096))
        yield Tensor(f"{layer}.post_attention_layernorm.weight", "BF16", (4096,))
        yield Tensor(f"{layer}.mlp.gate_proj.weight", "BF16", (14336, 4096))
        yield Tensor(f"{layer}.mlp.up_proj.weight", "BF16", (14336, 4096))
        yield Tensor(f"{layer}.mlp.down_proj.weight", "BF16", (4096, 14336))
    yield Tensor("language_model.model.norm.weight", "BF16", (4096,))
    yield Tensor("language_model.lm_head.weight", "BF16", (32064, 4096))
