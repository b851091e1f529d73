"""Are the collected logs whole, signed, continuous, and what the controller's checkpoints say? Reads copies only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..evidence import audit as ledger_audit
from ..evidence.records import read_status
from ..router.chain import Finding, Verifier, Walk, before_file
from ..router.chain import entry_of as entry_in
from . import store
from .kept import Kept, kept_checkpoints
from .store import LogName


@dataclass(frozen=True, slots=True)
class Hole:
    """Records that are known to be missing, or may be: between two times (epoch s), and why."""

    since: float
    until: float
    lost: int | None  # None: not known
    why: str


@dataclass(slots=True)
class Proven:
    """One log after verifying. Times in epoch seconds."""

    log: LogName
    first: int = 0
    last: int = 0
    lines: int = 0
    signed: int = 0
    anchored: int = 0  # up to here the controller's checkpoints agree
    begun_t: float = 0.0
    anchored_t: float = 0.0
    signed_t: float = 0.0
    checkpoints: int = 0
    compared: int = 0
    holes: list[Hole] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Proof:
    """Everything that verifying a site's logs found."""

    logs: list[Proven] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def broken(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "broken"]

    @property
    def lines(self) -> int:
        return sum(one.lines for one in self.logs)


def moment(t: float) -> str:
    """Epoch seconds as UTC, to the second."""
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prove(site_dir: Path, gateways: Iterable[str], verifier: Verifier) -> Proof:
    """Verify every collected log of a site. Raises InputError for a ledger that cannot be read."""
    proof = Proof()
    damages = ledger_audit.broken(ledger_audit.verify(site_dir))
    proof.findings += [Finding("broken", f"evidence/{damage.file}", 0, damage.message) for damage in damages]
    # A damaged ledger may not be readable at all; what it says is no proof in any case.
    kept, contradictions = kept_checkpoints([] if damages else read_status(site_dir), verifier)
    proof.findings += contradictions
    copied = store.logs(site_dir)
    for log in copied:
        proven = _prove_log(site_dir, log, kept.get(log, Kept()), verifier)
        proof.logs.append(proven)
        proof.findings += proven.findings
    proof.findings += _absent(kept, copied, gateways)
    for host, name in sorted({(log.host, log.name) for log in copied}):
        proof.findings += _aside(site_dir, host, name)
    return proof


def _absent(kept: dict[LogName, Kept], copied: list[LogName], gateways: Iterable[str]) -> Iterable[Finding]:
    """Logs that the controller knows and nobody collected; gateways of which there is nothing at all."""
    for log in sorted(set(kept) - set(copied)):
        known = kept[log]
        if known.accepted >= known.last:
            yield Finding("note", str(log), 0, f"no copy; {known.accepted_words}")
        else:
            words = f"no copy, and the controller keeps a checkpoint of {known.last} lines ({moment(known.last_t)})"
            yield Finding("broken", str(log), 0, words)
    for host in sorted(set(gateways) - {log.host for log in copied} - {log.host for log in kept}):
        yield Finding("broken", host, 0, "is a gateway of this site and nothing of it was collected")


def _aside(site_dir: Path, host: str, name: str) -> Iterable[Finding]:
    for path in store.aside(site_dir, host, name):
        if ".unplaced-" in path.name:
            yield Finding(
                "broken", f"{host}/{name}/{path.name}", 0, "has no first line of a log: it was cut or replaced"
            )


def _prove_log(site_dir: Path, log: LogName, kept: Kept, verifier: Verifier) -> Proven:
    files = store.copies(site_dir, log)
    first = _first_line(files[0]) if files else None
    public = kept.public or str((first or {}).get("key") or "")
    walk = Walk(verifier, frozenset([public] if public else []), kept.heads)
    names = {}
    for path in files:
        names[path.name] = label = str(path.relative_to(site_dir / store.FOLDER))
        with path.open("rb") as handle:
            walk.follow(label, handle)
    proven = Proven(log, lines=walk.lines, first=walk.first, signed=walk.signed, signed_t=walk.signed_t)
    proven.checkpoints, proven.compared = walk.checkpoints, walk.compared
    proven.last = walk.at.n if walk.at else 0
    proven.begun_t = float((first or {}).get("t") or 0.0)
    reached = [covers for covers in kept.heads if covers <= proven.last]
    proven.anchored = max(reached, default=0)
    proven.anchored_t = kept.times.get(proven.anchored, 0.0)
    proven.findings = [*walk.findings, *_length(log, proven, kept, walk, len(files)), *_signatures(log, proven, kept)]
    for path in store.conflicts(site_dir, log):
        words = "contradicts the copy that was collected before: the log was changed or cut on the gateway"
        proven.findings.append(Finding("broken", str(path.relative_to(site_dir / store.FOLDER)), 0, words))
    _holes(proven, walk)
    return proven


