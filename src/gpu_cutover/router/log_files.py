"""A record log's files: where the log ends, what to do with a torn end, how a full file makes room. Standard library.

`<log>.jsonl` grows; `<log>.jsonl.1` is the file before it, `.2` the one before that. Names move, lines never do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .chain import START, Link, before_file, claimed, entry_of, follows

TAIL_BYTES = 1024 * 1024  # a torn end is shorter than one batch; what is damaged further back is for `audit verify`
LOCK_PATIENCE_S = 2.0


@dataclass(slots=True)
class Resumed:
    """Where a log ends, and what its next lines must say first."""

    link: Link
    log: str
    size: int
    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _End:
    link: Link
    offset: int
    checkpoint: Mapping[str, Any] | None


@contextmanager
def alone(path: Path, patience_s: float = 0.0) -> Iterator[bool]:
    """Hold the log's lock, which is gone with the process: an old router that drains may write beside the new one.

    Yields False when another process still writes after `patience_s` seconds. Raises OSError.
    """
    lock = path.with_name(f".{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        deadline = time.monotonic() + patience_s
        held = _locked(descriptor)
        while not held and time.monotonic() < deadline:
            time.sleep(0.01)
            held = _locked(descriptor)
        yield held
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def resume(descriptor: int, path: Path, first: Mapping[str, Any]) -> Resumed | None:
    """Find the end of the open log, put a torn end aside, say how to go on. `first`: what a file's first line tells.

    None: the file is beyond use and was put aside; open again. Raises OSError.
    """
    size = os.fstat(descriptor).st_size
    end = _last_good(descriptor, size)
    if end is None and size > TAIL_BYTES:
        path.rename(path.with_name(f"{path.name}.damaged-{size}"))
        return None
    good = end.offset if end else 0
    link = end.link if end else START
    if good < size:
        _put_aside(descriptor, path, good, size, link.n + 1)
    resumed = _known(descriptor, link, good) if end else _next_file(path, first)
    aside = _aside(path, link.n + 1)
    if aside.exists():  # also when the process before was killed between putting aside and saying so
        content = aside.read_bytes()
        told = {"file": aside.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        resumed.entries.append(("recovered", told))
    return resumed


def append(descriptor: int, data: bytes, size: int) -> None:
    """Write all of it behind `size`, or nothing: what a full disk took in part is cut off again. Raises OSError."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def rotate(path: Path, keep: int) -> None:
    """`log` becomes `log.1`, `.1` becomes `.2`, … ; `keep` such files stay, the oldest goes. Raises OSError."""
    numbered = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
    free = next((index for index, one in enumerate(numbered) if index and not one.exists()), keep)
    for index in range(free, 0, -1):
        numbered[index - 1].rename(numbered[index])


def rotated(path: Path) -> list[Path]:
    """The files before `path`, newest first, as far as they are there."""
    found = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix[1:].isdecimal()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))


def last_checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest checkpoint line in a file's tail; None without one. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lines, _ = _tail(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    return _newest_checkpoint([line for line, _ in lines])


def _newest_checkpoint(lines: list[bytes]) -> dict[str, Any] | None:
    for line in reversed(lines):
        entry = entry_of(line)
        if entry is not None and entry["entry"] == "checkpoint":
            return entry
    return None


def _tail(descriptor: int, size: int) -> tuple[list[tuple[bytes, int]], bool]:
    """The whole lines of the tail, each with the offset behind it; and whether the tail is all of the file."""
    start = max(0, size - TAIL_BYTES)
    data = os.pread(descriptor, size - start, start)
    lines, offset = [], start
    for line in data.split(b"\n")[:-1]:
        offset += len(line) + 1
        lines.append((line, offset))
    return (lines, True) if start == 0 else (lines[1:], False)


def _last_good(descriptor: int, size: int) -> _End | None:
    """The last line that follows from the one before it."""
    lines, whole = _tail(descriptor, size)
    for index in range(len(lines) - 1, -1, -1):
        line, offset = lines[index]
        before = claimed(lines[index - 1][0]) if index else before_file(line) if whole else None
        if before is not None and follows(line, before):
            checkpoint = _newest_checkpoint([one for one, _ in lines[: index + 1]])
            return _End(Link(before.n + 1, line[-66:-2].decode()), offset, checkpoint)
    return None


def _known(descriptor: int, link: Link, size: int) -> Resumed:
    """The log that the file's first line names."""
    first = entry_of(os.pread(descriptor, 4096, 0).partition(b"\n")[0]) or {}
    return Resumed(link, str(first.get("log")), size)


def _next_file(path: Path, first: Mapping[str, Any]) -> Resumed:
    """An empty file continues the one before it; where there is none (or a useless one), a new log begins."""
    before = path.with_name(f"{path.name}.1")
    if before.exists():
        descriptor = os.open(before, os.O_RDONLY)
        try:
            end = _last_good(descriptor, os.fstat(descriptor).st_size)
            known = _known(descriptor, end.link, 0) if end else None
        finally:
            os.close(descriptor)
        if end and known:
            told = {"log": known.log, **first, "previous": end.link.h, "checkpoint": end.checkpoint}
            known.entries.append(("continued", told))
            return known
    log = uuid.uuid4().hex[:16]
    return Resumed(START, log, 0, [("begin", {"log": log, **first})])


def _aside(path: Path, n: int) -> Path:
    return path.with_name(f"{path.name}.torn-{n}")


def _put_aside(descriptor: int, path: Path, good: int, size: int, n: int) -> None:
    """Keep the torn end under a name of its own, then cut it off."""
    fresh = path.with_name(f".{path.name}.torn.new")
    with fresh.open("wb") as handle:
        handle.write(os.pread(descriptor, size - good, good))
        handle.flush()
        os.fsync(handle.fileno())
    fresh.rename(_aside(path, n))
    os.ftruncate(descriptor, good)
