"""The catalog's formulas against the tensors of published files, counted one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tensor_shapes import Tensor, llama_3_1_70b, llama_3_1_70b_fp8, llava_1_6_mistral_7b, qwen2_5_72b_awq

from gpu_cutover.catalog import load_catalog

CATALOG = load_catalog()


@pytest.mark.parametrize(
    ("model", "weights", "tensors"),
    [
        ("llama-3.1-70b-instruct", "bf16", llama_3_1_70b),
        ("qwen2.5-72b-instruct", "awq-int4", qwen2_5_72b_awq),
        ("llava-1.6-mistral-7b", "bf16", llava_1_6_mistral_7b),
    ],
)
def test_weight_bytes_equal_the_sum_over_the_files_tensors(
    model: str, weights: str, tensors: Callable[[], Iterator[Tensor]]
) -> None:
    counted = sum(tensor.bytes for tensor in tensors())
    assert CATALOG.models[model].weight_bytes(CATALOG.formats[weights]) == counted


def test_scales_of_an_fp8_file_are_rightly_neglected() -> None:
    counted = sum(tensor.bytes for tensor in llama_3_1_70b_fp8())
    computed = CATALOG.models["llama-3.1-70b-instruct"].weight_bytes(CATALOG.formats["fp8"])
    assert computed == pytest.approx(counted, rel=0.001)
    assert computed < counted


@pytest.mark.parametrize(
    ("model", "tensors"),
    [("llama-3.1-70b-instruct", llama_3_1_70b), ("llava-1.6-mistral-7b", llava_1_6_mistral_7b)],
)
def test_parameters_equal_the_elements_of_the_tensors(model: str, tensors: Callable[[], Iterator[Tensor]]) -> None:
    assert CATALOG.models[model].parameters() == sum(tensor.elements for tensor in tensors())


def test_what_a_decoded_token_reads_is_every_tensor_but_the_input_embedding() -> None:
    read = sum(tensor.bytes for tensor in llama_3_1_70b() if "embed_tokens" not in tensor.name)
    assert CATALOG.models["llama-3.1-70b-instruct"].decode_bytes(CATALOG.formats["bf16"]) == read


def test_the_kv_cache_of_a_token_is_a_row_of_every_key_and_value_matrix() -> None:
    rows = [tensor.shape[0] for tensor in llama_3_1_70b() if tensor.name.endswith(("k_proj.weight", "v_proj.weight"))]
    assert CATALOG.models["llama-3.1-70b-instruct"].kv_bytes_per_token() == 2 * sum(rows)
