"""A simulated driver for tests: the real library, compiled, and the real thermal process with its own state."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin_lab import CHECKOUT, TWIN, Driver, boards, wait_for

from gpu_cutover.twin.parts import nvml_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml_library(CHECKOUT, tmp_path_factory.mktemp("cache"), "580.105.08")


@pytest.fixture
def driver(tmp_path: Path, library: Path) -> Iterator[Driver]:
    found = Driver(tmp_path, library)
    (tmp_path / "gpus.json").write_text(json.dumps(boards()))
    (tmp_path / "driver.loaded").write_text("580.105.08\n")
    process = subprocess.Popen([sys.executable, str(TWIN / "gpu_host/thermals.py")], env=found.environment)
    try:
        wait_for(found.state.exists)
        yield found
    finally:
        process.terminate()
        process.wait(10)
