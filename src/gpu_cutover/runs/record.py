"""What a run leaves behind: the site's lock and one `run.json` a run. Standard library only; the callback uses it.

The lock is a flock: it is gone with the last process of the run, so a crash leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import Refused

KEPT_RUNS = 60
LOCK_TRIES, LOCK_PAUSE_S = 5, 0.05  # `status` probes the lock for a moment; a start must not stumble over that


def runs_dir(site_dir: Path) -> Path:
    """Where a site's runs are kept."""
    return site_dir / ".state" / "runs"


def make_runs_dir(site_dir: Path) -> Path:
    """The same, created private where missing: what a run logs is nobody else's business."""
    folder = runs_dir(site_dir)
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder


def stamp(epoch_s: float) -> str:
    """ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 text."""
    return datetime.fromisoformat(text).timestamp()


def who() -> str:
    """The person behind the process: who called sudo, else the user."""
    with suppress(KeyError, OSError):
        return os.environ.get("SUDO_USER") or getpass.getuser()
    return f"uid {os.getuid()}"


def new_id(name: str, now: float, pid: int) -> str:
    """Sorts by time; unique as long as one process starts one run a second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{name}-{pid}"


@dataclass(slots=True)
class Result:
    """How a run ended; `verdict` only after a gate.

    `state`: done, failed, refused, unreachable, wrong_input (each failure is about what a person gave), interrupted,
    error.
    """

    state: str
    verdict: str | None = None
    message: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)  # host, role, task, message
    unreachable: dict[str, str] = field(default_factory=dict)  # host: message
    ok: int = 0
    changed: int = 0


@dataclass(slots=True)
class Run:
    """One run. Times are ISO 8601 UTC; `timeline` holds [role and task, seconds since the start], one entry a task."""

    id: str
    name: str
    day: int | None
    check: bool
    by: str
    pid: int
    started: str
    updated: str
    play: str = ""
    role: str = ""
    task: str = ""
    hosts: list[str] = field(default_factory=list)
    tasks_done: int = 0
    timeline: list[list[Any]] = field(default_factory=list)
    finished: str | None = None
    result: Result | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from the start to the end, or to the last sign of life."""
        return epoch(self.finished or self.updated) - epoch(self.started)

    def write(self, folder: Path, *, durable: bool = False) -> None:
        """Write `run.json` whole, by rename. `durable`: survive a power cut too (used once, for the result)."""
        folder.mkdir(mode=0o700, exist_ok=True)
        write_private(folder / "run.json", json.dumps(asdict(self)), durable=durable)


def write_private(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace a file by rename, mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8", opener=_private) as handle:
        handle.write(text)
        handle.flush()
        if durable:
            os.fsync(handle.fileno())
    temporary.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_run(folder: Path) -> Run | None:
    """The record in a run's folder; None where there is none or it cannot be read."""
    try:
        data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        known = {key: data[key] for key in (f.name for f in fields(Run)) if key in data}
        if known.get("result"):
            known["result"] = Result(**known["result"])
        return Run(**known)
    except (OSError, ValueError, TypeError):
        return None


def newest_first(site_dir: Path) -> Iterator[Run]:
    """The site's runs, newest first, read lazily."""
    folder = runs_dir(site_dir)
    names = sorted((e.name for e in os.scandir(folder) if e.is_dir()), reverse=True) if folder.is_dir() else []
    return (run for name in names if (run := read_run(folder / name)))


def prune(site_dir: Path, keep: int = KEPT_RUNS) -> None:
    """Delete the oldest runs' folders beyond `keep`. Evidence is in the ledger; these are logs."""
    folder = runs_dir(site_dir)
    for name in sorted((e.name for e in os.scandir(folder) if e.is_dir()), reverse=True)[keep:]:
        shutil.rmtree(folder / name, ignore_errors=True)


class SiteBusy(Refused):
    """Another run holds the site. `holder` is what its lock file says (may be empty: it started this very moment)."""

    def __init__(self, holder: dict[str, Any]) -> None:
        self.holder = holder
        what = holder.get("title", "a run")
        by, since = holder.get("by", "somebody"), holder.get("since", "just now")
        super().__init__(
            f"{what} is running on this site (started by {by} at {since}, process {holder.get('pid', '?')})"
        )


class SiteLock:
    """The right to change a site, held by this process and the workers it forks."""

    def __init__(self, site_dir: Path, about: dict[str, Any]) -> None:
        """Take the lock or raise SiteBusy. `about` (id, title, by, since, pid) is what others are told."""
        folder = make_runs_dir(site_dir)
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _flock(self._fd, fcntl.LOCK_EX):
            holder = _holder(self._fd)
            os.close(self._fd)
            raise SiteBusy(holder)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(about).encode(), 0)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def running(site_dir: Path) -> dict[str, Any] | None:
    """What the lock's holder says about itself, or None while nobody holds it."""
    try:
        fd = os.open(runs_dir(site_dir) / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _flock(fd, fcntl.LOCK_SH, tries=1) else _holder(fd)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int, tries: int = LOCK_TRIES) -> bool:
    for left in range(tries - 1, -1, -1):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(LOCK_PAUSE_S)
    return False


def _holder(fd: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
