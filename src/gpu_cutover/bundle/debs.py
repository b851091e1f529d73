"""Debian packages: an exact closure over what the hosts' image already has, and a flat repository of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError

# What the roles install from the distribution. The image's own packages are subtracted by apt.
PACKAGES = (
    "ca-certificates", "chrony", "ethtool", "haproxy", "jq", "keepalived", "libpython3.11", "lldpd", "netplan.io",
    "nftables", "prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "python3-yaml", "zstd",
)  # fmt: skip
_TIMEOUT_S = 1800


def closure(status: Path, cache: Path, packages: Sequence[str] = PACKAGES, suite_options: Sequence[str] = ()) -> Path:
    """Directory with every .deb that `packages` need beyond those in `status` (an image's dpkg status file).

    Raises InputError when apt cannot resolve or download; `suite_options` are further `-o` options for apt-get.
    """
    key = hashlib.sha256(json.dumps([sorted(packages), list(suite_options)]).encode() + _installed(status)).hexdigest()[
        :16
    ]
    directory = cache / "debs" / key
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".download-") as temporary:
        archives = Path(temporary) / "archives"
        (archives / "partial").mkdir(parents=True)
        Path(temporary).chmod(0o755)  # apt's own unprivileged user reads and writes here
        _download([*_apt(archives, status, suite_options), "install", *packages], suite_options)
        (archives / "partial").rmdir()
        (archives / "lock").unlink(missing_ok=True)
        archives.rename(directory)
    return directory


def _installed(status: Path) -> bytes:
    """Names and versions in a dpkg status file: the part that decides a closure."""
    lines = status.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith(("Package:", "Version:", "Status:"))).encode()


def _apt(archives: Path, status: Path, suite_options: Sequence[str]) -> list[str]:
    return [
        "apt-get", "--quiet", "--quiet", "--yes", "--download-only", "--no-install-recommends",
        "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={archives}/",
        "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", *suite_options,
    ]  # fmt: skip


def _download(argv: Sequence[str], suite_options: Sequence[str]) -> None:
    result = _command(argv)
    if result.returncode:  # stale or absent lists are the usual reason: refresh them once, then say what apt says
        _command(["apt-get", "--quiet", "--quiet", *suite_options, "update"])
        result = _command(argv)
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-3:])
        raise InputError(
            "the distribution's packages", "apt-get", f"failed: {tail}", "check apt's sources, then run it again"
        )


def _command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=False)


def build_deb(
    directory: Path, control: Mapping[str, str], files: Mapping[str, tuple[bytes, int]], links: Mapping[str, str]
) -> Path:
    """Build one .deb from memory; equal input gives equal bytes. `files`: absolute path → (content, mode)."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        tree.chmod(0o755)
        for path, (content, mode) in files.items():
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(mode)
        for path, points_to in links.items():
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(points_to)
        (tree / "DEBIAN").mkdir()
        fields = "".join(f"{name}: {value}\n" for name, value in control.items())
        (tree / "DEBIAN" / "control").write_text(fields)
        for directory_made in filter(Path.is_dir, tree.rglob("*")):
            directory_made.chmod(0o755)
        (tree / "DEBIAN" / "control").chmod(0o644)
        deb = directory / f"{control['Package']}_{control['Version'].replace(':', '%3a')}_{control['Architecture']}.deb"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1735689600"}
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(deb)],
            check=True, capture_output=True, timeout=60, env=environment,
        )  # fmt: skip
    return deb


def write_index(repository: Path) -> None:
    """Write `Packages` for a flat repository, as dpkg-scanpackages does."""
    stanzas = []
    for deb in sorted(repository.glob("*.deb")):
        fields = subprocess.run(
            ["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        stanzas.append(f"{fields.rstrip()}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    (repository / "Packages").write_text("\n".join(stanzas))
