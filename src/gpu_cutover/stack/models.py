"""Model files: what the lock asks for, what lies on the disk, what must be copied, re-read or put aside.

A file that was verified is remembered with size and modification time (ns). While both are the same it is not read
again, unless a full verification asks for it. Nothing is ever repaired in place: an altered file is put aside first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

CHUNK = 8 * 1024 * 1024  # bytes
PART = ".part"
State = Literal["verified", "unverified", "missing", "wrong size"]
_REVISION = re.compile(r"^[0-9a-f]{40}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class ModelFileError(Exception):
    """A file of the lock or of the bundle is not what it must be; the message names the file and the fix."""


@dataclass(frozen=True)
class LockedFile:
    """One file of the lock."""

    model: str
    revision: str
    path: str
    sha256: str
    size: int

    @property
    def place(self) -> PurePosixPath:
        """Below the directory of the models, in the bundle and on the host alike."""
        return PurePosixPath(self.model) / self.revision / self.path


def locked_files(lock: Mapping[str, Any]) -> list[LockedFile]:
    """The files of `{model: {revision, files: {path: {sha256, bytes}}}}`, sorted. Raises ModelFileError."""
    files = []
    for model, entry in sorted(lock.items()):
        try:
            revision, listed = str(entry["revision"]), entry["files"].items()
            for path, facts in sorted(listed):
                files.append(LockedFile(model, revision, path, str(facts["sha256"]), int(facts["bytes"])))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ModelFileError(
                f"models.lock.json: {model}: not revision, files, sha256 and bytes: {error!r}"
            ) from error
        if not listed or entry.get("locked") is False:
            raise ModelFileError(f"models.lock.json: {model}: no file is locked, so none can be verified")
    for file in files:
        _refuse_unsafe(file)
    return files


def _refuse_unsafe(file: LockedFile) -> None:
    parts = PurePosixPath(file.path).parts
    if not parts or ".." in parts or file.path.startswith("/") or "/" in file.model or file.model.startswith("."):
        raise ModelFileError(f"models.lock.json: {file.model}: {file.path}: not a path below the model")
    if not _REVISION.match(file.revision) or not _SHA256.match(file.sha256):
        raise ModelFileError(f"models.lock.json: {file.model}: {file.path}: revision or sha256 is not hexadecimal")


def stamp_of(stat: os.stat_result, sha256: str) -> dict[str, Any]:
    """What is remembered of a verified file."""
    return {"sha256": sha256, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def state_of(file: LockedFile, stat: os.stat_result | None, stamp: Mapping[str, Any] | None) -> State:
    """Compare a file on the disk (its `stat`, None where there is none) with the lock and with what was remembered."""
    if stat is None:
        return "missing"
    if stat.st_size != file.size:
        return "wrong size"
    return "verified" if stamp == stamp_of(stat, file.sha256) else "unverified"


def sha256_of(path: Path, told: Callable[[int], None] = lambda _: None) -> str:
    """Digest of a file's bytes, read past no cache and with no memory of what it was. Raises OSError."""
    total = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            total.update(chunk)
            told(len(chunk))
    return total.hexdigest()


def copy_verified(source: Path, target: Path, file: LockedFile) -> os.stat_result:
    """Copy while hashing; the file gets its name only when every byte is right. Raises ModelFileError, OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    total, size = hashlib.sha256(), 0
    with source.open("rb") as reader, part.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            total.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    if size != file.size or total.hexdigest() != file.sha256:
        part.unlink()
        raise ModelFileError(
            f"{source}: {size} bytes with sha256 {total.hexdigest()}, but models.lock.json says {file.size} bytes with "
            f"{file.sha256}. Fix: build the bundle again from the pinned revision."
        )
    part.chmod(0o444)
    part.replace(target)
    return target.stat()
