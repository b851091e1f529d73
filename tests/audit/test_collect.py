"""The real playbooks and the module, against two gateways that are folders here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from module_lab import run_module

from gpu_cutover.audit import store
from gpu_cutover.audit.collect import collect
from gpu_cutover.evidence.ledger import Ledger

from .conftest import GATEWAYS, AuditedSite
from .logs import record

POOLS = ("hybrid", "sealed")


def written(site: AuditedSite, start: int, count: int = 5) -> None:
    for host in GATEWAYS:
        for pool in POOLS:
            log = site.log(host, f"requests-{pool}", max_bytes=16_000)
            for number in range(start, start + count):
                log.add(record(number))
                log.flush()
            log.close()


def test_collect_copies_every_log_and_keeps_its_checkpoint_first(site: AuditedSite) -> None:
    written(site, 0, 35)  # more than a file holds
    assert collect(site.directory) == []
    assert {(log.host, log.name) for log in store.logs(site.directory)} == {
        (host, f"requests-{pool}") for host in GATEWAYS for pool in POOLS
    }
    assert [str(finding) for finding in site.prove(GATEWAYS).findings] == []
    (kept,) = Ledger.open(site.directory).records()
    assert kept.kind == "checkpoint"
    assert {host: set(kept.data[host]) for host in kept.data} == {
        host: {f"requests-{pool}" for pool in POOLS} for host in GATEWAYS
    }
    before = sorted(path for path in (site.directory / store.FOLDER).rglob("*.jsonl"))
    unchanged = {path: path.stat().st_ino for path in before[:1]}
    written(site, 35, 5)
    assert collect(site.directory) == []
    assert {path: path.stat().st_ino for path in unchanged} == unchanged  # a full file is not fetched a second time
    proof = site.prove(GATEWAYS)
    assert [str(finding) for finding in proof.findings] == []
    assert {one.compared for one in proof.logs} == {2}


def test_a_gateway_out_of_reach_is_told_and_the_copies_stay(site: AuditedSite) -> None:
    written(site, 0)
    collect(site.directory)
    hosts = site.directory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace(str(site.folder("gw2") / "keys"), "/nowhere"))
    command = [str(Path(sys.executable).with_name("gpu-cutover")), "audit", "collect", "-i", str(site.directory)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 10
    assert "what was collected before is as it was" in done.stderr
    assert site.prove(GATEWAYS).broken == []


@pytest.fixture
def one_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module finds the package's own modules under Ansible's name, not second ones that would replace them."""
    for name, module in [*sys.modules.items()]:
        if name == "gpu_cutover" or name.startswith("gpu_cutover."):
            monkeypatch.setitem(sys.modules, f"ansible.module_utils.{name}", module)


@pytest.mark.usefixtures("one_package")
def test_the_module_makes_each_key_once_and_predicts_it(tmp_path: Path) -> None:
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "python").chmod(0o755)
    arguments = {
        "keys": {"hybrid": "root"},
        "key_directory": str(tmp_path / "keys"),
        "path": str(tmp_path / "venv"),
        "logs": str(tmp_path),
    }
    assert run_module("request_log", check=True, **arguments)["changed"]
    assert not (tmp_path / "keys").exists()
    assert run_module("request_log", **arguments)["changed"]
    key = tmp_path / "keys" / "hybrid.key"
    made = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    again = run_module("request_log", **arguments)
    assert (again["changed"], again["checkpoints"], key.read_bytes()) == (False, {}, made)


@pytest.mark.parametrize("day", ["day08_mirror", "day09_cutover_first_tenant", "day10_cutover_all"])
def test_days_with_traffic_keep_the_checkpoints_before_their_gate(day: str) -> None:
    text = (Path(__file__).parents[2] / "playbooks" / f"{day}.yml").read_text()
    assert text.index("parts/keep_checkpoints.yml") < text.index("parts/close_day.yml")
