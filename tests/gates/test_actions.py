"""open_day, gate and record in real ansible-playbook runs, against a site without hosts to reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_cutover.evidence.audit import verify
from gpu_cutover.evidence.records import read_status

ROOT = Path(__file__).parents[2]
OPEN = {"name": "Open", "open_day": {"day": 2}, "register": "day_opened"}
CLOSE = {"name": "Close", "gate": {"day": 3}}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """One GPU host and the little of the plan that the gate of day 3 asks for; no connection is ever made."""
    plan = {
        "digest": "0" * 64,
        "tier": {"name": "t", "profile": {"gpu_count": 1}, "gpu": {"pcie_width": 16}, "sources": {}},
        "gates": {"nccl_busbw_min_gb_s": {"1": 10.0}},
        "driver": {
            "branch": "580",
            "version": "580.105.08-1",
            "cuda": "13.0",
            "packages": ["nvidia-open-580"],
            "reboot_allowed": False,
            "matrix": {"minimum_version": "580.65.06", "max_cuda_major": 13},
            "sources": {"minimum_version": "notes", "max_cuda_major": "notes"},
        },
    }
    host = {"ansible_host": "192.0.2.1", "site": {"name": "t"}, "site_plan": plan}
    hosts = {"site_hosts": {"children": {"gpu": {"hosts": {"gpu1": host}}}}}
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder


def play(site: Path, *tasks: dict[str, Any], check: bool = False) -> tuple[int, dict[str, Any], str]:
    """Run the tasks; exit status, the last task's result, and everything printed."""
    playbook = site.parent / "play.yml"
    playbook.write_text(yaml.safe_dump([{"hosts": "site_hosts[0]", "gather_facts": False, "tasks": list(tasks)}]))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_HOME": str(site.parent / "home"),
        "SUDO_USER": "r.weiss",
    }
    program = [str(Path(sys.executable).with_name("ansible-playbook")), "-v", "-i", str(site), str(playbook)]
    done = subprocess.run(
        [*program, *(["--check"] if check else [])],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    text = done.stdout + done.stderr
    results = [part for part in done.stdout.split("=> ")[1:] if part.lstrip().startswith("{")]
    result = json.JSONDecoder().raw_decode(results[-1].lstrip())[0] if results else {}
    return done.returncode, result, text


def reading(name: str, **figures: Any) -> dict[str, Any]:
    return {"name": "Read", "ansible.builtin.set_fact": {name: {"reading": figures}}}


GOOD = [
    reading(
        "nvidia_driver_reading_driver",
        packages={"nvidia-open-580": {"version": "580.105.08-1", "held": True}},
        loaded="580.105.08",
        gpus=[{"persistence": "Enabled", "pcie_width": 16}],
        nouveau=False,
        dcgm={"tests": {"memory": {"results": {"pass": 1}, "per_gpu": True}}},
        attachment={"name": "dcgm", "content": {"raw": "x"}},
    ),
    reading("nccl_check_reading_nccl", gpus=1, busbw_gb_s=12.5, wrong=0),
]


def test_a_good_day_is_promoted_recorded_and_signed(site: Path) -> None:
    opening = {"name": "Open", "open_day": {"day": 1}, "register": "day_opened"}
    status, result, text = play(site, opening, *GOOD, CLOSE)
    assert status == 0, text
    assert (result["gate_verdict"], result["changed"]) == ("promote", False)
    [record] = read_status(site)
    assert (record.kind, record.name, record.by, record.data["verdict"]) == ("gate", "day03", "r.weiss", "promote")
    assert record.data["started"] < record.data["finished"]
    assert [attachment.name for attachment in record.attachments] == ["dcgm"]
    assert verify(site) == []


def test_a_day_without_readings_holds_and_is_recorded(site: Path) -> None:
    status, result, text = play(site, CLOSE)
    assert status != 0
    assert result["gate_verdict"] == "hold"
    assert "no reading of driver from gpu1" in text
    assert read_status(site)[-1].data["verdict"] == "hold"


def test_a_dry_run_predicts_and_records_nothing(site: Path) -> None:
    status, result, text = play(site, OPEN, CLOSE, check=True)
    assert status == 0, text
    assert result["gate_verdict"] == "hold"
    assert "would say hold" in result["msg"]
    assert "Day 2 may not start" in text
    assert not (site / "evidence").exists()


def test_a_day_is_refused_with_the_reason_and_the_ways_on(site: Path) -> None:
    status, result, _ = play(site, OPEN)
    assert status != 0
    assert result["refused"] is True
    assert "day 1 has no verdict yet" in result["msg"]
    assert "gpu-cutover waive 1" in result["msg"]


def test_a_verdict_that_cannot_be_recorded_is_no_verdict(site: Path) -> None:
    play(site, *GOOD, CLOSE)
    (site / "evidence" / "000001-gate-day03.json").write_text("{}")
    status, result, _ = play(site, *GOOD, CLOSE)
    assert status != 0
    assert "gate_verdict" not in result
    assert "was not recorded" in result["msg"]


def test_record_writes_and_refuses_content(site: Path) -> None:
    note = {"kind": "rollback", "name": "doc-zam", "data": {"tenant": "doc-zam", "to": "cloud"}}
    status, result, text = play(site, {"name": "Record", "record": note})
    assert status == 0, text
    assert (result["file"], result["changed"]) == ("000001-rollback-doc-zam.json", False)
    status, result, _ = play(site, {"name": "Record", "record": {**note, "data": {"prompt": "x"}}})
    assert status != 0
    assert "digest" in result["msg"]
    assert len(read_status(site)) == 1
