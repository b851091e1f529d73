"""Formats against the tier's GPU and the engine: told before anything is bought."""

from __future__ import annotations

from dataclasses import replace

import pytest
from site_lab import ROOT

from gpu_cutover.catalog import Catalog, load_catalog
from gpu_cutover.site import load_site
from gpu_cutover.site.model import Spec
from gpu_cutover.site.rules import first_problem


def on_a100(spec: Spec) -> Catalog:
    catalog = load_catalog()
    return replace(catalog, tiers={spec.tier: replace(catalog.tiers[spec.tier], gpu="a100-sxm-80")})


def changed(name: str, model: str, **values: str) -> Spec:
    spec = load_site(ROOT / "inventory" / name).spec
    models = {**spec.models, model: spec.models[model].model_copy(update=values)}
    return spec.model_copy(update={"models": models})


def without_fp8_caches(spec: Spec) -> Spec:
    models = {name: model.model_copy(update={"kv_cache_dtype": "auto"}) for name, model in spec.models.items()}
    return spec.model_copy(update={"models": models})


def test_an_fp8_cache_is_refused_where_the_gpu_has_no_fp8() -> None:
    spec = load_site(ROOT / "inventory" / "example-l40s").spec
    found = first_problem(spec, on_a100(spec))
    assert found is not None
    assert found.key == "models.llama-3.1-70b-instruct.kv_cache_dtype"
    assert "8.9" in found.problem and "NVIDIA A100-SXM4-80GB (compute capability 8.0)" in found.problem
    assert found.fix == "use auto"


def test_fp8_weights_are_allowed_there_as_weight_only() -> None:
    spec = without_fp8_caches(load_site(ROOT / "inventory" / "example-h100").spec)
    assert first_problem(spec, on_a100(spec)) is None


def test_a_format_without_a_kernel_for_the_gpu_names_those_that_run() -> None:
    spec = without_fp8_caches(load_site(ROOT / "inventory" / "example-h100").spec)
    catalog = on_a100(spec)
    newer = replace(catalog.formats["fp8"], min_capability=9.0)
    found = first_problem(spec, replace(catalog, formats={**catalog.formats, "fp8": newer}))
    assert found is not None
    assert found.key == "models.llama-3.1-70b-instruct.format"
    assert found.fix.startswith("use ") and "awq-int4" in found.fix and "fp8" not in found.fix


def test_triton_loads_no_quantised_files() -> None:
    catalog = load_catalog()
    spec = load_site(ROOT / "inventory" / "example-l40s").spec
    only_vllm = replace(catalog.formats["bf16"], engines=("vllm",))
    found = first_problem(spec, replace(catalog, formats={**catalog.formats, "bf16": only_vllm}))
    assert found is not None
    assert (found.key, found.fix) == ("models.bge-m3.engine", "use vllm")


@pytest.mark.parametrize(("name", "near"), [("awq-int3", "awq-int4"), ("zzz", "known are awq-int4, bf16, fp8")])
def test_an_unknown_format_is_told_with_the_nearest_and_how_to_add_one(name: str, near: str) -> None:
    found = first_problem(changed("example-l40s", "llama-3.1-70b-instruct", format=name), load_catalog())
    assert found is not None
    assert near in found.fix and "catalog/formats.yml (docs/catalog.md)" in found.fix
