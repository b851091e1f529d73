"""A placements directory with a small plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.guard import placement

from .guard_host import ENGINES, PLACEMENTS


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in placement.render(PLACEMENTS, ENGINES, "10.0.0.1").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    placement.switch_current(tmp_path, "healthy")
    return tmp_path
