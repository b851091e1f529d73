"""A daemon as one thing: its users, its files, and its units that must run with exactly these files.

What a unit was last started with is remembered as a digest in `STAMPS`, not as a handler that a run owes it: a run
that is cut off after a file was written finds the difference again and finishes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

STAMPS = Path("/var/lib/gpu-cutover/applied")
Action = Literal["start", "restart", "reload"]


@dataclass(frozen=True)
class Wanted:
    """A file as it must be. Owner and group by name; mode as a number."""

    path: Path
    content: bytes
    mode: int
    owner: int | None
    group: int | None


@dataclass(frozen=True)
class Found:
    """A file as it is; `content` is None when there is none."""

    content: bytes | None
    mode: int = 0
    owner: int = -1
    group: int = -1


def find(path: Path) -> Found:
    """Read a file with its mode and owners. A symbolic link counts as no file: replaced, never written through."""
    if path.is_symlink() or not path.exists():
        return Found(None)
    stat = path.stat()
    return Found(path.read_bytes(), stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)


def differs(wanted: Wanted, found: Found) -> bool:
    """Must the file be written? An owner that does not exist yet (dry run) counts as different."""
    return (found.content, found.mode, found.owner, found.group) != (
        wanted.content,
        wanted.mode,
        wanted.owner,
        wanted.group,
    )


def fresh_copy(wanted: Wanted) -> Path:
    """Write the content beside its place, with mode and owners set before a byte of it is there. Returns the copy."""
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    copy = wanted.path.with_name(f".{wanted.path.name}.new")
    copy.unlink(missing_ok=True)
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        os.fchown(
            descriptor, -1 if wanted.owner is None else wanted.owner, -1 if wanted.group is None else wanted.group
        )
        os.fchmod(descriptor, wanted.mode)
        handle.write(wanted.content)
        handle.flush()
        os.fsync(descriptor)
    return copy


def digest(paths: Iterable[str], pending: Mapping[str, bytes]) -> str:
    """Digest of what a unit depends on: the content of files (`pending` first), the targets of symbolic links."""
    total = hashlib.sha256()
    for name in sorted(paths):
        total.update(name.encode() + b"\0" + _content(Path(name), pending.get(name)) + b"\0")
    return total.hexdigest()


def _content(path: Path, pending: bytes | None) -> bytes:
    if pending is not None:
        return pending
    if path.is_symlink():
        return b"link " + os.fsencode(path.readlink())
    if path.is_dir():
        return tree_digest(path).encode()
    return path.read_bytes() if path.is_file() else b""


def tree_digest(directory: Path) -> str:
    """Digest of the names and the content of all files below a directory."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def stamp_path(unit: str) -> Path:
    """Where the digest lives that a unit was last started with."""
    return STAMPS / unit


def action_for(
    active: bool, digest_now: str, digest_applied: str, on_change: Literal["restart", "reload"]
) -> Action | None:
    """What a unit needs so that it runs with what is on disk; None when it already does."""
    if not active:
        return "start"
    return on_change if digest_now != digest_applied else None
