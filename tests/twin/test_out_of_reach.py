"""A host out of reach, or one that is not who it says: a day finds it before anything changes, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_cutover.bundle.manifest import write_manifest

from .lab_under_test import ROOT, LabUnderTest

pytestmark = pytest.mark.twin


class WholeSite(LabUnderTest):
    """A lab of a complete site whose day 2 may start, with a bundle of one file."""

    def tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-m", "gpu_cutover.cli", *words, "-i", str(self.site)])

    def records(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.site / "evidence").glob("*") if path.is_file()}

    def changed(self) -> list[str]:
        """What the tool has put on the hosts; the lab itself puts nothing there."""
        places = ("/opt/gpu-cutover", "/etc/gpu-cutover", "/srv/models")
        return [place for place in places if self.shell("gpu1", "sh", "-c", f"ls -d {place} 2>&-; :")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSite]:
    directory = tmp_path_factory.mktemp("whole") / "twin"
    shutil.copytree(ROOT / "inventory" / "twin", directory, ignore=shutil.ignore_patterns(".state", "evidence"))
    made = WholeSite(f"tc{os.getpid() % 1000000}", directory)
    (directory.parent / "bundle" / "bin").mkdir(parents=True)
    (directory.parent / "bundle" / "bin" / "uv").write_text("whole")
    digest = write_manifest(directory.parent / "bundle")
    (directory / ".state").mkdir(mode=0o700)
    (directory / ".state" / "bundle.json").write_text(
        json.dumps({"path": str(directory.parent / "bundle"), "digest": digest})
    )
    waiver = ("--reason", "day 1 is not what is tested", "--by", "A. Tester", "--until", "2999-12-31")
    try:
        assert made.tool("waive", "1", *waiver).returncode == 0
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def unplugged(site: WholeSite) -> Iterator[None]:
    """gw1's cable is out."""
    site.twin("cut", "gw1")
    yield
    site.twin("heal", "gw1")


@pytest.fixture
def other_key(site: WholeSite) -> Iterator[None]:
    """The site knows another host key for gw1 than gw1 has."""
    known_hosts = site.site / ".state" / "lab" / "known_hosts"
    right = known_hosts.read_text()
    keys = {line.split(",")[0]: line.split() for line in right.splitlines()}
    keys["gw1"][2] = keys["mon1"][2]
    known_hosts.write_text("".join(" ".join(words) + "\n" for words in keys.values()))
    yield
    known_hosts.write_text(right)


# day 2 begins on every host; day 3 works on the GPU host only, and would not have met gw1 for a long time
@pytest.mark.parametrize("words", [("2",), ("3", "--check")], ids=["day 2", "day 3, dry run"])
@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("unplugged", ("gw1: cannot be reached", "hosts.yml", "twin up")),
        ("other_key", ("gw1: its SSH host key is not the one this site knows", "known_hosts")),
    ],
)
def test_a_day_says_which_host_and_why_before_anything_changed(
    site: WholeSite, request: pytest.FixtureRequest, trouble: str, told: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = site.records()
    request.getfixturevalue(trouble)
    done = site.tool("day", *words, "--yes")
    assert done.returncode == 2, done.stdout + done.stderr
    assert [word for word in (*told, "Fix: ") if word not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert site.records() == before
    assert site.changed() == []


@pytest.mark.parametrize(("damage", "told"), [("altered", "was altered"), ("gone", "but missing")])
def test_a_damaged_bundle_stops_a_day_before_anything_changed(site: WholeSite, damage: str, told: str) -> None:
    file = site.site.parent / "bundle" / "bin" / "uv"
    file.write_text("other") if damage == "altered" else file.unlink()
    before = site.records()
    done = site.tool("day", "2", "--yes")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "/srv/bundle: bin/uv: " in done.stderr and told in done.stderr and "Fix: " in done.stderr
    assert site.records() == before
    assert site.changed() == []


def test_clinics_cannot_send_before_day_4_has_made_their_certificates(site: WholeSite) -> None:
    refused = site.twin("clinics")
    assert refused.returncode == 2
    assert "no client certificates yet" in refused.stderr and "run day 4 first" in refused.stderr


def make_certificates(directory: Path) -> None:
    """Where day 4 would put them; what stands in them is the edge's business."""
    for name in ("ca.pem", "tenants/doc-zam.crt", "tenants/doc-zam.key"):
        path = directory / ".state" / "pki" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(f"{name}\n")


def test_clinics_get_the_certificates_that_day_4_made(site: WholeSite) -> None:
    make_certificates(site.site)
    done = site.twin("clinics")
    assert (done.returncode, done.stdout) == (0, "the clinics send: doc-zam\n"), done.stderr
    assert site.shell("clinic", "cat", "/etc/twin/pki/doc-zam.key") == "tenants/doc-zam.key"
    assert site.shell("clinic", "stat", "-c", "%a", "/etc/twin/pki/doc-zam.key") == "600"


def test_clinics_of_a_lab_that_is_down_are_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "inventory" / "twin", tmp_path / "twin", ignore=shutil.ignore_patterns(".state", "evidence"))
    make_certificates(tmp_path / "twin")
    refused = WholeSite(f"td{os.getpid() % 1000000}", tmp_path / "twin").twin("clinics")
    assert refused.returncode == 2
    assert "clinic: the host is not running" in refused.stderr
