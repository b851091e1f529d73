"""The ledger tells every certificate that was given out or ended, once, whichever run did it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from gpu_cutover.evidence import audit
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.pki import register, told
from gpu_cutover.pki.authority import Leaf, Wishes, ensure

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 12, 27, tzinfo=UTC)
TENANTS = {"doc-zam": "doc-zam.clinic.test", "drill": "drill.clinic.test"}
PLAY = """- hosts: gw1
  gather_facts: false
  connection: local
  tasks:
    - record_certificates: {gateways: "{{ ansible_play_hosts }}", reason: "a key was stolen"}
"""


def issue(site: Path, **wishes: tuple[str, ...]) -> None:
    pki = site / ".state" / "pki"
    ensure(pki, "twin", Leaf("edge", ("edge",)), TENANTS, NOW, wishes=Wishes(**wishes))


def test_what_is_told_is_news_no_more_and_a_revocation_is_news_again(tmp_path: Path) -> None:
    issue(tmp_path)
    pki, ledger = tmp_path / ".state" / "pki", Ledger.open(tmp_path)
    first = told.news(register.load(pki), ledger.records())
    assert sorted(one["certificate"] for one in first["issued"]) == [
        "server.pem",
        "tenants/doc-zam.crt",
        "tenants/drill.crt",
    ]
    assert (first["revoked"], told.name_of(first)) == ([], "several")
    ledger.append(told.KIND, told.name_of(first), first)
    assert not any(told.news(register.load(pki), ledger.records()).values())
    issue(tmp_path, revoke=("doc-zam",), rotate=("doc-zam",))
    second = told.news(register.load(pki), ledger.records())
    assert [len(second[what]) for what in ("issued", "revoked")] == [1, 1]
    assert second["issued"][0]["serial"] != second["revoked"][0]["serial"]
    assert told.name_of(second) == "doc-zam"


def play(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (site / "hosts.yml").write_text("all: {hosts: {gw1: {}}}\n")
    plugins = f"action_plugins = {ROOT}/plugins/action\nlibrary = {ROOT}/library\n"
    (site / "ansible.cfg").write_text(f"[defaults]\n{plugins}")
    book = site / "play.yml"
    book.write_text(PLAY)
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(site / "hosts.yml"), str(book), *words],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(site / "ansible.cfg"),
            "PYTHONPATH": str(ROOT / "src"),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_playbook_records_it_once_without_any_key(tmp_path: Path) -> None:
    issue(tmp_path)
    issue(tmp_path, revoke=("doc-zam",))
    predicted = play(tmp_path, "--check")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    assert Ledger.open(tmp_path).records() == []
    for _ in range(2):
        done = play(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    [record] = Ledger.open(tmp_path).records()
    assert (record.kind, record.data["reason"], record.data["gateways"]) == (
        "certificates",
        "a key was stolen",
        ["gw1"],
    )
    assert [one["certificate"] for one in record.data["revoked"]] == ["tenants/doc-zam.crt"]
    assert b"PRIVATE" not in (tmp_path / "evidence" / record.file).read_bytes()
    assert audit.verify(tmp_path) == []
