"""The catalog: every figure says where it comes from, and sizes computed from architecture equal the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import gpu_cutover.catalog as catalog_room
from gpu_cutover.catalog import KINDS, load_catalog

DIRECTORY = Path(catalog_room.__file__).parent
SOURCED = ["gpus.yml", "formats.yml", "engines.yml", "drivers.yml", "tiers.yml", "providers.yml"]
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
        ("whisper-large-v3", 1_543_490_560),
    ],
)
def test_parameters_equal_the_published_count(model: str, published: int) -> None:
    assert load_catalog().models[model].parameters() == published


@pytest.mark.parametrize(
    ("model", "billions"),
    [("llava-1.6-mistral-7b", 7.57), ("llava-1.6-vicuna-13b", 13.35), ("bge-m3", 0.568), ("colbertv2", 0.110)],
)
def test_parameters_of_composed_models(model: str, billions: float) -> None:
    assert load_catalog().models[model].parameters() / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(
    ("model", "bf16", "fp8", "int4"),
    [
        ("llama-3.1-70b-instruct", 141.1, 72.7, 39.8),
        ("qwen2.5-72b-instruct", 145.4, 75.2, 41.6),
        ("qwen2.5-32b-instruct", 65.5, 34.3, 19.3),
    ],
)
def test_weights_equal_the_published_sizes(model: str, bf16: float, fp8: float, int4: float) -> None:
    catalog = load_catalog()
    sizes = [catalog.models[model].weight_bytes(catalog.formats[name]) / GB for name in ("bf16", "fp8", "awq-int4")]
    assert sizes == pytest.approx([bf16, fp8, int4], rel=0.002)


@pytest.mark.parametrize(
    ("model", "kib"),
    [
        ("llama-3.1-70b-instruct", 320),
        ("qwen2.5-72b-instruct", 320),
        ("qwen2.5-32b-instruct", 256),
        ("llava-1.6-mistral-7b", 128),
        ("llava-1.6-vicuna-13b", 800),
        ("bge-m3", 0),
    ],
)
def test_bytes_per_token_of_context(model: str, kib: int) -> None:
    known = load_catalog().models[model]
    assert known.kv_bytes_per_token() == kib * 1024
    assert known.kv_bytes_per_token(1) == kib * 512


def test_whisper_keeps_246_mb_per_window() -> None:
    assert 2 * load_catalog().models["whisper-large-v3"].architecture.cross_kv_elements() == 245_760_000


def test_names_that_refer_to_each_other_exist() -> None:
    catalog = load_catalog()
    assert {tier.gpu for tier in catalog.tiers.values()} <= set(catalog.gpus)
    assert {model.kind for model in catalog.models.values()} <= set(KINDS)
    assert {kind for route in catalog.routes.values() for kind in route.kinds} <= set(KINDS)


def test_a_floor_of_bus_bandwidth_exists_for_the_pair_and_for_all_gpus() -> None:
    catalog = load_catalog()
    for tier in catalog.tiers.values():
        assert {2, tier.gpu_count} <= set(catalog.gpus[tier.gpu].busbw_floor_gb_s)


def test_the_plans_two_supplies_do_not_survive_the_loss_of_one_and_four_do() -> None:
    catalog = load_catalog()
    for tier in catalog.tiers.values():
        gpu = catalog.gpus[tier.gpu]
        dc = tier.gpu_count * gpu.power_max_w + tier.cpu_count * tier.cpu_tdp_w + tier.rest_w
        assert (tier.plan_psu_count - 1) * tier.psu_watts < dc
        assert tier.psu_count / 2 * tier.psu_watts >= dc


def test_the_catalog_is_read_once() -> None:
    assert load_catalog() is load_catalog()
