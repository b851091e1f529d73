"""Compatibility: published tables, the plan as written, pins that end or do not fit, one matrix in two files."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog import load_catalog
from gpu_cutover.catalog.compat import load_compat
from gpu_cutover.errors import InputError
from gpu_cutover.planning import compat
from gpu_cutover.planning.compat import assess, minor_of, newest_cuda, over, release_of, runs_cuda, version_key
from gpu_cutover.planning.finding import Finding
from gpu_cutover.site import Site, load_site

ROOT = Path(__file__).parents[2]
MATRIX, CATALOG = load_compat(), load_catalog()
TODAY = date(2026, 11, 22)
DRIVERS = sorted({*MATRIX.cuda.values(), "580.105.08", "535.230.02"}, key=version_key)


def site(name: str = "example-l40s", **driver: Any) -> Site:
    """An example with another driver; the rules of `site check` would refuse some of them."""
    loaded = load_site(ROOT / "inventory" / name)
    changed = loaded.spec.driver.model_copy(update=driver)
    object.__setattr__(loaded, "spec", loaded.spec.model_copy(update={"driver": changed}))
    return loaded


def found(today: date = TODAY, engines: dict[str, str] | None = None, **driver: Any) -> dict[str, Finding]:
    result = assess(site(**driver), MATRIX, today, engines)
    return {finding.id: finding for finding in compat.findings(result, MATRIX)}


# --- published tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "newest"),
    [
        ("550.54.14", "12.4.0"),
        ("570.124.06", "12.8.1"),
        ("580.65.06", "13.0.0"),
        ("580.105.08-1", "13.0.2"),
        ("595.58.03", "13.2.1"),
        ("535.230.02", None),
    ],
)
def test_the_newest_cuda_of_a_driver(driver: str, newest: str | None) -> None:
    assert newest_cuda(driver, MATRIX) == newest


@pytest.mark.parametrize(
    ("cuda", "driver", "verdict"),
    [
        ("13.0", "580.105.08", "ok"),
        ("12.4", "580.105.08", "ok"),
        ("13.1", "580.105.08", "limited"),
        ("13.0", "570.195.03", "unsupported"),
        ("12.8", "535.230.02", "limited"),
        ("14.0", "610.43.02", "unknown"),
    ],
)
def test_which_cuda_runs_on_which_driver(cuda: str, driver: str, verdict: str) -> None:
    assert runs_cuda(cuda, driver, MATRIX)[0] == verdict


@pytest.mark.parametrize(
    ("engine", "version", "driver", "verdict"),
    [
        ("vllm", "0.8.5", "580.105.08-1", "ok"),
        ("vllm", "0.19.1", "570.195.03-1", "ok"),
        ("vllm", "0.20.2", "570.195.03-1", "unsupported"),
        ("vllm", "0.23.0", "580.105.08-1", "ok"),  # between 0.20.2 and 0.25.1, both CUDA 13.0
        ("vllm", "0.33.0", "580.105.08-1", "ok"),
        ("triton", "25.10", "580.105.08-1", "ok"),
        ("triton", "26.02", "580.105.08-1", "limited"),
        ("triton", "26.02", "595.58.03-1", "ok"),
        ("faster-whisper", "1.1.0", "580.105.08-1", "ok"),
        ("vllm", "0.9.9", "580.105.08-1", "unknown"),  # between CUDA 12.6 and 12.8: nobody knows which
        ("vllm", "0.40.0", "580.105.08-1", "unknown"),
        ("vllm", "nightly", "580.105.08-1", "unknown"),
    ],
)
def test_engines(engine: str, version: str, driver: str, verdict: str) -> None:
    changed = site(version=driver, branch=driver[:3])
    assert assess(changed, MATRIX, TODAY, {engine: version}).part(engine).verdict == verdict


def test_an_engine_that_wants_a_newer_python_than_the_system_has() -> None:
    part = assess(site(), MATRIX, TODAY, {"vllm": "0.33.0"}, "ubuntu-22.04").part("vllm")
    assert part.verdict == "unsupported"
    assert part.why == "needs Python 3.11, the system has 3.10"


def test_an_unknown_version_names_the_nearest_and_how_to_add_it() -> None:
    part = assess(site(), MATRIX, TODAY, {"vllm": "0.33.1"}).part("vllm")
    assert part.verdict == "unknown"
    assert "did you mean 0.33.0?" in part.why
    assert "catalog/compat.yml" in part.why


def test_an_unknown_engine_and_an_unknown_system_are_wrong_input() -> None:
    with pytest.raises(InputError, match="did you mean vllm") as engine:
        assess(site(), MATRIX, TODAY, {"vlm": "0.20.2"})
    assert "catalog/compat.yml" in str(engine.value)
    with pytest.raises(InputError, match=r"did you mean ubuntu-2.\.04"):
        assess(site(), MATRIX, TODAY, system="ubuntu-26.04")


# --- the plan as written ---------------------------------------------------------------------------------------------


def test_cuda_12_4_on_ubuntu_24_04_is_not_packaged() -> None:
    finding = found()["cuda-not-packaged"]
    assert finding.severity == "blocker"
    assert "CUDA 12.4 on ubuntu-24.04" in finding.text
    assert "begins at 12.5" in finding.text
    assert "the last vLLM on CUDA 12.4 is 0.8.5" in finding.text


def test_lts_branch_only_leaves_one_branch_until_mid_2028() -> None:
    assert compat.living("LTSB", MATRIX, TODAY) == {"580": "2028-06"}
    text = found()["lts-branch-only"].text
    assert "R580 (until 2028-06)" in text
    assert "R535 ended 2026-06" in text
    assert "550.54.14, a branch that has ended" in text


def test_the_plans_remedy_for_the_driver_is_none() -> None:
    assert "580.95.05-1" in found()["tensorrt-llm-no-remedy"].fix
    assert "none is pinned" in found(previous=None)["tensorrt-llm-no-remedy"].fix


def test_what_the_host_does_not_need() -> None:
    findings = found()
    assert "NV_WARN_NOTHING_TO_DO" in findings["fabric-manager"].text
    assert "cuDNN 9.19" in findings["cudnn-on-the-host"].text
    assert findings["triton-newer-than-the-driver"].fix.startswith("pin Triton 25.12")


def test_a_site_as_declared_blocks_on_nothing_of_its_own() -> None:
    for name in ("example-l40s", "example-h100", "twin"):
        parts = assess(site(name), MATRIX, TODAY).parts
        assert [part.part for part in parts if part.verdict != "ok"] == []
    findings = compat.findings(assess(site(), MATRIX, TODAY), MATRIX)
    assert [finding.id for finding in findings if finding.severity == "blocker"] == ["cuda-not-packaged"]


# --- the site's pins -------------------------------------------------------------------------------------------------


def test_a_branch_is_maintained_through_its_last_month() -> None:
    assert not over("2028-06", date(2028, 6, 30))
    assert over("2028-06", date(2028, 7, 1))


@pytest.mark.parametrize("branch", ["535", "550", "560", "565", "570", "575", "610"])
def test_an_ended_branch_is_a_blocker(branch: str) -> None:
    findings = found(branch=branch, version=f"{branch}.200.01-1", previous=None)
    assert findings["driver-end-of-life"].severity == "blocker"
    assert f"the site pins R{branch}" in findings["not-an-lts-branch"].text


def test_the_pin_itself_ends_one_day() -> None:
    assert "driver-end-of-life" not in found(date(2028, 6, 30))
    assert "driver-end-of-life" in found(date(2028, 7, 1))


def test_a_branch_nobody_lists_is_unknown_and_not_ok() -> None:
    assert found(branch="590", version="590.48.01-1")["driver-unknown"].severity == "minor"
    assert found(branch="601", version="601.10.01-1")["driver-unknown"].severity == "minor"


def test_too_old_a_driver_for_the_bundles_engine() -> None:
    findings = found(branch="570", version="570.195.03-1", cuda="12.8")
    assert findings["vllm-unsupported"].severity == "blocker"


def test_no_driver_to_go_back_to() -> None:
    assert found(previous=None)["no-driver-to-go-back-to"].severity == "major"
    assert "R570 (PB) ended in 2026-02" in found(previous="570.195.03-1")["no-driver-to-go-back-to"].text


def test_support_that_ends_before_the_server_does() -> None:
    assert "19 months from now" in found()["driver-ends-before-the-hardware"].text
    result = assess(site(), MATRIX, TODAY)
    assert not [item for item in compat.findings(result, MATRIX, 12) if item.id.endswith("before-the-hardware")]


def test_json_is_plain() -> None:
    plain = compat.as_json(assess(site(), MATRIX, TODAY))
    assert json.loads(json.dumps(plain)) == plain
    assert {part["verdict"] for part in plain["parts"]} == {"ok"}


# --- one matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CATALOG.drivers))
def test_what_an_offered_branch_says_follows_from_the_matrix(name: str) -> None:
    """drivers.yml and compat.yml may not contradict each other."""
    known = CATALOG.drivers[name]
    assert minor_of(newest_cuda(f"{name}.999", MATRIX) or "0") == minor_of(known.native_cuda)
    assert known.minimum_version == MATRIX.cuda[f"{known.native_cuda}.0"]
    assert MATRIX.minor_version[known.max_cuda_major] <= int(name)
    for engine, span in (("vllm", known.vllm), ("triton", known.triton)):
        low, high = (version_key(bound) for bound in re.findall(r"[\d.]+", span))
        inside = [version for version in MATRIX.engines[engine] if low <= version_key(version) < high]
        assert inside
        assert {MATRIX.engines[engine][version].cuda for version in inside} == {known.native_cuda}


def test_no_branch_is_written_down_twice() -> None:
    own = set(re.findall(r'^  "(\d{3})": \{kind', (ROOT / "src/gpu_cutover/catalog/compat.yml").read_text(), re.M))
    assert own
    assert not own & set(CATALOG.drivers)


def test_the_pins_are_what_the_bundle_carries() -> None:
    requirements = ROOT / "requirements"
    assert f"vllm=={MATRIX.pins['vllm']}\n" in (requirements / "vllm.in").read_text()
    assert "nvidia-pytriton==0.7.0" in (requirements / "triton.in").read_text()  # its server is 2.51, release 24.10
    assert MATRIX.pins["triton"] == "24.10"
    lock = (requirements / "vllm.lock").read_text()
    pinned = release_of("vllm", MATRIX.pins["vllm"], MATRIX)
    assert pinned is not None
    assert f"nvidia-cudnn-cu13=={pinned.cudnn}." in lock
    assert f"cuda-toolkit=={pinned.cuda}." in lock


@given(st.sampled_from(DRIVERS), st.sampled_from(DRIVERS), st.sampled_from(sorted({*MATRIX.cuda, "13.4", "12.0"})))
def test_a_newer_driver_never_runs_less(one: str, other: str, cuda: str) -> None:
    older, newer = sorted((one, other), key=version_key)
    worth = {"unsupported": 0, "limited": 1, "ok": 2}
    assert worth[runs_cuda(cuda, newer, MATRIX)[0]] >= worth[runs_cuda(cuda, older, MATRIX)[0]]


@given(st.dates(date(2026, 1, 1), date(2032, 1, 1)), st.dates(date(2026, 1, 1), date(2032, 1, 1)))
def test_what_has_ended_stays_ended(one: date, other: date) -> None:
    earlier, later = sorted((one, other))
    assert over("2028-06", later) >= over("2028-06", earlier)
