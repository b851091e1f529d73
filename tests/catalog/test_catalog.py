"""The catalog: every figure says where it comes from, and sizes computed from architecture equal the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import gpu_cutover.catalog as catalog_room
from gpu_cutover.catalog import KINDS, load_catalog

DIRECTORY = Path(catalog_room.__file__).parent
SOURCED = ["gpus.yml", "formats.yml", "kv_formats.yml", "engines.yml", "drivers.yml", "tiers.yml", "providers.yml"]
ENTRIES = ["models.yml", "targets.yml", "routes.yml"]
GB = 1e9


def leaves(entry: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(entry, dict) and "value" not in entry:
        return [leaf for key, item in entry.items() for leaf in leaves(item, f"{path}.{key}")]
    return [(path, entry)]


@pytest.mark.parametrize("name", SOURCED)
def test_every_value_has_a_source(name: str) -> None:
    found = leaves(yaml.safe_load((DIRECTORY / name).read_text()), name)
    assert found
    assert [path for path, leaf in found if not isinstance(leaf, dict) or len(str(leaf.get("source") or "")) < 5] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_a_source(name: str) -> None:
    entries = yaml.safe_load((DIRECTORY / name).read_text())
    assert [key for key, entry in entries.items() if len(str(entry.get("source") or "")) < 5] == []


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("llama-3.1-70b-instruct", 70_553_706_496),
        ("llama-3.1-8b-instruct", 8_030_261_248),
        ("qwen2.5-72b-instruct", 72_706_203_648),
        ("qwen2.5-32b-instruct", 32_763_876_352),
        ("qwen2.5-14b-instruct", 14_770_033_664),
        ("qwen2.5-7b-instruct", 7_615_616_512),
        ("qwen2.5-vl-7b-instruct", 8_292_166_656),
        ("llava-1.6-mistral-7b", 7_566_747_648),
        ("whisper-large-v3", 1_543_490_560),
        ("whisper-large-v3-turbo", 808_878_080),
        ("bge-m3", 567_754_752),
        ("bge-reranker-v2-m3", 567_755_777),
    ],
)
def test_parameters_equal_the_published_count(model: str, published: int) -> None:
    assert load_catalog().models[model].parameters() == published


def rounded(value: float, shown: str) -> bool:
    """Whether a table that shows so many digits would show `value` so."""
    return f"{value:.{len(shown.partition('.')[2])}f}" == shown


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("llava-1.6-mistral-7b", "7.57"),
        ("llava-1.6-vicuna-7b", "7.06"),
        ("llava-1.6-vicuna-13b", "13.35"),
        ("llava-1.6-34b", "34.75"),
        ("bge-m3", "0.568"),
        ("colbertv2", "0.110"),
    ],
)
def test_parameters_of_composed_models(model: str, billions: str) -> None:
    assert rounded(load_catalog().models[model].parameters() / 1e9, billions)


@pytest.mark.parametrize(
    ("model", "weights", "gb", "gib"),
    [
        ("llama-3.1-70b-instruct", "bf16", "141.1", "131.4"),
        ("llama-3.1-70b-instruct", "fp8", "72.7", "67.7"),
        ("llama-3.1-70b-instruct", "awq-int4", "39.8", "37.0"),
        ("qwen2.5-72b-instruct", "bf16", "145.4", "135.4"),
        ("qwen2.5-72b-instruct", "fp8", "75.2", "70.0"),
        ("qwen2.5-72b-instruct", "awq-int4", "41.6", "38.7"),
        ("llava-1.6-mistral-7b", "bf16", "15.1", "14.1"),
        ("llava-1.6-vicuna-7b", "bf16", "14.1", "13.2"),
        ("llava-1.6-vicuna-13b", "bf16", "26.7", "24.9"),
        ("llava-1.6-34b", "bf16", "69.5", "64.7"),
        ("qwen2.5-32b-instruct", "bf16", "65.5", "61.0"),
        ("qwen2.5-32b-instruct", "fp8", "34.3", "32.0"),
        ("qwen2.5-32b-instruct", "awq-int4", "19.3", "18.0"),
        ("whisper-large-v3", "bf16", "3.09", "2.87"),
        ("bge-m3", "bf16", "1.14", "1.06"),
        ("colbertv2", "bf16", "0.22", "0.20"),
    ],
)
def test_weights_equal_the_published_sizes(model: str, weights: str, gb: str, gib: str) -> None:
    catalog = load_catalog()
    size = catalog.models[model].weight_bytes(catalog.formats[weights])
    assert rounded(size / GB, gb)
    assert rounded(size / 2**30, gib)


@pytest.mark.parametrize(
    ("model", "kib"),
    [
        ("llama-3.1-70b-instruct", 320),
        ("qwen2.5-72b-instruct", 320),
        ("qwen2.5-32b-instruct", 256),
        ("llava-1.6-mistral-7b", 128),
        ("llava-1.6-vicuna-7b", 512),
        ("llava-1.6-vicuna-13b", 800),
        ("llava-1.6-34b", 240),
        ("bge-m3", 0),
    ],
)
def test_bytes_per_token_of_context(model: str, kib: int) -> None:
    catalog = load_catalog()
    known = catalog.models[model]
    assert known.kv_bytes_per_token() == kib * 1024
    assert known.kv_bytes_per_token(catalog.kv_formats["fp8"].bytes_per_number()) == kib * 512


@pytest.mark.parametrize(("sessions", "tokens", "bf16", "fp8"), [(12, 8192, 30.0, 15.0), (30, 4096, 37.5, 18.75)])
def test_what_the_plans_sessions_take_of_the_70bs_cache(sessions: int, tokens: int, bf16: float, fp8: float) -> None:
    llama = load_catalog().models["llama-3.1-70b-instruct"]
    assert sessions * tokens * llama.kv_bytes_per_token() / 2**30 == bf16
    assert sessions * tokens * llama.kv_bytes_per_token(1) / 2**30 == fp8


@pytest.mark.parametrize("model", sorted(load_catalog().models))
def test_smaller_formats_are_smaller(model: str) -> None:
    catalog = load_catalog()
    sizes = [catalog.models[model].weight_bytes(catalog.formats[name]) for name in ("bf16", "gptq-int8", "fp8")]
    assert sizes == sorted(sizes, reverse=True)
    assert catalog.models[model].weight_bytes(catalog.formats["gptq-int4"]) == catalog.models[model].weight_bytes(
        catalog.formats["awq-int4"]
    )


def test_whisper_keeps_246_mb_per_window() -> None:
    assert 2 * load_catalog().models["whisper-large-v3"].architecture.cross_kv_elements() == 245_760_000


def test_names_that_refer_to_each_other_exist() -> None:
    catalog = load_catalog()
    assert {tier.gpu for tier in catalog.tiers.values()} <= set(catalog.gpus)
    assert {model.kind for model in catalog.models.values()} <= set(KINDS)
    assert {kind for route in catalog.routes.values() for kind in route.kinds} <= set(KINDS)


def test_a_floor_of_bus_bandwidth_exists_for_the_pair_and_for_all_gpus_of_a_tier_on_sale() -> None:
    catalog = load_catalog()
    for tier in catalog.tiers.values():
        assert {2, tier.gpu_count} <= set(catalog.gpus[tier.gpu].busbw_floor_gb_s)


@pytest.mark.parametrize("name", sorted(load_catalog().gpus))
def test_a_gpus_figures_agree_with_each_other(name: str) -> None:
    gpu = load_catalog().gpus[name]
    assert gpu.nvlink == (gpu.nvlink_gpus > 0)
    assert (gpu.all_reduce_s == 0) == gpu.nvlink == (gpu.prefill_comms_share == 0)
    assert gpu.free_mib is None or gpu.free_mib < gpu.memory_mib
    assert gpu.power_min_w is None or gpu.power_min_w < gpu.power_max_w
    assert (gpu.fp8_flops is not None) == (gpu.compute_capability >= 8.9)
    assert gpu.fp8_flops is None or gpu.fp8_flops == pytest.approx(2 * gpu.bf16_flops, rel=0.02)
    assert len({gpu.tlimit_slowdown is None, gpu.tlimit_shutdown is None, gpu.max_operating_celsius is None}) == 1


def test_an_unknown_figure_says_so_in_its_source() -> None:
    entries = yaml.safe_load((DIRECTORY / "gpus.yml").read_text())
    unknown = [
        (name, key, leaf["source"])
        for name, entry in entries.items()
        for key, leaf in entry.items()
        if leaf.get("value", 0) is None and key != "fp8_flops"
    ]
    assert unknown
    assert [where for *where, source in unknown if not source.startswith(("no capture", "only captured"))] == []


def test_fp8_weights_are_multiplied_in_16_bit_where_the_gpu_has_no_fp8() -> None:
    catalog = load_catalog()
    fp8, int8 = catalog.formats["fp8"], catalog.formats["gptq-int8"]
    h100, a100 = catalog.gpus["h100-sxm-80"], catalog.gpus["a100-sxm-80"]
    assert fp8.flops(h100) == h100.fp8_flops
    assert fp8.flops(a100) == a100.bf16_flops
    assert int8.flops(h100) == h100.bf16_flops
    assert fp8.runs_on(a100)
    assert not catalog.kv_formats["fp8"].runs_on(a100)
    assert catalog.kv_formats["fp8"].runs_on(catalog.gpus["l40s"])


def test_every_format_has_an_engine_that_loads_it_and_a_gpu_that_runs_it() -> None:
    catalog = load_catalog()
    for weights in catalog.formats.values():
        assert weights.engines and set(weights.engines) <= {"vllm", "triton"}
        assert all(weights.runs_on(catalog.gpus[tier.gpu]) for tier in catalog.tiers.values())


def test_gpus_of_a_tier_hang_on_two_sockets() -> None:
    for tier in load_catalog().tiers.values():
        assert tier.sockets * tier.gpus_per_socket >= tier.gpu_count
        assert [tier.socket_of(gpu) for gpu in range(4)] == [0, 0, 1, 1]
        assert tier.same_socket([0, 1]) and tier.same_socket((2, 3)) and tier.same_socket([3])
        assert not tier.same_socket([1, 2])  # the plan's pair for the 70B


@pytest.mark.parametrize(("count", "per_socket"), [(1, 1), (2, 1), (3, 2), (6, 3), (8, 4)])
def test_a_tier_may_have_other_numbers_of_gpus(count: int, per_socket: int) -> None:
    tier = load_catalog().tiers["l40s-4"].with_gpus(count)
    assert (tier.gpu_count, tier.gpus_per_socket) == (count, per_socket)
    assert {tier.socket_of(gpu) for gpu in range(count)} <= {0, 1}


def test_nvlink_joins_a_mesh_or_the_two_boards_of_a_bridge() -> None:
    gpus = load_catalog().gpus
    assert gpus["h100-sxm-80"].joined([1, 2]) and gpus["h100-sxm-80"].joined(range(4))
    assert gpus["h100-nvl"].joined([2, 3]) and not gpus["h100-nvl"].joined([1, 2])
    assert not gpus["l40s"].joined([0, 1])


def test_the_plans_two_supplies_do_not_survive_the_loss_of_one_and_four_do() -> None:
    catalog = load_catalog()
    for tier in catalog.tiers.values():
        gpu = catalog.gpus[tier.gpu]
        dc = tier.gpu_count * gpu.power_max_w + tier.cpu_count * tier.cpu_tdp_w + tier.rest_w
        assert (tier.plan_psu_count - 1) * tier.psu_watts < dc
        assert tier.psu_count / 2 * tier.psu_watts >= dc


def test_the_catalog_is_read_once() -> None:
    assert load_catalog() is load_catalog()
