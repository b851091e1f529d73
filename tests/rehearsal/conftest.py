"""One rehearsal, kept up, shared by the tests of this folder.

Boots real hosts and takes minutes. Its site is a copy: a rehearsal that runs in this checkout is not touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODEL = "whisper-large-v3"  # the model that a rehearsal and the runbook roll back
COMMAND = str(Path(sys.executable).parent / "gpu-cutover")


class RehearsedSite:
    """A site directory whose ten days are behind it, and the command line a person would use on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._second_runs: dict[int, subprocess.CompletedProcess[str]] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "SITE": str(directory)}

    def run(self, *arguments: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )

    def day(self, number: int) -> subprocess.CompletedProcess[str]:
        return self.run("day", str(number), "-i", str(self.directory), "--yes")

    def command_block(self, text: str) -> subprocess.CompletedProcess[str]:
        """A runbook's command block, as it stands."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def second_run(self, number: int) -> subprocess.CompletedProcess[str]:
        """The day's page of the runbooks, followed after the rehearsal: once, for all tests that look at it."""
        if number not in self._second_runs:
            if number == 5:
                self.give_the_model_back()  # a rolled-back model answers from the cloud, and the day would hold
            page = (ROOT / "runbooks" / f"day-{number:02}.md").read_text()
            (block,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
            self._second_runs[number] = self.command_block(block)
        return self._second_runs[number]

    def give_the_model_back(self) -> None:
        """From wherever an earlier test left it: no model rolled back. A rehearsal ends with one that is."""
        given = self.run(
            "play", "rollback", "-i", str(self.directory), "-e", f"model={MODEL}", "-e", "clear=true", "--yes"
        )
        assert given.returncode == 0, given.stdout + given.stderr

    def bring_back_the_first_tenant(self) -> None:
        """As day 9 leaves it: no model rolled back, the first tenant on-prem."""
        self.give_the_model_back()
        again = self.day(9)
        assert again.returncode == 0, again.stdout[-3000:] + again.stderr

    def load_gpu(self, gpu: int, seconds: int) -> None:
        """Keep one GPU busy: a fan that stands still heats nothing on an idle board."""
        unit = ["systemd-run", "--quiet", "--collect", "tensor-load", "--gpu", str(gpu), "--seconds", str(seconds)]
        started = self.run("twin", "shell", "-i", str(self.directory), "gpu1", *unit)
        assert started.returncode == 0, started.stderr

    def guard(self) -> dict[str, Any]:
        """What the guard says of itself."""
        asked = ["/opt/gpu-cutover/bin/gpu-cutover-guard", "ctl", "status"]
        shown = self.run("twin", "shell", "-i", str(self.directory), "gpu1", *asked)
        return dict(json.loads(shown.stdout)) if shown.stdout.startswith("{") else {}

    def status(self) -> dict[str, Any]:
        shown = self.run("status", "-i", str(self.directory), "--json")
        assert shown.returncode == 0, shown.stderr
        return dict(json.loads(shown.stdout))


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsedSite]:
    directory = tmp_path_factory.mktemp("site") / "twin"
    shutil.copytree(ROOT / "inventory" / "twin", directory, ignore=shutil.ignore_patterns(".state", "evidence"))
    site = RehearsedSite(directory)
    try:
        done = site.run("rehearse", "-i", str(directory), "--keep", timeout_s=1800)
        assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        yield site
    finally:
        site.run("twin", "down", "-i", str(directory), timeout_s=120)
