"""The vars plugin, asked by Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from site_lab import ROOT, Change

ANSIBLE = Path(sys.executable).parent
PLAY = """
- hosts: gpu
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: port {{ site_plan.engines["bge-m3"].port }} of {{ site.name }}
"""
HOSTS = "all: {hosts: {one: {ansible_connection: local}}}\n"


def ansible(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ANSIBLE / words[0]), *words[1:]],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_host_has_the_site_and_the_plan() -> None:
    done = ansible("ansible-inventory", "-i", "inventory/twin", "--list")
    assert done.returncode == 0, done.stderr
    variables = json.loads(done.stdout)["_meta"]["hostvars"]["gpu1"]
    assert variables["site"]["models"]["bge-m3"]["max_model_len"] == 8192
    assert variables["site_plan"]["placements"]["healthy"]["engines"]["bge-m3"]["gpus"] == [0]


@pytest.mark.parametrize("inventory", ["inventory/twin", "inventory/twin/hosts.yml"])
def test_a_play_sees_the_plan(inventory: str, tmp_path: Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    done = ansible("ansible-playbook", "-i", inventory, str(play))
    assert "port 8000 of twin" in done.stdout, done.stdout + done.stderr


def test_targets_of_the_plan_by_environment() -> None:
    done = ansible("ansible-inventory", "-i", "inventory/twin", "--list", TARGETS="plan")
    variables = json.loads(done.stdout)["_meta"]["hostvars"]["gpu1"]
    assert variables["site"]["targets"]["soap_p95_s"]["restated"] is None


def test_a_wrong_site_stops_ansible_with_the_message_of_site_check(changed: Callable[[Change], Path]) -> None:
    directory = changed(lambda site: site.update(tiers="l40s-4"))
    check = ansible("gpu-cutover", "site", "check", "-i", str(directory))
    assert check.returncode == 2
    message = check.stderr.strip().removeprefix("gpu-cutover: ")
    done = ansible("ansible", "-i", str(directory), "all", "-m", "ansible.builtin.debug", COLUMNS="1000")
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_other_inventories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    done = ansible(
        "ansible", "-i", str(tmp_path), "all", "-m", "ansible.builtin.debug", "-a", "msg={{ site_plan is defined }}"
    )
    assert done.returncode == 0, done.stderr
    assert "msg: false" in done.stdout
