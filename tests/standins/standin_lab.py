"""What the tests of the stand-ins share: a simulated driver with its own state, the site, waiting for things."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpu_cutover.catalog import load_catalog
from gpu_cutover.twin import standins

CHECKOUT = Path(__file__).resolve().parents[2]
TWIN = CHECKOUT / "twin"
SITE_DIR = CHECKOUT / "inventory" / "twin"
sys.path.insert(0, str(TWIN / "shared"))
sys.path.insert(0, str(TWIN / "gpu_host"))
sys.path.insert(0, str(TWIN / "outside"))


def site() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SITE_DIR / "group_vars/all/site.yml").read_text())["site"]
    return found


def boards(tier: str = "l40s-4") -> list[dict[str, Any]]:
    bought = {"gpus": [{"model": "x", "serial": f"132462300001{number}"} for number in range(4)]}
    return standins.boards({"tier": tier}, bought, load_catalog())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The condition's first true value; fails the test when there is none in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("did not happen in time")


def answers_at(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@dataclass
class Driver:
    """Where the simulated driver's files are, and how to call code on it."""

    directory: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.library.parent),
            "NVML_STANDIN_STATE": str(self.state),
            "NVML_STANDIN_SOCKET": str(self.directory / "load.sock"),
            "NVML_STANDIN_FAULTS": str(self.directory / "faults.json"),
            "NVML_STANDIN_BOARDS": str(self.directory / "gpus.json"),
            "NVML_STANDIN_DRIVER": str(self.directory / "driver.loaded"),
        }

    @property
    def state(self) -> Path:
        return self.directory / "nvml.state"

    def break_it(self, **faults: Any) -> None:
        """Write the fault file and wait until the state has been written since."""
        (self.directory / "faults.json").write_text(json.dumps(faults))
        before = self.state.stat().st_mtime_ns
        wait_for(lambda: self.state.stat().st_mtime_ns > before)
        before = self.state.stat().st_mtime_ns
        wait_for(lambda: self.state.stat().st_mtime_ns > before)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def python(self, code: str) -> str:
        """Run code with real pynvml on the simulated library; its output."""
        result = self.run(sys.executable, "-c", f"import pynvml as n\nn.nvmlInit()\n{code}")
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()
