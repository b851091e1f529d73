"""The file a router lives by: the route table. (Its log: `record`.) Travels with modules: standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .table import Table, parse_table

Decode = Callable[[bytes], object]


def read_table(path: Path, decode: Decode = json.loads) -> Table:
    """Read and validate a table file. Raises InputError."""
    try:
        data = decode(path.read_bytes())
    except OSError as error:
        raise InputError(str(path), "(file)", f"cannot be read: {error.strerror}", "run the role router") from error
    except ValueError as error:
        raise InputError(str(path), "(file)", f"is not JSON: {error}", "set the states again") from error
    return parse_table(data, str(path))


def kept_copy(path: Path) -> Path:
    """Where the table that an order last wrote is kept beside the one in force, which anybody may spoil by hand."""
    return path.with_name(f".{path.name}.kept")


class TableFile:
    """The table as last read. A changed file is read at the next request; a wrong one leaves the last good in force.

    A process that starts with a wrong one goes on from the kept copy. Raises InputError where there is none.
    """

    def __init__(self, path: Path, decode: Decode = json.loads) -> None:
        self._decode = decode
        self.path, self._name = path, str(path)
        self.problem: str | None = None
        self._seen = self._mark()
        try:
            self._table = read_table(path, decode)
        except InputError as error:
            if not kept_copy(path).exists():
                raise
            self._table, self.problem = read_table(kept_copy(path), decode), str(error)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._name)  # noqa: PTH116 - asked at every request, twice as fast by name
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def get(self) -> Table:
        """The table in force now."""
        mark = self._mark()
        if mark != self._seen:
            self._seen = mark
            try:
                self._table, self.problem = read_table(self.path, self._decode), None
            except InputError as error:
                self.problem = str(error)
        return self._table
