"""Wheels: those of a lock, through pip's own configuration; our own, from the checkout; and pure ones written
directly.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError

# The targets' platform: Debian 12's glibc and the wheels' tags that it accepts, newest first.
PYTHON_VERSION = "3.11.2"
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)
_TIMEOUT_S = 1800
_EPOCH = "1735689600"  # 2025-01-01: the same sources give the same bytes


def digest_of_tree(root: Path, suffixes: Sequence[str] = ()) -> str:
    """Digest of the names and bytes below `root`; `suffixes` narrows it. Caches and bytecode never count."""
    hasher = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts or (suffixes and path.suffix not in suffixes):
            continue
        hasher.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def _run(argv: Sequence[str], what: str, env: Mapping[str, str] | None = None) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, env=env, check=False)
    if result.returncode:
        tail = " | ".join((result.stderr or result.stdout).strip().splitlines()[-3:])
        raise InputError(
            what, argv[0], f"failed: {tail}", "check the network or the configured package index, then run it again"
        )


def downloaded(lock: Path, cache: Path) -> Path:
    """The wheels of a lock, each checked against its hash by pip; kept in the cache under the lock's digest."""
    directory = cache / "wheels" / f"{lock.stem}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".download-") as temporary:
        tags = [argument for platform in PLATFORMS for argument in ("--platform", platform)]
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--implementation",
                "cp",
                "--python-version",
                PYTHON_VERSION,
                *tags,
                "--dest",
                f"{temporary}/wheels",
                "--requirement",
                str(lock),
            ],
            str(lock),
        )
        _publish(Path(temporary) / "wheels", directory)
    return directory


def _publish(made: Path, place: Path) -> None:
    """Rename into place; when another build was first, its result is as good as ours."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def own_wheel(checkout: Path, cache: Path) -> Path:
    """This project's wheel, built by its declared build backend from a clean copy of the sources."""
    sources = checkout / "src" / "gpu_cutover"
    key = hashlib.sha256(digest_of_tree(sources).encode() + (checkout / "pyproject.toml").read_bytes()).hexdigest()[:16]
    directory = cache / "wheels" / f"own-{key}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".own-") as temporary:
            tree = Path(temporary) / "tree"
            shutil.copytree(sources, tree / "src" / "gpu_cutover", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md"):
                shutil.copy(checkout / name, tree / name)
            readable(tree)
            environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
            _run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "wheel",
                    "--quiet",
                    "--no-deps",
                    "--wheel-dir",
                    f"{temporary}/out",
                    str(tree),
                ],
                "pyproject.toml",
                environment,
            )
            _publish(Path(temporary) / "out", directory)
    return next(directory.glob("gpu_cutover-*.whl"))


def readable(root: Path) -> None:
    """Everybody may read the bundle, whatever the caller's umask: daemons run as users of their own."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)


def uv_binary(wheels: Path, destination: Path) -> None:
    """Take the one static binary out of uv's wheel."""
    with zipfile.ZipFile(next(wheels.glob("uv-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".data/scripts/uv"))
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(wheel.read(name))
    destination.chmod(0o755)


def write_pure_wheel(
    directory: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    requires: Sequence[str],
    scripts: Mapping[str, str],
) -> Path:
    """Write a pure Python wheel (PEP 427) whose bytes depend on its content alone; return its path."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {line}\n" for line in requires
    )
    entries = "[console_scripts]\n" + "".join(f"{command} = {target}\n" for command, target in scripts.items())
    content = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: gpu-cutover\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entries.encode(),
    }
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, data in sorted(content.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((path, f"sha256={digest}", len(data)))
    rows.writerow((f"{info}/RECORD", "", ""))
    content[f"{info}/RECORD"] = record.getvalue().encode()
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(content.items()):
            member = zipfile.ZipInfo(path, date_time=(2025, 1, 1, 0, 0, 0))
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return wheel
