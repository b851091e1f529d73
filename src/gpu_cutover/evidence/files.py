"""Whole files or none: write to a temporary file, fsync, rename, fsync the folder; and the ledger's lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Refused

TEMPORARY_SUFFIX = ".tmp"


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `content`: a reader, or a crash, sees the old file or the new one, never a part.

    Raises OSError as the system reports it.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask and an older leftover do not decide who may read it
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    _fsync_folder(path.parent)


def is_leftover(path: Path) -> bool:
    """True for a temporary file that a crash left behind."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)


@contextmanager
def locked(
    path: Path,
    patience_s: float = 15.0,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock file `path`; it is gone with the process. Raises Refused after `patience_s` seconds of waiting."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("ab") as stream:
        deadline = now() + patience_s
        while not _try_lock(stream.fileno()):
            if now() >= deadline:
                raise Refused(
                    f"another process has held the ledger's lock {path} for {patience_s:g} s; wait for it to end"
                )
            sleep(0.05)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
