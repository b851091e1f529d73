"""The record of every request: buffered, chained, signed, and whole again after any crash. Format: `chain`.

What is promised. A record that was written stays; a kill at any byte loses at most what was not written yet (0.2 s of
traffic). A full disk never fails a request: records wait (`MAX_WAITING`), further ones are counted and, once there is
room, told in a `gap` line with their number and time span.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import log_files
from .chain import SCHEMA, Link, entry_text, linked, signed_payload
from .log_key import LogKey, load

MAX_LOG_BYTES = 64 * 1024 * 1024
KEEP_FILES = 32  # rotated files beside the growing one: 2 GiB, three million attempts; told in each first line
FLUSH_LINES = 256
MAX_WAITING = 32 * FLUSH_LINES  # about 6 MiB
CHECKPOINT_LINES = 1000
CHECKPOINT_S = 1.0
HEARTBEAT_S = 600.0  # a checkpoint also when nothing happens: silence is signed, too

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
_SYNCER = ThreadPoolExecutor(1, "record-sync")


@dataclass(slots=True)
class _Lost:
    """Records that could not be kept: how many, between which times (epoch s), and why."""

    count: int
    since: float
    until: float
    why: str


@dataclass(slots=True)
class _File:
    """The file as this process left it; anything else means that somebody else wrote, and the end is read again."""

    inode: int
    size: int
    link: Link
    log: str


class RecordLog:
    """One log of one router. `add` costs a JSON encoding; hashing, writing and signing come with `flush`."""

    def __init__(
        self,
        path: Path,
        max_bytes: int = MAX_LOG_BYTES,
        keep: int = KEEP_FILES,
        key: Path | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.max_bytes, self.keep = path, max_bytes, keep
        self.name = path.name.removesuffix(".jsonl")
        self.lost = 0  # records, since this process began
        self.written = 0  # number of the log's last line
        self._clock, self._monotonic = clock, monotonic
        self._key, self._key_problem = _loaded(key)
        self.problem: str | None = self._key_problem
        self._waiting: list[str] = []
        self._lost: _Lost | None = None
        self._file: _File | None = None
        self._writer = ""
        self._unsigned, self._signed_at = 0, monotonic()
        self._sync: Future[None] | None = None

    # --- what the router calls --------------------------------------------------------------------------------

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record. Never waits, never raises: what cannot be kept is counted."""
        if len(self._waiting) >= MAX_WAITING:
            self._lose(1, self.problem or "too many records wait")
            return
        try:
            text = _encode(record)
        except (TypeError, ValueError, RecursionError) as error:
            self._lose(1, f"not JSON: {type(error).__name__}")
            return
        if len(text) < 3 or "entry" in record:
            self._lose(1, "not a record")
            return
        self._waiting.append(text)
        if len(self._waiting) % FLUSH_LINES == 0:
            self.flush()

    def flush(self) -> None:
        """Write what waits, and a checkpoint when one is due. A failure is told in `problem`, nothing is raised."""
        why = self._due()
        if self._waiting or self._lost or why:
            self._try(why, 0.0)

    def close(self) -> None:
        """The last lines, that this writer ends, and a signature over all of it."""
        self._try("closed", log_files.LOCK_PATIENCE_S)
        if self._sync is not None:
            self._sync.result()

    # --- when --------------------------------------------------------------------------------------------------

    def _due(self) -> str | None:
        """Why a checkpoint is due now; None when it is not."""
        if not self._writer:
            return "opened"
        age_s = self._monotonic() - self._signed_at
        unsigned = self._unsigned + len(self._waiting)
        if unsigned >= CHECKPOINT_LINES:
            return "lines"
        if unsigned and age_s >= CHECKPOINT_S:
            return "seconds"
        return "idle" if age_s >= HEARTBEAT_S else None

    def _lose(self, count: int, why: str) -> None:
        now = self._clock()
        lost = self._lost or _Lost(0, now, now, why)
        lost.count, lost.until = lost.count + count, now
        self._lost = lost
        self.lost += count

    # --- writing -----------------------------------------------------------------------------------------------

    def _try(self, why: str | None, patience_s: float) -> None:
        try:
            with log_files.alone(self.path, patience_s) as alone:
                if not alone:
                    return  # another router of this pool writes: at the next flush
                grown = self._write(why)
                if grown > self.max_bytes:
                    log_files.rotate(self.path, self.keep)
                    self._file = None
                    self._write("rotated")
            self.problem = self._key_problem
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}; {len(self._waiting)} records wait, {self.lost} are lost"

    def _write(self, why: str | None) -> int:
        """Everything that waits, in one write. Returns the file's size."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            resumed = self._resumed(descriptor)
            if resumed is None:
                return 0  # it was beyond use and is aside; the next flush begins a new file
            batch = _Batch(resumed.link, self._clock())
            writer = self._entries(batch, resumed, why)
            signed = (
                self._checkpoint(batch, resumed.log, why or resumed.entries[0][0]) if why or resumed.entries else False
            )
            log_files.append(descriptor, batch.data(), resumed.size)
            size = resumed.size + batch.size
            self._file = _File(os.fstat(descriptor).st_ino, size, batch.link, resumed.log)
            if signed:
                self._make_durable(descriptor)
        finally:
            os.close(descriptor)
        self._unsigned = 0 if signed else self._unsigned + len(batch.lines)
        self._waiting.clear()
        self._lost, self._writer, self.written = None, writer, batch.link.n
        return size

    def _resumed(self, descriptor: int) -> log_files.Resumed | None:
        """Where the log ends: as remembered, or as found on disk."""
        stat, known = os.fstat(descriptor), self._file
        if known is not None and (stat.st_ino, stat.st_size) == (known.inode, known.size):
            return log_files.Resumed(known.link, known.log, known.size)
        first = {
            "schema": SCHEMA,
            "name": self.name,
            "key": self._key.public if self._key else None,
            "retention": {"files": self.keep, "bytes": self.max_bytes},
        }
        return log_files.resume(descriptor, self.path, first)

    def _entries(self, batch: _Batch, resumed: log_files.Resumed, why: str | None) -> str:
        """The lines of a batch but its checkpoint. Returns this writer's name; "" once it has closed."""
        for entry, data in resumed.entries:
            batch.entry(entry, data)
        writer = self._writer
        if not writer:
            writer = uuid.uuid4().hex[:8]
            batch.entry("opened", {"writer": writer, "pid": os.getpid()})
        for text in self._waiting:
            batch.add(text)
        if self._lost:
            lost = self._lost
            told = {"lost": lost.count, "since": round(lost.since, 3), "until": round(lost.until, 3), "why": lost.why}
            batch.entry("gap", told)
        if why == "closed":
            batch.entry("closed", {"writer": writer})
            return ""
        return writer

    def _checkpoint(self, batch: _Batch, log: str, why: str) -> bool:
        self._signed_at = self._monotonic()
        if self._key is None:
            return False
        t, covers, head = round(batch.now, 3), batch.link.n, batch.link.h
        signature = self._key.sign(signed_payload(log, self.name, t, covers, head))
        data = {"log": log, "name": self.name, "why": why, "covers": covers, "head": head}
        batch.entry("checkpoint", {**data, "key": self._key.id, "sig": signature})
        return True

    def _make_durable(self, descriptor: int) -> None:
        """To the disk itself, beside the requests: a power cut then loses what came after the last checkpoint."""
        if self._sync is None or self._sync.done():
            self._sync = _SYNCER.submit(_sync_and_close, os.dup(descriptor))


class _Batch:
    """Lines that will be written together."""

    def __init__(self, link: Link, now: float) -> None:
        self.link, self.now = link, now
        self.lines: list[bytes] = []

    def add(self, text: str) -> None:
        line, self.link = linked(self.link, text)
        self.lines.append(line)

    def entry(self, entry: str, data: Mapping[str, Any]) -> None:
        self.add(entry_text(self.now, entry, data))

    def data(self) -> bytes:
        return b"".join(self.lines)

    @property
    def size(self) -> int:
        return sum(map(len, self.lines))


def _loaded(path: Path | None) -> tuple[LogKey | None, str | None]:
    """(key, what is wrong with it). Without a key the log is chained and not signed, and /health says so."""
    if path is None:
        return None, None
    try:
        return load(path), None
    except (OSError, ValueError, ImportError) as error:
        return None, f"{path}: {error}; records are not signed"


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
