"""Model files: only the locked bytes get a name, an altered file is put aside, an interrupted copy is resumed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from module_lab import FailedModuleError, run_module

from gpu_cutover.stack import models

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Tree:
    """A bundle, a host's disk and the lock that both must obey."""

    def __init__(self, root: Path) -> None:
        self.source, self.target = root / "bundle", root / "host"
        self.files = {"whisper": {"config.json": b"{}", "weights/model.bin": os.urandom(100_000)}, "bge": {"a": b"abc"}}
        self.lock: dict[str, Any] = {}
        for model, files in self.files.items():
            for path, content in files.items():
                place = self.source / model / REVISION / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            self.lock[model] = {
                "revision": REVISION,
                "files": {p: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for p, c in files.items()},
            }

    def run(self, *, check: bool = False, **more: Any) -> dict[str, Any]:
        return run_module(
            "model_files", check=check, lock=self.lock, source=str(self.source), target=str(self.target), **more
        )

    def on_host(self, place: str) -> Path:
        return self.target / place.replace("/", f"/{REVISION}/", 1)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_fresh_host_is_predicted_then_filled_then_left_alone(tree: Tree) -> None:
    predicted = tree.run(check=True)
    assert (predicted["changed"], len(predicted["copied"]), tree.target.exists()) == (True, 3, False)
    done = tree.run()
    assert sorted(done["copied"]) == sorted(predicted["copied"])
    assert tree.on_host("whisper/weights/model.bin").read_bytes() == tree.files["whisper"]["weights/model.bin"]
    assert done["reading"]["models"]["whisper"] == {"revision": REVISION, "files": 2, "bytes": 100_002, "verified": 2}
    again = tree.run()
    assert (again["changed"], again["reading"]["bytes_read"]) == (False, 0)


def test_a_full_verification_reads_every_byte_again(tree: Tree) -> None:
    tree.run()
    again = tree.run(verify="full")
    assert (again["changed"], again["reading"]["bytes_read"]) == (False, 100_005)


def test_a_silently_altered_file_is_found_put_aside_and_restored(tree: Tree) -> None:
    tree.run()
    path = tree.on_host("whisper/weights/model.bin")
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[5000] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tree.run()["changed"] is False, "size and time are the same: only a full verification can see it"
    found = tree.run(verify="full")
    assert (found["quarantined"], found["altered_models"]) == ([str(path)], ["whisper"])
    assert path.read_bytes() == tree.files["whisper"]["weights/model.bin"]
    aside = [entry for entry in (tree.target / ".quarantine").rglob("*") if entry.is_file()]
    assert [entry.read_bytes() for entry in aside] == [bytes(content)]
    assert tree.run(verify="full")["reading"]["quarantined"] == []


@pytest.mark.parametrize("fault", ["shorter", "symlink", "gone", "stamps lost"])
def test_every_other_fault_on_the_host_ends_in_the_locked_bytes(tree: Tree, fault: str) -> None:
    tree.run()
    path = tree.on_host("bge/a")
    if fault == "shorter":
        path.chmod(0o644)
        path.write_bytes(b"ab")
    elif fault == "symlink":
        path.unlink()
        path.symlink_to("/etc/hostname")
    elif fault == "gone":
        path.unlink()
    else:
        (tree.target / ".verified.json").write_text("{")
    changed = tree.run()["changed"]
    assert changed is (fault != "stamps lost")
    assert (path.read_bytes(), path.is_symlink()) == (b"abc", False)


def test_a_file_missing_from_the_bundle_is_named(tree: Tree) -> None:
    (tree.source / "bge" / REVISION / "a").unlink()
    with pytest.raises(FailedModuleError, match=r"bge/0123.*/a: the bundle lacks this file. Fix"):
        tree.run()


def test_an_altered_file_in_the_bundle_never_gets_its_name(tree: Tree) -> None:
    (tree.source / "bge" / REVISION / "a").write_bytes(b"abd")
    with pytest.raises(FailedModuleError, match=r"bge/.*sha256 .* but models.lock.json says 3 bytes"):
        tree.run()
    assert list((tree.target / "bge").rglob("a*")) == []


def test_an_interrupted_copy_is_resumed_file_by_file(tree: Tree) -> None:
    place = tree.source / "whisper" / REVISION / "weights" / "model.bin"
    content = place.read_bytes()
    place.unlink()
    with pytest.raises(FailedModuleError):
        tree.run(threads=1)
    place.write_bytes(content)
    part = tree.on_host("whisper/weights/model.bin.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"half")
    resumed = tree.run(threads=1)
    assert resumed["copied"] == [str(tree.on_host("whisper/weights/model.bin"))]
    assert not part.exists()


def test_strays_are_told_and_left(tree: Tree) -> None:
    tree.run()
    stray = tree.on_host("bge/extra.txt")
    stray.write_text("?")
    assert tree.run()["reading"]["strays"] == [str(stray)]
    assert stray.exists()


def test_a_model_that_the_lock_does_not_know_is_refused(tree: Tree) -> None:
    with pytest.raises(FailedModuleError, match=r"models\.lock\.json has no llava"):
        tree.run(models=["llava"])


@pytest.mark.parametrize(
    "lock",
    [
        {"m": {"revision": REVISION, "files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}},
        {"m": {"revision": REVISION, "files": {"/etc/x": {"sha256": "0" * 64, "bytes": 1}}}},
        {"../m": {"revision": REVISION, "files": {"x": {"sha256": "0" * 64, "bytes": 1}}}},
        {"m": {"revision": "main", "files": {"x": {"sha256": "0" * 64, "bytes": 1}}}},
        {"m": {"revision": REVISION, "files": {"x": {"sha256": "short", "bytes": 1}}}},
        {"m": {"revision": REVISION, "files": {"x": {"bytes": 1}}}},
        {"m": {"files": {}}},
        {"m": []},
    ],
    ids=lambda lock: json.dumps(lock)[:60],
)
def test_a_lock_that_cannot_be_trusted_is_refused_by_name(lock: dict[str, Any]) -> None:
    with pytest.raises(models.ModelFileError, match=r"models\.lock\.json"):
        models.locked_files(lock)
