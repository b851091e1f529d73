"""What fits: the published arithmetic is reproduced, and no placement can exceed a GPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog import Gpu, load_catalog
from gpu_cutover.planning.fit import GIB, MIB, Fit, Instance, budget_bytes, fit, tensor_parallel_problem

CATALOG = load_catalog()
LLAMA, QWEN72, QWEN32 = "llama-3.1-70b-instruct", "qwen2.5-72b-instruct", "qwen2.5-32b-instruct"
LLAVA, LLAVA13, LLAVA34 = "llava-1.6-mistral-7b", "llava-1.6-vicuna-13b", "llava-1.6-34b"
H100, L40S = "h100-sxm-80", "l40s"


def instance(
    model: str, weights: str, kv_bytes: int = 2, length: int = 512, kv_gib: float | None = None, engine: str = "vllm"
) -> Instance:
    return Instance(CATALOG.models[model], CATALOG.formats[weights], engine, kv_bytes, length, kv_gib)


def placed(gpu: str, instances: dict[str, Instance], placement: dict[str, list[int]]) -> Fit:
    return fit(instances, placement, CATALOG.gpus[gpu], 4, CATALOG)


@pytest.mark.parametrize(("gpu", "gib"), [(H100, 73.3), (L40S, 41.4)])
def test_the_budget_is_92_percent_of_the_memory(gpu: str, gib: float) -> None:
    assert budget_bytes(CATALOG.gpus[gpu], CATALOG) / GIB == pytest.approx(gib, abs=0.05)


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_bytes", "kilotokens"),
    [
        (H100, "bf16", 2, 36.5),
        (H100, "bf16", 1, 73),
        (H100, "fp8", 2, 245),
        (H100, "fp8", 1, 490),
        (H100, "awq-int4", 2, 346),
        (H100, "awq-int4", 1, 692),
        (L40S, "fp8", 2, 40),
        (L40S, "fp8", 1, 79),
        (L40S, "awq-int4", 2, 140),
        (L40S, "awq-int4", 1, 280),
    ],
)
def test_tokens_of_the_70b_on_a_pair(gpu: str, weights: str, kv_bytes: int, kilotokens: float) -> None:
    found = placed(gpu, {"llama": instance(LLAMA, weights, kv_bytes)}, {"llama": [2, 3]})
    assert found.fits
    assert found.kv_tokens["llama"] / 1000 == pytest.approx(kilotokens, rel=0.02)


@pytest.mark.parametrize(
    ("gpu", "model", "kv_bytes", "neighbour", "kilotokens"),
    [
        (H100, QWEN72, 2, None, 107),
        (H100, QWEN72, 1, None, 213),
        (H100, QWEN72, 2, instance(LLAVA, "bf16", kv_gib=1.5), 49),
        (H100, QWEN72, 1, instance(LLAVA, "bf16", kv_gib=1.5), 98),
        (L40S, QWEN32, 2, instance(LLAVA, "bf16", kv_gib=1.0), 21.7),
        (L40S, QWEN32, 1, instance(LLAVA, "bf16", kv_gib=1.0), 43.4),
    ],
)
def test_tokens_of_a_quantised_model_on_one_gpu(
    gpu: str, model: str, kv_bytes: int, neighbour: Instance | None, kilotokens: float
) -> None:
    instances = {"big": instance(model, "awq-int4", kv_bytes)}
    if neighbour:
        instances["llava"] = neighbour
    found = placed(gpu, instances, {name: [3] for name in instances})
    assert found.fits
    assert found.kv_tokens["big"] / 1000 == pytest.approx(kilotokens, rel=0.02)


def cache_gib(found: Fit, name: str, gpus: list[int]) -> float:
    """Cache an engine has on all its GPUs, GiB."""
    share = next(share for share in found.gpus[gpus[0]].shares if share.name == name)
    return share.kv * len(gpus) / GIB


def rounding_gib(gpu: str) -> float:
    """A fraction has three digits: up to a thousandth of the GPU is lost; and the table shows one digit of a GiB."""
    return CATALOG.gpus[gpu].memory_mib * MIB / GIB / 1000 + 0.05


@pytest.mark.parametrize(
    ("gpu", "model", "weights", "gpus", "left_gib"),
    [
        (H100, LLAMA, "bf16", [2, 3], 11.2),
        (H100, LLAMA, "fp8", [2, 3], 74.9),
        (H100, LLAMA, "awq-int4", [2, 3], 105.6),
        (H100, QWEN72, "fp8", [3], 1.3),
        (H100, QWEN72, "awq-int4", [3], 32.6),
        (L40S, LLAMA, "fp8", [2, 3], 12.1),
        (L40S, LLAMA, "awq-int4", [2, 3], 42.8),
        (L40S, QWEN72, "awq-int4", [3], 1.2),
    ],
)
def test_cache_left_beside_the_weights(gpu: str, model: str, weights: str, gpus: list[int], left_gib: float) -> None:
    found = placed(gpu, {"model": instance(model, weights, 1)}, {"model": gpus})
    assert cache_gib(found, "model", gpus) == pytest.approx(left_gib, rel=0.02, abs=len(gpus) * rounding_gib(gpu))


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_bytes", "kilotokens"),
    [
        (H100, "fp8", 2, 4),
        (H100, "fp8", 1, 8),
        (L40S, "awq-int4", 2, 4),
        (L40S, "awq-int4", 1, 8),
    ],
)
def test_the_72b_loads_where_it_leaves_no_room_for_sessions(
    gpu: str, weights: str, kv_bytes: int, kilotokens: int
) -> None:
    found = placed(gpu, {"qwen": instance(QWEN72, weights, kv_bytes)}, {"qwen": [3]})
    assert found.fits
    assert round(found.kv_tokens["qwen"] / 1000) == kilotokens


@pytest.mark.parametrize(
    ("gpu", "model", "weights", "neighbour_kv", "left_gib"),
    [(H100, QWEN72, "awq-int4", 1.5, 15.0), (L40S, QWEN32, "awq-int4", 1.0, 5.3)],
)
def test_cache_left_beside_a_small_vision_model(
    gpu: str, model: str, weights: str, neighbour_kv: float, left_gib: float
) -> None:
    instances = {"big": instance(model, weights), "llava": instance(LLAVA, "bf16", kv_gib=neighbour_kv)}
    found = placed(gpu, instances, {"big": [3], "llava": [3]})
    assert cache_gib(found, "big", [3]) == pytest.approx(left_gib, rel=0.02)


def test_beside_a_13b_vision_model_the_72b_keeps_nine_thousand_tokens() -> None:
    instances = {"qwen": instance(QWEN72, "awq-int4"), "llava": instance(LLAVA13, "bf16", kv_gib=3.0)}
    found = placed(H100, instances, {"qwen": [3], "llava": [3]})
    assert cache_gib(found, "qwen", [3]) == pytest.approx(2.7, abs=rounding_gib(H100))
    assert round(found.kv_tokens["qwen"] / 1000) in (8, 9)


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_bytes", "tokens", "sessions"),
    [
        (H100, "bf16", 2, 8192, 4),
        (H100, "bf16", 1, 8192, 8),
        (L40S, "fp8", 2, 8192, 4),
        (L40S, "fp8", 1, 8192, 9),
    ],
)
def test_sessions_of_the_70b_on_a_pair(gpu: str, weights: str, kv_bytes: int, tokens: int, sessions: int) -> None:
    found = placed(gpu, {"llama": instance(LLAMA, weights, kv_bytes)}, {"llama": [2, 3]})
    assert found.kv_tokens["llama"] // tokens == sessions


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_bytes"), [(H100, "fp8", 2), (H100, "awq-int4", 2), (L40S, "awq-int4", 1)]
)
def test_where_all_notes_and_all_chats_fit_at_once(gpu: str, weights: str, kv_bytes: int) -> None:
    found = placed(gpu, {"llama": instance(LLAMA, weights, kv_bytes)}, {"llama": [2, 3]})
    assert found.kv_tokens["llama"] >= 12 * 8192 + 30 * 4096


@pytest.mark.parametrize(
    ("gpu", "kv_bytes", "kilotokens"), [(H100, 2, 112), (L40S, 2, 9.3), (L40S, 1, 18.7)], ids=["H100", "L40S", "fp8 kv"]
)
def test_tokens_of_the_70b_in_int4_on_one_gpu(gpu: str, kv_bytes: int, kilotokens: float) -> None:
    found = placed(gpu, {"llama": instance(LLAMA, "awq-int4", kv_bytes)}, {"llama": [1]})
    assert found.kv_tokens["llama"] / 1000 == pytest.approx(kilotokens, rel=0.02)


@pytest.mark.parametrize("gpu", [H100, L40S])
def test_all_small_models_fit_on_the_third_of_three_gpus(gpu: str) -> None:
    small = {
        "whisper": instance("whisper-large-v3", "bf16", length=448),
        "bge": instance("bge-m3", "bf16", engine="triton"),
        "colbert": instance("colbertv2", "bf16"),
        "llava": instance(LLAVA, "bf16", kv_gib=1.5),
    }
    found = placed(gpu, small, {name: [3] for name in small})
    assert found.fits
    assert found.gpus[3].used / GIB < 28


@pytest.mark.parametrize(
    ("gpu", "instances", "gpus"),
    [
        (L40S, {"llama": instance(LLAMA, "bf16")}, [2, 3]),
        (L40S, {"qwen": instance(QWEN72, "awq-int4"), "llava": instance(LLAVA, "bf16", kv_gib=1.0)}, [3]),
        (L40S, {"qwen": instance(QWEN72, "awq-int4"), "llava": instance("llava-1.6-vicuna-7b", "bf16")}, [3]),
        (H100, {"qwen": instance(QWEN72, "awq-int4"), "llava": instance(LLAVA34, "bf16")}, [3]),
        (L40S, {"qwen": instance(QWEN72, "fp8")}, [3]),
        (H100, {"qwen": instance(QWEN72, "fp8", length=8192)}, [3]),
        (H100, {"qwen": instance(QWEN72, "fp8"), "llava": instance(LLAVA, "bf16", kv_gib=1.5)}, [3]),
    ],
    ids=[
        "70B bf16 on 2x48",
        "72B AWQ + LLaVA on 48",
        "72B AWQ + the smallest LLaVA on 48",
        "72B AWQ + LLaVA-34B on 80",
        "72B FP8 on 48",
        "72B FP8, one 8k request, on 80",
        "72B FP8 + LLaVA",
    ],
)
def test_what_the_plan_asks_and_cannot_be(gpu: str, instances: dict[str, Instance], gpus: list[int]) -> None:
    assert not placed(gpu, instances, dict.fromkeys(instances, gpus)).fits


def test_an_engine_with_a_fixed_cache_keeps_its_fraction_beside_any_neighbour() -> None:
    llava = instance(LLAVA, "bf16", kv_gib=1.0)
    alone = placed(L40S, {"llava": llava}, {"llava": [0]})
    crowded = placed(L40S, {"llava": llava, "qwen": instance(QWEN32, "awq-int4", 1)}, {"llava": [0], "qwen": [0]})
    assert alone.fractions["llava"] == crowded.fractions["llava"]


def test_a_tensor_parallel_engine_takes_the_smallest_share_it_finds() -> None:
    instances = {"llama": instance(LLAMA, "awq-int4", 1), "bge": instance("bge-m3", "bf16", engine="triton")}
    found = placed(L40S, instances, {"llama": [0, 1], "bge": [1]})
    assert found.fractions["llama"] == pytest.approx(0.92 - found.fractions["bge"])
    assert found.gpus[0].shares[0].kv == found.gpus[1].shares[-1].kv


@pytest.mark.parametrize(
    ("model", "gpus"), [(LLAMA, 3), (QWEN72, 3), (QWEN32, 3), (QWEN32, 16), ("whisper-large-v3", 3)]
)
def test_an_illegal_split_is_told_with_the_heads(model: str, gpus: int) -> None:
    problem = tensor_parallel_problem(instance(model, "bf16"), gpus)
    assert problem is not None
    assert str(CATALOG.models[model].architecture.heads) in problem


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_legal_splits_of_the_70b(gpus: int) -> None:
    assert tensor_parallel_problem(instance(LLAMA, "fp8"), gpus) is None


@pytest.mark.parametrize("name", sorted(CATALOG.gpus))
def test_what_fits_is_a_question_of_bytes_not_of_arithmetic_units(name: str) -> None:
    gpu = CATALOG.gpus[name]
    without_fp8 = replace(gpu, fp8_flops=None)
    eight = {"llama": instance("llama-3.1-8b-instruct", "fp8", length=8192)}
    assert fit(eight, {"llama": [0]}, gpu, 1, CATALOG).fits
    assert fit(eight, {"llama": [0]}, gpu, 1, CATALOG) == fit(eight, {"llama": [0]}, without_fp8, 1, CATALOG)


def test_triton_serves_from_one_gpu() -> None:
    assert tensor_parallel_problem(instance("bge-m3", "bf16", engine="triton"), 2)


# --- properties ------------------------------------------------------------------------------------------------------

DECODERS = sorted(name for name, model in CATALOG.models.items() if model.kind == "decoder")


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Instance], dict[str, list[int]]]:
    instances: dict[str, Instance] = {}
    placement: dict[str, list[int]] = {}
    for name in draw(st.lists(st.sampled_from(sorted(CATALOG.models)), min_size=1, max_size=6, unique=True)):
        decoder = name in DECODERS
        instances[name] = instance(
            name,
            draw(st.sampled_from(sorted(CATALOG.formats))) if decoder else "bf16",
            draw(st.sampled_from([1, 2])),
            draw(st.integers(64, 448)),
            draw(st.none() | st.floats(0.1, 30)) if decoder else None,
        )
        count = draw(st.sampled_from([1, 2, 4]))
        placement[name] = draw(st.permutations(range(4)))[:count]
    return instances, placement


def scaled(gpu: Gpu, factor: float) -> Gpu:
    return replace(gpu, memory_mib=math.ceil(gpu.memory_mib * factor))


@given(cases(), st.sampled_from([H100, L40S]), st.floats(1.0, 4.0))
def test_more_memory_never_fits_less(
    case: tuple[dict[str, Instance], dict[str, list[int]]], gpu: str, factor: float
) -> None:
    instances, placement = case
    small = fit(instances, placement, CATALOG.gpus[gpu], 4, CATALOG)
    large = fit(instances, placement, scaled(CATALOG.gpus[gpu], factor), 4, CATALOG)
    assert large.fits or not small.fits


@given(cases(), st.sampled_from([H100, L40S]))
def test_a_placement_that_fits_exceeds_no_gpu(case: tuple[dict[str, Instance], dict[str, list[int]]], gpu: str) -> None:
    instances, placement = case
    found = fit(instances, placement, CATALOG.gpus[gpu], 4, CATALOG)
    if found.fits:
        for index in range(4):
            here = [name for name, gpus in placement.items() if index in gpus]
            assert sum(found.fractions[name] for name in here) <= CATALOG.vllm.gpu_memory_utilization + 1e-9
            assert found.gpus[index].used <= CATALOG.gpus[gpu].memory_mib * MIB


@given(cases(), st.sampled_from([H100, L40S]))
def test_an_engine_never_gets_less_than_it_needs(
    case: tuple[dict[str, Instance], dict[str, list[int]]], gpu: str
) -> None:
    instances, placement = case
    found = fit(instances, placement, CATALOG.gpus[gpu], 4, CATALOG)
    for index in range(4):
        for share in found.gpus[index].shares:
            split = len(placement[share.name])
            assert share.weights * split >= instances[share.name].model.weight_bytes(instances[share.name].weights)
            assert share.kv * split >= instances[share.name].smallest_kv()
