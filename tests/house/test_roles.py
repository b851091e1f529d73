"""Every role says what it takes, and its argument specification equals its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path for path in (Path(__file__).parents[2] / "roles").iterdir() if path.is_dir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def options(role: Path) -> dict[str, Any]:
    specs = load(role / "meta" / "argument_specs.yml")
    assert specs, f"{role.name} has no meta/argument_specs.yml"
    merged: dict[str, Any] = {}
    for entry in specs["argument_specs"].values():
        merged |= entry.get("options") or {}
    return merged


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_argument_specification_equals_the_defaults(role: Path) -> None:
    defaults = load(role / "defaults" / "main.yml") or {}
    declared = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert declared == defaults


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_carries_the_name_of_its_role(role: Path) -> None:
    assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_readme(role: Path) -> None:
    assert len((role / "README.md").read_text().splitlines()) >= 5
