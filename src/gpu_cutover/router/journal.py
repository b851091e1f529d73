"""The journal of route changes on a gateway: what was about to happen, and how it ended. Standard library only.

`/var/lib/gpu-cutover/changes.jsonl`: a line `begun` reaches the disk before a table is touched, a line `ended` after it
was read back. Both carry the change's id. Only the last line can be a `begun` without its end: whoever holds the lock
next explains it first (`orders`). A line `recorded` names changes that the controller says are in the ledger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

JOURNAL = Path("/var/lib/gpu-cutover/changes.jsonl")
MAX_BYTES = 8 * 1024 * 1024  # then it becomes `<name>.1`; some ten thousand changes
LEDGER_KINDS = ("cutover", "rollback")
Line = dict[str, Any]


def belongs_in_ledger(entry: Mapping[str, Any]) -> bool:
    """Is an ended change one that the ledger must tell? Drills and mirrors are told by whoever ordered them."""
    return entry.get("order", {}).get("record") in LEDGER_KINDS and entry.get("outcome") != "not done"


class Journal:
    """One gateway's journal. Whoever writes holds the lock of the tables."""

    def __init__(self, path: Path, group: int | None = None) -> None:
        """`group` may write it too: the watch takes tenants back without being root."""
        self.path, self._group = path, group

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line and wait for the disk. Raises OSError."""
        fresh = not self.path.exists()
        if fresh:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o664)
        try:
            torn = b"" if _ends_whole(descriptor) else b"\n"  # a crash cut the last line off
            os.write(descriptor, torn + json.dumps(line, separators=(",", ":"), sort_keys=True).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            self._share()

    def _share(self) -> None:
        with suppress(PermissionError):
            self.path.chmod(0o664)
            os.chown(self.path, -1, -1 if self._group is None else self._group)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def unfinished(self) -> Line | None:
        """The change that was begun and never ended, if the last one was."""
        lines = _lines(self.path)
        return lines[-1] if lines and lines[-1].get("phase") == "begun" else None

    def rotate(self) -> None:
        """Put a full journal aside. Only between changes."""
        with suppress(OSError):  # the watch may only write the file itself
            if self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_name(self.path.name + ".1"))

    def changes(self, after: str | None = None) -> list[Line]:
        """Every ended change, oldest first, as one entry: what `begun` said, how it ended, `began` and `t` in epoch s.

        `after`: only those after the change of that id; all where the journal does not know it.
        """
        ended = _ended(self._all())
        ids = [entry["id"] for entry in ended]
        return ended[ids.index(after) + 1 :] if after in ids else ended

    def unrecorded(self) -> list[Line]:
        """Ended changes that the ledger must tell, and that nobody said it does; oldest first."""
        lines = self._all()
        known = {str(id) for line in lines if line.get("phase") == "recorded" for id in line.get("ids", ())}
        return [entry for entry in _ended(lines) if belongs_in_ledger(entry) and entry["id"] not in known]

    def _all(self) -> list[Line]:
        return _lines(self.path.with_name(self.path.name + ".1")) + _lines(self.path)


def _ended(lines: Iterable[Line]) -> list[Line]:
    begun: dict[str, Line] = {}
    ended: list[Line] = []
    for line in lines:
        if line.get("phase") == "begun":
            begun[str(line.get("id"))] = line
        elif line.get("phase") == "ended":
            start = begun.pop(str(line.get("id")), {})
            ended.append({**start, **line, "began": start.get("t", line.get("t"))})
    return ended


def _ends_whole(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _lines(path: Path) -> list[Line]:
    """The whole lines of a journal; [] where there is none. A torn line is no line."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    decoded = (_decoded(line) for line in content.split(b"\n") if line)
    return [line for line in decoded if line is not None]


def _decoded(line: bytes) -> Line | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
