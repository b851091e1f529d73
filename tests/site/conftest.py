"""Fixtures: a valid site to break, and a clean environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from site_lab import SITE_FILE, Change, change_file, copy_site


@pytest.fixture(autouse=True)
def no_targets_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TARGETS", raising=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A valid site to break."""
    return copy_site(tmp_path / "site")


@pytest.fixture
def changed(directory: Path) -> Callable[[Change], Path]:
    """The site with `site:` changed."""
    return lambda change: change_file(directory, SITE_FILE, lambda data: change(data["site"]))
