"""`gpu-cutover site check`: one screen, or one message and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_lab import TWIN, Change

from gpu_cutover.cli import main
from gpu_cutover.site.command import lines, summarise
from gpu_cutover.site.load import load_site


def test_a_valid_site_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "check", "-i", str(TWIN)]) == 0
    text = capsys.readouterr().out
    for words in (
        "l40s-4",
        "klinik-amanah",
        "sensitive",
        "without-gpu3",
        "llama-3.1-70b-instruct",
        "soap_p95_s",
        "holds",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 150


def test_supplies_are_judged_by_the_sites_own_share() -> None:
    summary = summarise(load_site(TWIN))
    summary["power"]["psu_load_max"] = summary["power"]["dc_w"] / summary["power"]["usable_redundant_w"]
    assert "redundancy holds" in "\n".join(lines(summary))
    summary["power"]["psu_load_max"] -= 0.01
    assert "redundancy DOES NOT HOLD" in "\n".join(lines(summary))


def test_memory_bars_are_as_long_as_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    main(["site", "check", "-i", str(TWIN)])
    bars = [
        line.split("[")[1].split("]")[0]
        for line in capsys.readouterr().out.splitlines()
        if "GPU" in line and "[" in line
    ]
    assert len(bars) == 4 + 4 * 3
    assert {len(bar) for bar in bars} == {32}


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "check", "-i", str(TWIN), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["tier"] == "l40s-4"
    assert summary["tenants"]["doc-zam"]["order"] == 1
    assert summary["placements"]["without-gpu0"]["lost"] == 0
    for placement in summary["placements"].values():
        assert all(gpu["used_gib"] <= gpu["budget_gib"] for gpu in placement["gpus"])


def test_targets_that_physics_forbids_are_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARGETS", "plan")
    main(["site", "check", "-i", str(TWIN)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "soap_p95_s" in line]
    assert lines and lines[0].endswith("IMPOSSIBLE")


def test_a_placement_that_could_be_better_is_a_line_and_no_refusal(
    capsys: pytest.CaptureFixture[str], changed: Callable[[Change], Path]
) -> None:
    def worse(site: dict[str, Any]) -> None:
        site["placements"]["without-gpu1"]["llava-1.6-mistral-7b"] = [2]

    directory = changed(worse)
    assert main(["site", "check", "-i", str(directory)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "could be better" in line]
    assert len(lines) == 1
    assert "without-gpu1" in lines[0] and "llava-1.6-mistral-7b on GPU 0" in lines[0]
    main(["site", "check", "-i", str(TWIN)])
    assert "could be better" not in capsys.readouterr().out


def test_a_power_supply_too_few_is_said(capsys: pytest.CaptureFixture[str], changed: Callable[[Change], Path]) -> None:
    main(["site", "check", "-i", str(changed(lambda site: site["power"].update(psu_count=2)))])
    assert "DOES NOT HOLD" in capsys.readouterr().out


def test_a_wrong_site_is_one_message_and_exit_2(
    capsys: pytest.CaptureFixture[str], changed: Callable[[Change], Path]
) -> None:
    assert main(["site", "check", "-i", str(changed(lambda site: site.pop("tier")))]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1
    assert "site.tier" in caught.err


def test_a_directory_that_is_no_site_is_exit_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["site", "check", "-i", str(tmp_path)]) == 2
    assert "group_vars/all/site.yml" in capsys.readouterr().err
