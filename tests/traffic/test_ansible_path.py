"""The way through Ansible: the real role on two gateways, and the same record as the way without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.cli import main
from gpu_cutover.router.journal import Journal

from .test_break_glass import HOME, INSIDE, THERE
from .two_gateways import ROOT, Site, fill

# The gateways' directories stand in for their hosts: modules run here, each on the files of one gateway.
PLAY = """# The role on two gateways in directories
- hosts: gateway
  gather_facts: false
  connection: local
  module_defaults:
    route_table:
      directory: "{{ gateway_folder }}"
      journal: "{{ gateway_folder }}/changes.jsonl"
      logs: "{{ gateway_folder }}"
  tasks:
    - ansible.builtin.include_role: {name: cutover, tasks_from: "{{ verb }}"}
      vars: {cutover_confirm: "{{ gateway_ports }}"}
"""
OF_THE_WAY = ("id", "path", "by", "started", "finished", "took_s", "gateways")


def play(site: Site, folder: Path, verb: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    book = folder / "play.yml"
    book.write_text(PLAY)
    (site.directory / "host_vars").mkdir(exist_ok=True)
    for name, gateway in site.gateways.items():
        own = {
            "gateway_folder": str(gateway.folder),
            "gateway_ports": dict(gateway.place.ports),
            "ansible_python_interpreter": sys.executable,
        }
        (site.directory / "host_vars" / f"{name}.yml").write_text(json.dumps(own))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(site.directory),
            str(book),
            "-e",
            json.dumps({"verb": verb, **variables}),
            *words,
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_everybody_goes_back_and_the_record_says_what_the_other_way_says(site: Site, tmp_path: Path) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.answers_questions = True
    done = play(site, tmp_path, "rollback", cutover_all=True, cutover_reason="fire")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.states() == {"gw1": HOME, "gw2": HOME}
    assert site.states("sealed") == {"gw1": INSIDE, "gw2": INSIDE}
    assert "klinik-amanah/chat stays onprem" in done.stdout
    (by_ansible,) = site.records()
    assert by_ansible.data["path"] == "ansible"
    assert [Journal(gateway.place.journal).unrecorded() for gateway in site.gateways.values()] == [[], []]
    for gateway in site.gateways.values():
        gateway.place.journal.unlink()
        fill(gateway)
    assert main(["rollback", "--all", "--reason", "fire", "-i", str(site.directory)]) == 0
    straight = site.records()[-1]
    assert straight.data["path"] == "break-glass"
    assert (straight.kind, straight.name) == (by_ansible.kind, by_ansible.name)
    both = [{key: value for key, value in one.data.items() if key not in OF_THE_WAY} for one in (by_ansible, straight)]
    assert both[0] == both[1]
    for host in ("gw1", "gw2"):
        sides = [
            {k: v for k, v in one.data["gateways"][host].items() if k != "finished"} for one in (by_ansible, straight)
        ]
        assert sides[0] == sides[1]


def test_a_silent_cloud_ends_as_refused_and_nobody_moves(site: Site, tmp_path: Path) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.status = 503
    done = play(site, tmp_path, "rollback", cutover_tenant="doc-zam")
    assert done.returncode != 0
    assert "doc-zam/chat stays onprem" in done.stdout
    assert site.states() == {"gw1": THERE, "gw2": THERE}


def test_a_dry_run_predicts_and_records_nothing(site: Site, tmp_path: Path) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.answers_questions = True
    done = play(site, tmp_path, "rollback", "--check", "--diff", cutover_all=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=1" in done.stdout
    assert '"chat": "cloud"' in done.stdout
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert site.records() == []


def test_a_tenant_goes_on_prem_on_all_gateways_under_one_name(site: Site, tmp_path: Path) -> None:
    done = play(site, tmp_path, "main", cutover_tenant="klinik-seri", cutover_routes=["embed"])
    assert done.returncode != 0, "the engine's stand-in answers no question, so the leg is not ready"
    assert "not ready" in done.stdout
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    for gateway in site.gateways.values():
        gateway.engine.answers_questions = True
    done = play(site, tmp_path, "main", cutover_tenant="klinik-seri", cutover_routes=["embed"])
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = site.records()
    assert (record.kind, record.name, record.data["to"]) == ("cutover", "klinik-seri", "onprem")
    assert record.data["after"] == {"klinik-seri": {"embed": "onprem"}}
    assert set(record.data["gateways"]) == {"gw1", "gw2"}
    again = play(site, tmp_path, "main", cutover_tenant="klinik-seri", cutover_routes=["embed"])
    assert again.stdout.count("changed=0") == 2
    assert len(site.records()) == 1


@pytest.mark.parametrize("variables", [{}, {"cutover_tenant": "doc-zam", "cutover_all": True}])
def test_the_playbook_wants_one_thing_named(site: Site, tmp_path: Path, variables: dict[str, Any]) -> None:
    done = play(site, tmp_path, "rollback", **variables)
    assert done.returncode != 0
    assert "Name what goes back" in done.stdout