def _first_line(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as handle:
        line = handle.readline().rstrip(b"\n")
    return entry_in(line) if before_file(line) is not None else None


def _length(log: LogName, proven: Proven, kept: Kept, walk: Walk, files: int) -> Iterable[Finding]:
    """Is the log as long as the controller knows it, and does it begin where it may?"""
    if proven.last < kept.last:
        missing = f"ends at line {proven.last}; the controller's checkpoint of {moment(kept.last_t)} covers {kept.last}"
        if kept.accepted >= kept.last:
            yield Finding("note", str(log), 0, f"{missing}; {kept.accepted_words}")
        else:
            yield Finding("broken", str(log), 0, f"{missing}: {kept.last - proven.last} lines are missing")
    if proven.first > 1:
        words = f"begins at line {proven.first}"
        if files > walk.retention.get("files", 0):
            yield Finding("note", str(log), 0, f"{words}: older files went by the declared retention, uncollected")
        elif kept.accepted >= proven.first - 1:
            yield Finding("note", str(log), 0, f"{words}; {kept.accepted_words}")
        else:
            yield Finding("broken", str(log), 0, f"{words}, which the declared retention does not explain")


def _signatures(log: LogName, proven: Proven, kept: Kept) -> Iterable[Finding]:
    if not kept.heads:
        words = "the controller keeps no checkpoint of it: who holds the gateway's key could have rewritten it"
        yield Finding("note", str(log), 0, words)
    tail = proven.last - proven.signed - 1  # the last checkpoint is a line itself
    if not proven.checkpoints:
        yield Finding("broken", str(log), 0, "has no signed checkpoint: the gateway has no key, or they were removed")
    elif tail > 0:
        yield Finding("note", str(log), 0, f"the last {tail} lines are not signed yet")


def _holes(proven: Proven, walk: Walk) -> None:
    """Gaps that the log itself tells, and writers that ended without a word."""
    writing: dict[str, tuple[str, int, float]] = {}
    for file, line, entry in walk.entries:
        kind, t = entry["entry"], float(entry["t"])
        if kind == "gap":
            hole = Hole(float(entry["since"]), float(entry["until"]), int(entry["lost"]), str(entry["why"]))
            proven.holes.append(hole)
            words = f"{hole.lost} records lost between {moment(hole.since)} and {moment(hole.until)}: {hole.why}"
            proven.findings.append(Finding("note", file, line, words))
        elif kind == "opened":
            writing[str(entry["writer"])] = (file, line, t)
        elif kind == "closed":
            writing.pop(str(entry["writer"]), None)
        elif kind == "recovered":
            words = f"a torn end of {entry['bytes']} bytes was set aside as {entry['file']}"
            proven.findings.append(Finding("note", file, line, words))
    opened = [str(entry["writer"]) for _, _, entry in walk.entries if entry["entry"] == "opened"]
    ended = [one for writer, one in writing.items() if writer != opened[-1]]  # the newest one may be at work
    openings = sorted(
        (float(one["t"]), float(one["signed_t"])) for _, _, one in walk.entries if one["entry"] == "opened"
    )
    for file, line, t in ended:
        until, since = next((one for one in openings if one[0] > t), (t, t))
        proven.holes.append(Hole(since, until, None, "a router was killed; what it had not written yet is not known"))
        words = f"this writer ended without a word before {moment(until)}: at most its last 0.2 s are missing"
        proven.findings.append(Finding("note", file, line, words))
