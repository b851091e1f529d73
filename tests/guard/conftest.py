"""A placements directory with a small plan; a board of the simulated NVML."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.guard import placement

from .guard_host import ENGINES, PLACEMENTS
from .real_guard import Board, build_nvml


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in placement.render(PLACEMENTS, ENGINES, "10.0.0.1").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    placement.switch_current(tmp_path, "healthy")
    return tmp_path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def board(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("NVML_STANDIN_STATE", str(tmp_path / "nvml.state"))
    return Board(tmp_path / "nvml.state")
