"""A watch's state file: what it is, how far it came, how it ended. Survives the controller and a reboot of the gateway.

Written by the module `tenant_watch` (a new watch) and by the daemon (everything after). Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIRECTORY = Path("/var/lib/gpu-cutover/watch")
RUNNING = "running"
LONGEST = 3  # durations that a watch may take when too few requests come


def path_of(tenant: str, directory: Path = DIRECTORY) -> Path:
    """Where a tenant's watch keeps its state."""
    return directory / f"{tenant}.json"


def fresh(tenant: str, now: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a watch that begins now. `settings`: duration_s, limits, observe_only."""
    return {
        "tenant": tenant,
        "started": now,
        "deadline": now + float(settings["duration_s"]),
        "longest": now + LONGEST * float(settings["duration_s"]),
        "verdict": RUNNING,
        "reason": "began",
        "settings": dict(settings),
        "counts": None,
        "positions": {},
        "ended": None,
        "rollback": None,
    }


def read(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is none (or it is broken, which means the same: begin anew)."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "verdict" in data else None


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write whole: temp, fsync, rename. Group-writable, because root begins a watch and its daemon goes on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as handle:
        json.dump(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.chmod(0o664)
    temporary.replace(path)


def must_begin(state: Mapping[str, Any] | None, changed_at: float | None) -> bool:
    """Is a new watch needed? Yes without one, after a bad end, and when the routes changed after the last one began."""
    if state is None or state["verdict"] not in (RUNNING, "clean"):
        return True
    return changed_at is not None and float(state["started"]) < changed_at


class Tail:
    """New lines of a growing JSON-lines file, from a remembered place on; follows one rotation to `<name>.1`."""

    def __init__(self, path: Path, position: Mapping[str, int] | None) -> None:
        self.path = path
        self.inode = (position or {}).get("inode", 0)
        self.offset = (position or {}).get("offset", 0)

    @property
    def position(self) -> dict[str, int]:
        return {"inode": self.inode, "offset": self.offset}

    def lines(self) -> list[dict[str, Any]]:
        """What was added since the last call, decoded; a line that is still being written waits."""
        found: list[dict[str, Any]] = []
        try:
            inode = self.path.stat().st_ino
        except OSError:
            return found
        if self.inode not in (0, inode):
            found += self._from(self.path.with_name(self.path.name + ".1"), self.inode)
            self.offset = 0
        self.inode = inode
        return found + self._from(self.path, inode)

    def _from(self, path: Path, inode: int) -> list[dict[str, Any]]:
        try:
            with path.open("rb") as handle:
                if os.fstat(handle.fileno()).st_ino != inode:
                    return []
                handle.seek(self.offset)
                data = handle.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [record for record in map(_decoded, whole.splitlines()) if record is not None]


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
