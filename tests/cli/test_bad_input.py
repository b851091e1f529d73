"""Bad input through the real command line: exit 2, one message with file, key and fix, and nothing changed.

One row for each kind of mistake; every single rule of a declaration is in tests/site.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_cutover.bundle.manifest import write_manifest

ROOT = Path(__file__).parents[2]
SITE_YML, HOSTS_YML = "group_vars/all/site.yml", "hosts.yml"
Break = Callable[[Path], object]


@dataclass(frozen=True)
class Place:
    """A site and a bundle of one's own, in one folder."""

    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """The tool as a person starts it, with nobody at the terminal."""
        words = [word.format(site=self.site, folder=self.folder) for word in arguments]
        clean = {key: value for key, value in os.environ.items() if key not in ("TARGETS", "TWIN_LAB")}
        return subprocess.run(
            [sys.executable, "-m", "gpu_cutover.cli", *words],
            cwd=ROOT,
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def listing(self) -> dict[str, str]:
        """Every path of the folder with its mode and, for a file, its digest."""
        return {str(path.relative_to(self.folder)): _told(path) for path in sorted(self.folder.rglob("*"))}


def _told(path: Path) -> str:
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return f"{path.stat().st_mode:o} {content}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    shutil.copytree(ROOT / "inventory" / "twin", made.site, ignore=shutil.ignore_patterns(".state", "evidence"))
    for name in ("bin/uv", "wheels/agent/a.whl"):
        (tmp_path / "bundle" / name).parent.mkdir(parents=True)
        (tmp_path / "bundle" / name).write_text(name)
    write_manifest(tmp_path / "bundle")
    return made


def edit(part: str, change: Callable[[Any], object]) -> Break:
    """Change one YAML file of the site."""

    def act(folder: Path) -> None:
        path = folder / "site" / part
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    return act


def declare(change: Callable[[Any], object]) -> Break:
    """Change what stands under `site:`."""
    return edit(SITE_YML, lambda data: change(data["site"]))


def write(part: str, text: str) -> Break:
    """Put text in place of a file, made where it is missing."""

    def act(folder: Path) -> None:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(text)

    return act


def remove(part: str) -> Break:
    return lambda folder: (folder / part).unlink()


def nothing(folder: Path) -> None:
    """The site is right; the command line is not."""


DAY = ("day", "3", "--yes", "-i", "{site}")
CHECK = ("site", "check", "-i", "{site}")
PLAN = ("plan", "-i", "{site}")
WAIVE = ("waive", "6", "--reason", "fan replaced", "--by", "A. Person", "-i")
VERIFY = ("bundle", "verify", "{folder}/bundle")


def play(verb: str, *variables: str) -> tuple[str, ...]:
    chosen = [word for variable in variables for word in ("-e", variable)]
    return ("play", verb, "--yes", "-i", "{site}", *chosen)


# what is wrong, how it comes about, the command, and what its message must name
BAD: list[tuple[str, Break, tuple[str, ...], tuple[str, ...]]] = [
    ("unknown key", declare(lambda s: s.update(tennants={})), CHECK, (SITE_YML, "site.tennants", "tenants?")),
    (
        "wrong type",
        declare(lambda s: s["durations"].update(mirror_s="40")),
        DAY,
        (SITE_YML, "site.durations.mirror_s", "a whole number"),
    ),
    (
        "tenant without policy",
        declare(lambda s: s["tenants"]["doc-zam"].pop("policy")),
        DAY,
        (SITE_YML, "site.tenants.doc-zam.policy", "is missing"),
    ),
    (
        "sensitive tenant routed to the cloud",
        declare(lambda s: s["tenants"]["klinik-amanah"].update(routes={"chat": "cloud"})),
        DAY,
        (SITE_YML, "site.tenants.klinik-amanah.routes.chat", "never go to the cloud"),
    ),
    (
        "two models on one GPU over its memory",
        declare(lambda s: s["placements"]["healthy"].update({"llama-3.1-70b-instruct": [1, 2]})),
        DAY,
        (SITE_YML, "site.placements.healthy", "GPU 1"),
    ),
    ("plan without a site", nothing, ("plan",), ("-i", "is missing")),
    ("plan on an unknown tier", nothing, (*PLAN, "--tier", "l40s-5"), ("--tier", "l40s-5", "l40s-4")),
    ("plan for an unknown demand", nothing, (*PLAN, "--demand", "foo=3"), ("--demand", "foo", "soap")),
    (
        "plan for a demand that is no number",
        nothing,
        (*PLAN, "--demand", "soap=many"),
        ("--demand", "soap=many", "soap=24"),
    ),
    (
        "plan written where nothing can be",
        nothing,
        (*PLAN, "--html", "{folder}/no/plan.html"),
        ("--html", "No such file", "a writable folder"),
    ),
    (
        "plan of a site that is not valid",
        declare(lambda s: s["routes"]["chat"].pop("model")),
        PLAN,
        (SITE_YML, "site.routes.chat.model", "is missing"),
    ),
    (
        "route without model",
        declare(lambda s: s["routes"]["chat"].pop("model")),
        DAY,
        (SITE_YML, "site.routes.chat.model", "is missing"),
    ),
    ("YAML that is none", write(f"site/{SITE_YML}", "site: {name: [}\n"), DAY, (SITE_YML, "line 1")),
    (
        "missing host",
        edit(HOSTS_YML, lambda data: data["site_hosts"]["children"]["gateway"].update(hosts={})),
        DAY,
        (HOSTS_YML, "gateway", "has no host"),
    ),
    ("missing hosts file", remove(f"site/{HOSTS_YML}"), DAY, (HOSTS_YML, "no such file")),
    (
        "missing record",
        remove("site/records/purchase.yml"),
        DAY,
        ("records/purchase.yml", "no such file", "what was bought"),
    ),
    ("day out of range", nothing, ("day", "11", "--yes", "-i", "{site}"), ("day", "11", "from 1 to 10")),
    ("missing site", nothing, ("day", "1", "--yes", "-i", "{folder}/nowhere"), ("nowhere", "not a site")),
    ("no site for status", nothing, ("status", "-i", "{folder}/bundle"), ("bundle", "not a site")),
    ("nobody to ask", nothing, ("day", "1", "-i", "{site}"), ("--yes", "not a terminal")),
    ("unknown verb", nothing, play("rolback"), ("rolback", "rollback")),
    ("no key=value", nothing, play("rollback", "doc-zam"), ("-e", "key=value")),
    ("unknown variable", nothing, play("rollback", "tenent=doc-zam"), ("tenent", "tenant?")),
    ("variable of another verb", nothing, play("restore", "gpu=2"), ("gpu", "restore has no such variable")),
    ("unknown tenant", nothing, play("rollback", "tenant=doc-zem"), ("tenant", "doc-zem", "doc-zam?")),
    ("unknown model", nothing, play("rollback", "model=whisper"), ("model", "whisper-large-v3")),
    ("nothing to roll back", nothing, play("rollback"), ("-e", "does not say what", "tenant=NAME")),
    ("two things to roll back", nothing, play("rollback", "tenant=doc-zam", "all=true"), ("tenant and all",)),
    ("a sensitive tenant back", nothing, play("rollback", "tenant=klinik-amanah"), ("sensitive", "accept_off=true")),
    ("GPU that is not there", nothing, play("derate", "gpu=4"), ("gpu", "no GPU '4'", "0 to 3")),
    ("missing bundle", nothing, ("bundle", "verify", "{folder}/nowhere"), ("nowhere/SHA256SUMS", "cannot be read")),
    ("bundle file missing", remove("bundle/bin/uv"), VERIFY, ("bundle", "bin/uv", "missing", "bundle build")),
    ("bundle file altered", write("bundle/bin/uv", "bin/uw"), VERIFY, ("bundle", "bin/uv", "altered")),
    ("bundle for a wrong site", declare(lambda s: s.pop("tier")), ("bundle", "build", "-i", "{site}"), ("site.tier",)),
    ("waiver without a real date", nothing, (*WAIVE, "{site}", "--until", "2026-02-30"), ("--until", "2026-02-30")),
    ("waiver until the past", nothing, (*WAIVE, "{site}", "--until", "2020-01-31"), ("--until", "not in the future")),
    ("waiver on a missing site", nothing, (*WAIVE, "{folder}/nowhere", "--until", "2999-12-31"), ("nowhere",)),
    (
        "waiver where no site is",
        nothing,
        (*WAIVE, "{folder}/bundle", "--until", "2999-12-31"),
        ("bundle", "not a site"),
    ),
    ("evidence of a missing site", nothing, ("evidence", "show", "-i", "{folder}/nowhere"), ("nowhere", "no such")),
    (
        "evidence that cannot be read",
        write("site/evidence/000001-gate-day01.json", "{"),
        ("status", "-i", "{site}"),
        ("000001-gate-day01.json",),
    ),
    (
        "report in a place that is none",
        nothing,
        ("report", "-i", "{site}", "-o", "{site}/hosts.yml/report.html"),
        ("hosts.yml/report.html", "-o"),
    ),
    (
        "rehearsal of a production site",
        declare(lambda s: s.update(stage="production")),
        ("rehearse", "-i", "{site}"),
        ("site.stage", "production"),
    ),
    ("twin of a missing site", nothing, ("twin", "status", "-i", "{folder}/nowhere"), ("nowhere/hosts.yml",)),
]


@pytest.mark.parametrize(("spoil", "command", "named"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_told_and_nothing_changes(
    place: Place, spoil: Break, command: tuple[str, ...], named: tuple[str, ...]
) -> None:
    spoil(place.folder)
    before = place.listing()
    done = place.run(command)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("gpu-cutover: ") and done.stderr.count("\n") == 1, done.stderr
    assert ". Fix: " in done.stderr
    assert [word for word in named if word not in done.stderr] == [], done.stderr
    assert place.listing() == before


@pytest.mark.parametrize("command", [("day", "three", "-i", "x"), ("dya", "3"), ("waive", "3"), ()])
def test_words_that_are_no_command_are_answered_with_the_usage(place: Place, command: tuple[str, ...]) -> None:
    done = place.run(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: gpu-cutover") and "Traceback" not in done.stderr
