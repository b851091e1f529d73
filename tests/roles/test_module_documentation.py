"""A module documents exactly the options it takes, each with the type and default it has."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LIBRARY, PROBES = ROOT / "library", ROOT / "src" / "gpu_cutover" / "probes"
FRAGMENTS = ROOT / "plugins" / "doc_fragments"
MODULES = ["apt_hold", "bundle_verify", "driver_facts", "machine_facts", "nccl_check", "network_facts"]


class SpecificationError(Exception):
    """Carries what a module would have given to Ansible."""


@pytest.fixture
def aliased(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible resolves `ansible.module_utils.gpu_cutover` to the package; so does this test, to the same objects."""
    for name in ("bundle.manifest", "errors", *(f"probes.{path.stem}" for path in PROBES.glob("[a-z]*.py"))):
        importlib.import_module(f"gpu_cutover.{name}")
    for name, module in [*sys.modules.items()]:
        if name == "gpu_cutover" or name.startswith("gpu_cutover."):
            monkeypatch.setitem(sys.modules, f"ansible.module_utils.{name}", module)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("aliased")
def test_options_are_documented_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(LIBRARY / f"{name}.py")

    def capture(argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
        assert supports_check_mode
        raise SpecificationError(argument_spec)

    monkeypatch.setattr(module, "AnsibleModule", capture)
    with pytest.raises(SpecificationError) as caught:
        module.main()
    taken = {option: without_secrecy(spec) for option, spec in caught.value.args[0].items()}
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert documented["module"] == name
    options = documented["options"] | shared_options(documented.get("extends_documentation_fragment", []))
    told = {
        option: {key: value for key, value in spec.items() if key != "description"} for option, spec in options.items()
    }
    assert told == taken
    assert yaml.safe_load(module.EXAMPLES) and yaml.safe_load(module.RETURN)


def shared_options(fragments: list[str]) -> dict[str, Any]:
    """The options of the documentation fragments that a module names."""
    options: dict[str, Any] = {}
    for name in fragments:
        fragment = load(FRAGMENTS / f"{name}.py").ModuleDocFragment
        options |= yaml.safe_load(fragment.DOCUMENTATION)["options"]
    return options


def without_secrecy(spec: dict[str, Any]) -> dict[str, Any]:
    """`no_log` is no documented attribute of an option."""
    return {key: value for key, value in spec.items() if key != "no_log"}
