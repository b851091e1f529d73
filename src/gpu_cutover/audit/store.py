"""Copies of the gateways' logs: `.state/audit/<host>/<log name>/<log id>/<first line>.jsonl`. Nothing is ever deleted.

A copy grows with its original. An original that no longer begins with its copy was changed after it was collected:
both are kept, and `audit verify` says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..router.chain import before_file, entry_of

FOLDER = Path(".state/audit")
INCOMING = "incoming"
ASIDE = "aside"  # torn ends and what has no place in a log
CHUNK = 1024 * 1024
_COPY = re.compile(r"\d{12}\.jsonl")


@dataclass(frozen=True, slots=True, order=True)
class LogName:
    """One log: a gateway's host name, the log's name (`requests-hybrid`), the id it drew when it began."""

    host: str
    name: str
    log: str

    def __str__(self) -> str:
        return f"{self.host} {self.name} ({self.log})"


def logs(site_dir: Path) -> list[LogName]:
    """Every log of which there is a copy."""
    root = site_dir / FOLDER
    found = [path.relative_to(root).parts for path in root.glob("*/*/*") if path.is_dir()]
    return sorted(LogName(*parts) for parts in found if parts[0] != INCOMING and parts[2] != ASIDE)


def folder_of(site_dir: Path, log: LogName) -> Path:
    """Where a log's copies are."""
    return site_dir / FOLDER / log.host / log.name / log.log


def copies(site_dir: Path, log: LogName) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(path for path in folder_of(site_dir, log).glob("*.jsonl") if _COPY.fullmatch(path.name))


def conflicts(site_dir: Path, log: LogName) -> list[Path]:
    """Copies that contradict an earlier one."""
    return sorted(folder_of(site_dir, log).glob("*.conflict-*"))


def aside(site_dir: Path, host: str, name: str) -> list[Path]:
    """What has no place in a log: torn ends that a gateway set aside, files without a first line."""
    return sorted((site_dir / FOLDER / host / name / ASIDE).glob("*"))


def digests(site_dir: Path) -> list[str]:
    """sha256 of every copy: what need not be fetched again."""
    files = [path for path in (site_dir / FOLDER).glob("*/*/*/*") if path.is_file()]
    return sorted(_digest(path) for path in files)


def take_in(site_dir: Path, host: str, name: str, fetched: Path) -> str | None:
    """Move a fetched file to its place. Returns what is wrong with it, None when nothing is."""
    _drop_unfinished_line(fetched)
    with fetched.open("rb") as handle:
        first = handle.readline().rstrip(b"\n")
    before, entry = before_file(first), entry_of(first)
    if before is None or entry is None or not re.fullmatch(r"[0-9a-f]{16}", str(entry.get("log"))):
        return _put_aside(site_dir, host, name, fetched)
    folder = folder_of(site_dir, LogName(host, name, str(entry["log"])))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = folder / f"{before.n + 1:012d}.jsonl"
    if place.exists() and not _begins_with(fetched, place):
        conflict = place.with_name(f"{place.name}.conflict-{_digest(fetched)[:12]}")
        fetched.replace(conflict)
        return f"{host} {fetched.name}: no longer says what it said when it was last collected; kept as {conflict.name}"
    fetched.replace(place)
    return None


def _put_aside(site_dir: Path, host: str, name: str, fetched: Path) -> str | None:
    folder = site_dir / FOLDER / host / name / ASIDE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    declared = re.search(r"\.(torn|damaged)-\d+$", fetched.name) is not None
    name_aside = fetched.name if declared else f"{fetched.name}.unplaced-{_digest(fetched)[:12]}"
    fetched.replace(folder / name_aside)
    return None if declared else f"{host} {fetched.name}: has no first line of a log; kept aside as {name_aside}"


def _drop_unfinished_line(path: Path) -> None:
    """A copy of a growing file may end within a line; torn ends that a gateway set aside stay as they are."""
    if ".torn-" in path.name or ".damaged-" in path.name:
        return
    with path.open("r+b") as handle:
        size = handle.seek(0, 2)
        start = max(0, size - CHUNK)
        handle.seek(start)
        end = handle.read().rfind(b"\n")
        if end >= 0:
            handle.truncate(start + end + 1)


def _begins_with(longer: Path, shorter: Path) -> bool:
    if longer.stat().st_size < shorter.stat().st_size:
        return False
    with longer.open("rb") as one, shorter.open("rb") as other:
        while chunk := other.read(CHUNK):
            if one.read(len(chunk)) != chunk:
                return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def incoming(site_dir: Path) -> Iterator[tuple[str, str, Path]]:
    """What was fetched and has no place yet: (host, log name, file), the log's oldest first."""
    for path in sorted((site_dir / FOLDER / INCOMING).glob("*/*")):
        yield path.parent.name, path.name.partition(".jsonl")[0], path
