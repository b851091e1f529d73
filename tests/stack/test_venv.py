"""An environment from a lock: what the lock asks for is found or named, the digest says when to build anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from module_lab import FailedModuleError, run_module

from gpu_cutover.stack import venv

LOCK = """\
# made by a resolver
--only-binary :all:
aiohttp==3.14.5 \\
    --hash=sha256:00
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:01
uvicorn[standard]==0.30.0 \\
    --hash=sha256:02
Ruamel.YAML==0.19.1 --hash=sha256:03
"""
WHEELS = [
    "aiohttp-3.14.5-cp311-cp311-manylinux_2_17_x86_64.whl",
    "uvicorn-0.30.0-py3-none-any.whl",
    "ruamel_yaml-0.19.1-py3-none-any.whl",
    "README.txt",
]


def test_pins_with_and_without_conditions() -> None:
    assert [(pin.name, pin.version, pin.conditional) for pin in venv.pins(LOCK)] == [
        ("aiohttp", "3.14.5", False),
        ("async-timeout", "5.0.1", True),
        ("uvicorn", "0.30.0", False),
        ("Ruamel.YAML", "0.19.1", False),
    ]


def test_names_are_compared_as_indexes_do() -> None:
    assert venv.missing_wheels(LOCK, WHEELS) == []
    assert venv.missing_wheels(LOCK, WHEELS[1:]) == ["aiohttp==3.14.5"]


def test_the_digest_changes_with_lock_interpreter_and_links() -> None:
    digests = {
        venv.release_digest(b"a", "cpython 3.11.2", {}),
        venv.release_digest(b"b", "cpython 3.11.2", {}),
        venv.release_digest(b"a", "cpython 3.11.7", {}),
        venv.release_digest(b"a", "cpython 3.11.2", {"x": "y"}),
    }
    assert len(digests) == 4


class Bundle:
    """A bundle whose installer makes the directories that the real one makes, and can be told to fail."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / "opt" / "env"
        self.path.parent.mkdir()
        (root / "wheels").mkdir()
        (root / "wheels" / "click-8.1.7-py3-none-any.whl").touch()
        self.lock = root / "lock"
        self.lock.write_text("click==8.1.7 \\\n    --hash=sha256:00\n")
        self.uv = root / "uv"
        self.installs(0)

    def installs(self, code: int) -> None:
        self.uv.write_text(
            f'#!/bin/sh\nif [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; exit 0; fi\nexit {code}\n'
        )
        self.uv.chmod(0o755)

    def run(self, *, check: bool = False, **more: Any) -> dict[str, Any]:
        where = {
            "path": str(self.path),
            "lock": str(self.lock),
            "wheels": str(self.root / "wheels"),
            "uv": str(self.uv),
        }
        return run_module("python_venv", check=check, python=sys.executable, **{**where, **more})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def test_predicted_then_built_then_left_alone(bundle: Bundle) -> None:
    predicted = bundle.run(check=True)
    assert (predicted["changed"], bundle.path.is_symlink()) == (True, False)
    done = bundle.run()
    assert done["release"] == predicted["release"] == str(bundle.path.readlink())
    assert bundle.run()["changed"] is False
    assert bundle.run(check=True)["changed"] is False


def test_a_new_lock_keeps_the_release_before_and_can_go_back(bundle: Bundle) -> None:
    first = bundle.run()["release"]
    bundle.lock.write_text(bundle.lock.read_text() + "# newer\n")
    second = bundle.run()
    assert second["previous"] == first
    back = bundle.run(state="previous")
    assert (back["release"], str(bundle.path.readlink())) == (first, first)
    assert bundle.run()["release"] == second["release"]
    bundle.lock.write_text(bundle.lock.read_text() + "# newest\n")
    bundle.run()
    assert len([entry for entry in bundle.path.parent.iterdir() if not entry.is_symlink()]) == 2


def test_a_failed_installation_leaves_the_running_release(bundle: Bundle) -> None:
    first = bundle.run()["release"]
    bundle.lock.write_text(bundle.lock.read_text() + "# newer\n")
    bundle.installs(2)
    with pytest.raises(FailedModuleError, match="pip install failed"):
        bundle.run()
    assert str(bundle.path.readlink()) == first
    assert bundle.path.is_symlink()


def test_an_unfinished_release_is_built_again(bundle: Bundle) -> None:
    release = Path(bundle.run()["release"])
    (release / "gpu-cutover-release").unlink()
    assert bundle.run()["changed"] is True
    assert (release / "gpu-cutover-release").exists()


def test_a_bundle_without_a_wheel_is_refused_by_name(bundle: Bundle) -> None:
    (bundle.root / "wheels" / "click-8.1.7-py3-none-any.whl").unlink()
    with pytest.raises(FailedModuleError, match=r"has no wheel for click==8\.1\.7"):
        bundle.run()


def test_a_dry_run_before_the_bundle_is_there_predicts(bundle: Bundle) -> None:
    bundle.uv.unlink()
    assert bundle.run(check=True)["changed"] is True
    with pytest.raises(FailedModuleError, match="the bundle lacks"):
        bundle.run()
