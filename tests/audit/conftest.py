"""A site with two gateways whose logs lie in folders of this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from gpu_cutover.audit import store
from gpu_cutover.audit.kept import KIND
from gpu_cutover.audit.proof import Proof, prove
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.router import log_files, log_key
from gpu_cutover.router.record import RecordLog

from .logs import files

TWIN = Path(__file__).parents[2] / "inventory" / "twin"
GATEWAYS = ("gw1", "gw2")


@dataclass
class AuditedSite:
    """A site directory and its gateways' folders."""

    directory: Path
    gateways: Path

    def folder(self, host: str) -> Path:
        return self.gateways / host

    def log(self, host: str = "gw1", name: str = "requests-hybrid", **settings: int) -> RecordLog:
        """The log of a gateway, signed by its pool's own key."""
        key = self.folder(host) / "keys" / f"{name.rpartition('-')[2]}.key"
        log_key.make(key)
        return RecordLog(self.folder(host) / f"{name}.jsonl", key=key, **settings)

    def keep(self, host: str = "gw1", name: str = "requests-hybrid") -> None:
        """What a day does at its end, for one log."""
        path = self.folder(host) / f"{name}.jsonl"
        checkpoint = log_files.last_checkpoint(path)
        assert checkpoint is not None
        public = (self.folder(host) / "keys" / f"{name.rpartition('-')[2]}.pub").read_text().strip()
        Ledger.open(self.directory).append(KIND, "request-logs", {host: {name: {**checkpoint, "public": public}}})

    def bring(self, host: str = "gw1", name: str = "requests-hybrid") -> list[str]:
        """What `audit collect` does with the files of one log, without Ansible."""
        incoming = self.directory / store.FOLDER / store.INCOMING / host
        incoming.mkdir(parents=True, exist_ok=True)
        path = self.folder(host) / f"{name}.jsonl"
        for file in (*files(path), *path.parent.glob(f"{path.name}.torn-*")):
            shutil.copy(file, incoming)
        wrong = [store.take_in(self.directory, *one) for one in [*store.incoming(self.directory)]]
        return [words for words in wrong if words]

    def prove(self, gateways: tuple[str, ...] = ("gw1",)) -> Proof:
        return prove(self.directory, gateways, log_key.verifies)

    def broken(self) -> list[str]:
        return [str(finding) for finding in self.prove().broken]

    def notes(self) -> list[str]:
        return [str(finding) for finding in self.prove().findings if finding.level == "note"]


@pytest.fixture
def site(tmp_path: Path) -> AuditedSite:
    directory = tmp_path / "site"
    shutil.copytree(TWIN, directory, ignore=shutil.ignore_patterns(".state", "evidence"))
    found = AuditedSite(directory, tmp_path / "gateways")
    hosts = yaml.safe_load((directory / "hosts.yml").read_text())
    gateways = hosts["site_hosts"]["children"]["gateway"]["hosts"] = {}
    for number, host in enumerate(GATEWAYS, 11):
        (found.folder(host) / "keys").mkdir(parents=True)
        gateways[host] = {
            "ansible_host": f"10.87.0.{number}",
            "ansible_connection": "local",
            "audit_logs": str(found.folder(host)),
            "audit_keys": str(found.folder(host) / "keys"),
        }
    (directory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return found
