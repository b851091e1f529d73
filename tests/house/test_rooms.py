"""The rooms keep to their floors; what travels to targets imports only the standard library."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "gpu_cutover"

FLOOR = {
    "errors": 1,
    "catalog": 1,
    "site": 2,
    "planning": 2,
    "probes": 2,
    "gates": 2,
    "compare": 2,
    "evidence": 2,
    "bundle": 2,
    "pki": 2,
    "smoke": 3,
    "stack": 2,
    "router": 3,
    "watch": 3,
    "peers": 3,
    "guard": 3,
    "burn_in": 3,
    "monitoring": 3,
    "runs": 4,
    "audit": 4,
    "report": 4,
    "traffic": 4,
    "twin": 4,
    "cli": 5,
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem in FLOOR]


def imported_modules(path: Path) -> set[str]:
    """Absolute dotted names of everything the file imports, relative imports resolved."""
    package = ("gpu_cutover", *path.relative_to(PACKAGE).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join((*base, *([node.module] if node.module else [])))
            names.update(f"{prefix}.{alias.name}" for alias in node.names)
    return names


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in module_files()} <= set(FLOOR)


@pytest.mark.parametrize("path", module_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_its_own_floor_or_below(path: Path) -> None:
    own = FLOOR[room_of(path)]
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "gpu_cutover" and len(parts) > 1 and parts[1] in FLOOR:
            assert FLOOR[parts[1]] <= own, f"{path} imports {name} from a floor above"


def top_level_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    "path", [p for p in module_files() if room_of(p) == "probes"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_probes_travel_with_the_standard_library_alone(path: Path) -> None:
    assert top_level_imports(path) <= sys.stdlib_module_names
