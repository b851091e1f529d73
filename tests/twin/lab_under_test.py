"""A small lab for tests: its own site directory and name, the command line as a person uses it, and what it left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_cutover.twin import cgroups, network

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "gpu_cutover.cli", "twin")
ANSIBLE = Path(sys.executable).parent
HOSTS = """
site_hosts:
  children:
    gpu: {hosts: {gpu1: {ansible_host: 10.87.0.21}}}
outside:
  hosts:
    cloud: {ansible_host: 10.87.0.41, twin_aliases: [api.openai.com]}
"""


def make_site(directory: Path) -> Path:
    """A site of two hosts, reached the way the twin's own site is."""
    (directory / "group_vars" / "all").mkdir(parents=True)
    (directory / "hosts.yml").write_text(HOSTS)
    connection = ROOT / "inventory" / "twin" / "group_vars" / "all" / "connection.yml"
    shutil.copy(connection, directory / "group_vars" / "all")
    return directory


@dataclass
class LabUnderTest:
    """One lab, driven from outside."""

    name: str
    site: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = os.environ | {"TWIN_LAB": self.name, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def arguments(self, verb: str, *rest: str) -> list[str]:
        return [*COMMAND, verb, "-i", str(self.site), *rest]

    def twin(self, verb: str, *rest: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.arguments(verb, *rest))

    def run(self, arguments: Sequence[str], timeout_s: float = 100.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments,
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def begin(self, verb: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            self.arguments(verb),
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def up(self) -> str:
        result = self.twin("up")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def down(self) -> None:
        result = self.twin("down")
        assert result.returncode == 0, result.stdout + result.stderr

    def host(self, name: str) -> dict[str, Any]:
        result = self.twin("status", "--json")
        assert result.returncode == 0, result.stderr
        state: dict[str, Any] = json.loads(result.stdout)["hosts"][name]
        return state

    def shell(self, host: str, *argv: str) -> str:
        result = self.twin("shell", host, *argv)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = self.site / ".state" / "lab" / "ssh_config"
        return self.run(["ssh", "-F", str(config), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *arguments])

    def ansible(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run([str(ANSIBLE / "ansible"), "-i", str(self.site), *arguments])

    def answers(self, host: str, timeout_s: float = 1.0) -> bool:
        try:
            with network.connect(self.name, host, 22, timeout_s) as connection:
                connection.settimeout(timeout_s)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def processes(self) -> dict[int, str]:
        """Every process of the lab: in its control groups, in its network, or naming it on its command line."""
        return dict(process for process in _all_processes() if self._is_ours(*process))

    def _is_ours(self, process: int, command_line: str) -> bool:
        if process == os.getpid():
            return False
        try:
            groups = Path(f"/proc/{process}/cgroup").read_text()
        except OSError:
            return False
        names = (f"gpu-cutover.{self.name}/", f"/gpu-cutover/{self.name}/", f"/labs/{self.name}/", f"netns/{self.name}")
        return any(name in text for name in names for text in (groups, command_line))

    def traces(self) -> list[str]:
        """Whatever of the lab is on this machine: processes, namespaces, mounts, control groups, files."""
        found = [f"process {number}: {line}" for number, line in self.processes().items()]
        places = (
            cgroups.of_lab(self.name),
            Path("/run/netns") / self.name,
            Path("/run/gpu-cutover") / self.name,
            Path("/var/lib/gpu-cutover/labs") / self.name,
        )
        found += [str(place) for place in places if place.exists()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line for line in mounts if f"/{self.name}" in line]
        return found


def _all_processes() -> list[tuple[int, str]]:
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if line:  # a zombie has none: it holds nothing and its parent will fetch it
                found.append((int(directory.name), line))
    return found
