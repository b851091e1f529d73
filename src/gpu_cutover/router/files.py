"""The two files a router lives with: the route table it reads and the record log it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .table import Table, parse_table

MAX_LOG_BYTES = 256 * 1024 * 1024  # two files of this size per log at most; no outside rotation needed
FLUSH_LINES = 256


def read_table(path: Path) -> Table:
    """Read and validate a table file. Raises InputError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(str(path), "(file)", f"cannot be read: {error.strerror}", "run the role router") from error
    except ValueError as error:
        raise InputError(str(path), "(file)", f"is not JSON: {error}", "set the states again") from error
    return parse_table(data, str(path))


class TableFile:
    """The table as last read. A changed file is read at the next request; a wrong one leaves the last good in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._seen = self._mark()
        self._table = read_table(path)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def get(self) -> Table:
        """The table in force now."""
        mark = self._mark()
        if mark != self._seen:
            self._seen = mark
            try:
                self._table, self.problem = read_table(self.path), None
            except InputError as error:
                self.problem = str(error)
        return self._table


class RecordLog:
    """JSON lines, buffered; one write per flush. Bounded: a full file becomes `<name>.1`, the older one goes."""

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.problem: str | None = None
        self._lines: list[bytes] = []

    def add(self, record: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered. A full disk is told in /health; it never fails a request."""
        if not self._lines:
            return
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                os.write(descriptor, b"".join(self._lines))
                full = os.fstat(descriptor).st_size > self.max_bytes
            finally:
                os.close(descriptor)
            self._lines.clear()
            if full:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            self.problem = None
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
            del self._lines[: -8 * FLUSH_LINES]
