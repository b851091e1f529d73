"""A new GPU, model, format or tier is an entry in a data file; a wrong one, or an unknown name, is told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_cutover.catalog import DIRECTORY, Kind, load_catalog, lookup, read_catalog
from gpu_cutover.errors import InputError
from gpu_cutover.planning.fit import Instance, fit
from gpu_cutover.planning.latency import decode_floor

DOC = Path(__file__).parents[2] / "docs" / "catalog.md"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the catalog's data files."""
    for file in DIRECTORY.glob("*.yml"):
        shutil.copyfile(file, tmp_path / file.name)
    return tmp_path


def example(name: str) -> str:
    """The worked example of the documentation that begins with this name."""
    found = re.search(rf"```yaml\n({re.escape(name)}:\n.*?)```", DOC.read_text(), re.DOTALL)
    assert found
    return found.group(1)


def append(directory: Path, file: str, text: str) -> None:
    with (directory / file).open("a") as stream:
        stream.write(text)


def copied(file: str, old: str, new: str) -> str:
    """An entry of a data file under another name."""
    found = re.search(rf"^{re.escape(old)}:\n((?:  .*\n)+)", (DIRECTORY / file).read_text(), re.MULTILINE)
    assert found
    return f"{new}:\n{found.group(1)}"


def tiny(old: str, new: str, of: str = "llama-3.1-8b-instruct") -> str:
    """A model of the catalog as `tiny`, with one thing changed."""
    return copied("models.yml", of, "tiny").replace(old, new)


def test_the_documented_model_loads_fits_and_has_a_speed(directory: Path) -> None:
    append(directory, "models.yml", example("mistral-7b-instruct-v0.3"))
    append(directory, "formats.yml", example("awq-int4-g64"))
    catalog = read_catalog(directory)
    model = lookup("model", "mistral-7b-instruct-v0.3", catalog)
    assert f"{model.parameters():,} parameters" in DOC.read_text()
    assert f"{model.weight_bytes(catalog.formats['bf16']) / 1e9:.1f} GB in bf16" in DOC.read_text()
    assert f"{model.kv_bytes_per_token() // 1024} KiB of\nKV cache per token" in DOC.read_text()
    finer = lookup("format", "awq-int4-g64", catalog)
    gpu = lookup("gpu", "l4", catalog)
    placed = {"new": [0]}
    roomy = fit({"new": Instance(model, finer, "vllm", 2, 8192)}, placed, gpu, 1, catalog)
    assert roomy.fits and roomy.kv_tokens["new"] > 8192
    coarser = fit({"new": Instance(model, catalog.formats["awq-int4"], "vllm", 2, 8192)}, placed, gpu, 1, catalog)
    assert coarser.kv_tokens["new"] > roomy.kv_tokens["new"]
    assert decode_floor(model, finer, gpu, 1) > decode_floor(model, catalog.formats["awq-int4"], gpu, 1)


def test_a_new_gpu_and_a_server_of_it_are_two_entries(directory: Path) -> None:
    append(directory, "gpus.yml", copied("gpus.yml", "l40s", "l40x").replace("value: 46068", "value: 92136"))
    append(directory, "tiers.yml", copied("tiers.yml", "l40s-4", "l40x-4").replace("value: l40s,", "value: l40x,"))
    catalog = read_catalog(directory)
    tier = lookup("tier", "l40x-4", catalog)
    assert lookup("gpu", tier.gpu, catalog).memory_mib == 2 * catalog.gpus["l40s"].memory_mib
    llama = Instance(catalog.models["llama-3.1-70b-instruct"], catalog.formats["fp8"], "vllm", 2, 8192)
    one = {"llama": [0]}
    assert fit({"llama": llama}, one, catalog.gpus["l40x"], tier.gpu_count, catalog).fits
    assert not fit({"llama": llama}, one, catalog.gpus["l40s"], tier.gpu_count, catalog).fits


