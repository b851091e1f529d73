"""Wheels and .debs written here are deterministic, installable and readable; locks are complete and name no address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_cutover.bundle import debs, wheels
from gpu_cutover.bundle.build import Parts, build

CHECKOUT = Path(__file__).resolve().parents[2]
LOCKS = ["agent", "litellm", "triton", "vllm", "vllm-twin", "uv"]


def a_wheel(directory: Path) -> Path:
    directory.mkdir(parents=True)
    files = {"demo/__init__.py": b"def main():\n    print('hello')\n"}
    return wheels.write_pure_wheel(directory, "demo", "1.0+x", files, [], {"demo": "demo:main"})


def test_a_wheel_depends_on_its_content_alone(tmp_path: Path) -> None:
    assert a_wheel(tmp_path / "one").read_bytes() == a_wheel(tmp_path / "two").read_bytes()


def test_pip_installs_the_wheel_and_its_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(tmp_path / "t")]
    subprocess.run([*command, str(a_wheel(tmp_path / "w"))], check=True, timeout=60)
    result = subprocess.run(
        [tmp_path / "t/bin/demo"], env={"PYTHONPATH": str(tmp_path / "t")}, capture_output=True, text=True, check=True
    )
    assert result.stdout == "hello\n"


def a_deb(directory: Path) -> Path:
    directory.mkdir(parents=True)
    control = {"Package": "demo", "Version": "1:2-3", "Architecture": "amd64", "Maintainer": "x <x@y.invalid>"}
    files = {"/usr/bin/demo": (b"#!/bin/sh\n", 0o755)}
    return debs.build_deb(directory, {**control, "Description": "demo"}, files, {"/usr/lib/demo.so": "demo.so.1"})


def test_a_deb_depends_on_its_content_alone_and_is_indexed(tmp_path: Path) -> None:
    old_mask = os.umask(0o077)
    try:
        one = a_deb(tmp_path / "one")
    finally:
        os.umask(old_mask)
    assert one.read_bytes() == a_deb(tmp_path / "two").read_bytes()
    listing = subprocess.run(["dpkg-deb", "-c", one], capture_output=True, text=True, check=True).stdout
    assert re.search(r"-rwxr-xr-x root/root .* \./usr/bin/demo", listing)
    assert re.search(r"drwxr-xr-x root/root .* \./usr/", listing)
    debs.write_index(one.parent)
    index = (one.parent / "Packages").read_text()
    assert "Package: demo\nVersion: 1:2-3\n" in index
    assert f"Filename: ./{one.name}\n" in index


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_of_a_lock_has_a_hash_and_no_lock_names_an_address(name: str) -> None:
    text = (CHECKOUT / "requirements" / f"{name}.lock").read_text()
    assert "://" not in text
    pins = re.findall(r"^\S+==.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)


def test_the_litellm_lock_fits_the_targets_python_and_has_no_proprietary_package() -> None:
    text = (CHECKOUT / "requirements" / "litellm.lock").read_text()
    assert "litellm-enterprise" not in text
    assert re.search(r"^async-timeout==", text, re.MULTILINE)  # redis needs it below Python 3.11.3; Debian has 3.11.2


def test_a_bundle_is_found_again_and_readable_by_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepared(lock: Path, cache: Path) -> Path:
        place = cache / "wheels" / lock.stem
        if not place.exists():
            a_wheel(place)
        return place

    def unpacked(_: Path, target: Path) -> None:
        target.parent.mkdir()
        target.touch()

    monkeypatch.setattr(wheels, "downloaded", prepared)
    monkeypatch.setattr(
        wheels, "own_wheel", lambda checkout, cache: prepared(Path("own"), cache) / "demo-1.0+x-py3-none-any.whl"
    )
    monkeypatch.setattr(wheels, "uv_binary", unpacked)
    lock = tmp_path / "agent.lock"
    lock.write_text("demo==1.0\n")
    extra = wheels.write_pure_wheel(tmp_path, "vllm", "1+standin", {}, [], {})
    parts = Parts(locks={"agent": lock}, extra_wheels={"agent": (extra,)})
    first, again = build(CHECKOUT, tmp_path / "cache", parts), build(CHECKOUT, tmp_path / "cache", parts)
    assert (first.built, again.built) == (True, False)
    assert (first.path, first.digest) == (again.path, again.digest)
    assert "vllm==1+standin \\\n    --hash=sha256:" in (first.path / "locks/agent.lock").read_text()
    assert all(path.stat().st_mode & 0o004 for path in first.path.rglob("*"))