WRONG = [
    ("models.yml", "tiny:\n  kind: decoder\n", "tiny.(whole entry)", "is not a table"),
    ("models.yml", "tiny:\n  architecture: {layers: 3}\n", "tiny.hidden", "is missing"),
    ("models.yml", tiny(" heads: 32", " heads: 0"), "tiny.heads", "0 is not above 0"),
    ("models.yml", "? [a]\n: {}\n", "(whole file)", "a key that is no word"),
    ("models.yml", "tiny: 7\n", "tiny.(whole entry)", "is not a table"),
    ("models.yml", tiny("layers: 32", "layers: many"), "tiny.layers", "'many' is not of type int"),
    ("models.yml", tiny("layers: 32", "leyers: 32"), "tiny.leyers", "is not known here; known are layers"),
    ("models.yml", tiny("kind: decoder", "kind: coder"), "tiny.kind", "none of decoder, speech, encoder"),
    (
        "models.yml",
        tiny("family: clip", "family: klip", "llava-1.6-mistral-7b"),
        "tiny.vision.family",
        "none of clip, qwen2.5-vl",
    ),
    ("models.yml", copied("models.yml", "bge-m3", "bge-m3"), "bge-m3", "stands here twice"),
    ("gpus.yml", copied("gpus.yml", "l4", "l5").replace('source: "data', 'sauce: "data'), "l5.nvlink.value", "source"),
    ("tiers.yml", copied("tiers.yml", "l40s-4", "x").replace("value: l40s,", "value: l40,"), "x.gpu", "not a gpu"),
    ("gpus.yml", "l5:\n  name: NVIDIA L5\n", "l5.name", "has no source"),
    ("formats.yml", "int3:\n  bits: {value: 3, source: none}\n", "int3.group", "is missing"),
    ("formats.yml", "int3: [\n", "(whole file)", "while parsing"),
    ("tiers.yml", copied("tiers.yml", "l40s-4", "x").replace("value: 768,", "value: lots,"), "x.memory_gib", "'lots'"),
]


@pytest.mark.parametrize(("file", "text", "key", "words"), WRONG, ids=[f"{w[2]} {w[3]}" for w in WRONG])
def test_a_wrong_entry_is_told_with_file_and_key(directory: Path, file: str, text: str, key: str, words: str) -> None:
    append(directory, file, text)
    with pytest.raises(InputError) as caught:
        read_catalog(directory)
    assert caught.value.file == f"catalog/{file}"
    assert caught.value.key == key
    assert words in caught.value.problem
    assert caught.value.fix


JUNK = st.sampled_from(
    ["", "null", "[]", "{}", "-1", "0", "1.5", "yes", "x", "'", "[a", "{value: 1}", "2026-13-45", "!!x y"]
)


@given(st.sampled_from(["gpus.yml", "models.yml", "formats.yml", "tiers.yml"]), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_told_and_nothing_else(directory: Path, file: str, data: st.DataObject) -> None:
    lines = (DIRECTORY / file).read_text().splitlines()
    index = data.draw(st.sampled_from([n for n, line in enumerate(lines) if ":" in line and not line.startswith("#")]))
    lines[index] = lines[index].partition(":")[0] + ": " + data.draw(JUNK)
    (directory / file).write_text("\n".join(lines) + "\n")
    try:
        catalog = read_catalog(directory)
    except InputError as told:
        assert told.file == f"catalog/{file}" and told.key and told.fix
    else:
        assert all(model.parameters() > 0 for model in catalog.models.values())
        assert all(tier.gpu in catalog.gpus and tier.same_socket([0]) for tier in catalog.tiers.values())
    finally:
        shutil.copyfile(DIRECTORY / file, directory / file)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("gpu", "h100", "did you mean h100"),
        ("gpu", "b300", "known are a100-sxm-80"),
        ("model", "llama-3.1-70b", "did you mean llama-3.1-70b-instruct"),
        ("model", "gpt", "known are bge-m3"),
        ("format", "awq", "did you mean awq-int4"),
        ("tier", "l40-4", "did you mean l40s-4"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_how_to_add_one(kind: Kind, name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        lookup(kind, name, load_catalog())
    assert caught.value.file == f"catalog/{kind}s.yml"
    assert words in caught.value.fix
    assert f"write an entry in catalog/{kind}s.yml (docs/catalog.md)" in caught.value.fix
