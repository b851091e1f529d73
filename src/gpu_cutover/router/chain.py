"""The form of a gateway's record log, and what is wrong with one. Standard library only; signatures are handed in.

One JSON object a line. Every line ends with its number and its hash: `,"n":7,"h":"<64 hex>"}` with

    h = sha256(h of the line before, as 64 hex characters + this line up to `,"h":`)

so that no line can be changed, dropped, moved or added without the next one (or itself) showing it. Lines with a key
`entry` are the log's own: `begin` (first line of a log), `continued` (first line of a further file), `opened`, `closed`
(a writer came, went), `checkpoint` (signed), `recovered` (a torn end was set aside), `gap` (records were lost).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ZERO = "0" * 64  # the hash before the first line
SCHEMA = 1
MAX_FINDINGS = 20  # per file: a file full of damage is told once, not a million times

_HASH = re.compile(rb',"h":"([0-9a-f]{64})"\}')
_HASH_BYTES = len(',"h":"') + 64 + len('"}')
_NUMBER = re.compile(rb',"n":([0-9]{1,18})$')
_ENTRY = re.compile(rb'\{"t":[0-9.]+,"entry":"')
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Link:
    """A place in a log: a line's number and its hash. `Link(0, ZERO)` is before the first line."""

    n: int = 0
    h: str = ZERO


START = Link()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said about one line of a file (`line` counts from 1; 0: the file as a whole)."""

    level: Literal["broken", "note"]
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.level}: {where}: {self.message}"


# Is this the signature of this key (both hex) under this payload?
Verifier = Callable[[str, bytes, str], bool]


def linked(previous: Link, text: str) -> tuple[bytes, Link]:
    """The line (with its newline) that says `text`, a JSON object that is not empty, and its place in the log."""
    n = previous.n + 1
    body = f'{text[:-1]},"n":{n}'.encode()
    h = hashlib.sha256(previous.h.encode() + body).hexdigest()
    return b'%b,"h":"%b"}\n' % (body, h.encode()), Link(n, h)


def entry_text(t: float, entry: str, data: Mapping[str, Any]) -> str:
    """The log's own line of this kind, before it is linked. `t` in epoch seconds."""
    return _encode({"t": round(t, 3), "entry": entry, **data})


def claimed(line: bytes) -> Link | None:
    """The number and hash that a line (without newline) claims; None where it has no such form."""
    found = _HASH.fullmatch(line[-_HASH_BYTES:])
    number = _NUMBER.search(line[-_HASH_BYTES - 24 : -_HASH_BYTES])
    return Link(int(number[1]), found[1].decode()) if found and number else None


def follows(line: bytes, previous: Link) -> bool:
    """Is this line (without newline) the one that was written after `previous`?"""
    claim = claimed(line)
    if claim is None or claim.n != previous.n + 1:
        return False
    return hashlib.sha256(previous.h.encode() + line[:-_HASH_BYTES]).hexdigest() == claim.h


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The log's own line as data; None for a record, and for what is no JSON."""
    if not _ENTRY.match(line):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def before_file(first: bytes) -> Link | None:
    """What the first line of a file follows: the start, or the line that `continued` names. None: not a first line."""
    entry = entry_of(first)
    if entry is None or entry["entry"] not in ("begin", "continued"):
        return None
    if entry["entry"] == "begin":
        return START
    try:
        return Link(int(entry["n"]) - 1, str(entry["previous"]))
    except (KeyError, TypeError, ValueError):
        return None


def signed_payload(log: str, name: str, t: float, covers: int, head: str) -> bytes:
    """What a checkpoint's signature covers: which log, when, how many lines, and the hash of the last of them."""
    return f"gpu-cutover record log, checkpoint 1\n{log}\n{name}\n{t:.3f}\n{covers}\n{head}\n".encode()


def checkpoint_holds(entry: Mapping[str, Any], public: str, verifier: Verifier) -> bool:
    """Did the owner of the key `public` (hex) sign this checkpoint? False also for what is no checkpoint."""
    try:
        payload = signed_payload(
            str(entry["log"]), str(entry["name"]), float(entry["t"]), int(entry["covers"]), str(entry["head"])
        )
        return verifier(public, payload, str(entry["sig"]))
    except (KeyError, TypeError, ValueError):
        return False


def key_id(public: str) -> str:
    """The short name of a public key (hex)."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


@dataclass(slots=True)
class Walk:
    """A log, followed line by line over its files. Everything found on the way is kept here."""

    verifier: Verifier
    public: frozenset[str]  # keys (hex) whose signature counts
    kept: Mapping[int, str] = field(default_factory=dict)  # line → hash, as the controller keeps them
    at: Link | None = None  # None: nothing read yet
    log: str = ""
    first: int = 0
    lines: int = 0
    signed: int = 0  # lines up to here are covered by a good signature
    signed_t: float = 0.0
    checkpoints: int = 0
    compared: int = 0
    writers: set[str] = field(default_factory=set)
    entries: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)  # gaps, recoveries, openings
    retention: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def follow(self, file: str, lines: Iterable[bytes]) -> None:
        """Read a file's lines (with their newlines). A changed line is told, then the walk goes on behind it."""
        told, number = 0, 0
        # The loop is the cost of verifying a million lines, so it stays flat and calls nothing for a good record.
        digest, size, kept = hashlib.sha256, _HASH_BYTES, self.kept
        n, h = (self.at.n, self.at.h.encode()) if self.at else (-1, b"")
        for number, raw in enumerate(lines, 1):
            line = raw[:-1]
            if number == 1:
                n, h = self._entered(file, line, n, h)
            body, mark = line[:-size], line[-size:]
            good = (
                raw.endswith(b"\n")
                and body.endswith(b',"n":%d' % (n + 1))
                and mark == b',"h":"%b"}' % digest(h + body).hexdigest().encode()
            )
            if good:
                n, h = n + 1, mark[6:70]
            else:
                told += 1
                if told <= MAX_FINDINGS:
                    self._add("broken", file, number, _why(raw, n))
                claim = claimed(line)
                n, h = (claim.n, claim.h.encode()) if claim else (n + 1, digest(line).hexdigest().encode())
            if n in kept:
                self._compare(file, number, n, h.decode())
            if good and line.startswith(b'{"t":') and b',"entry":"' in line[:40]:
                self._entry(file, number, line)
        if told > MAX_FINDINGS:
            self._add("broken", file, 0, f"{told - MAX_FINDINGS} further lines do not follow from the line before")
        self.lines += number
        self.at = Link(n, h.decode()) if number else self.at

    def _add(self, level: Literal["broken", "note"], file: str, line: int, message: str) -> None:
        self.findings.append(Finding(level, file, line, message))

    def _entered(self, file: str, line: bytes, n: int, h: bytes) -> tuple[int, bytes]:
        """What the first line of a file must follow; and does the file follow from the one before?"""
        before = before_file(line)
        if before is None:
            self._add("broken", file, 1, "is not the first line of a file of this log: lines before it were removed")
            claim = claimed(line)
            before = Link(claim.n - 1, ZERO) if claim else Link(max(n, 0), ZERO)
        if n >= 0 and (before.n, before.h.encode()) != (n, h):
            missing = (
                f"lines {n + 1} to {before.n} are missing" if before.n > n else f"it goes back to line {before.n + 1}"
            )
            self._add("broken", file, 1, f"does not continue the file before it, which ends at line {n}: {missing}")
        self.first = self.first or before.n + 1
        return before.n, before.h.encode()

    def _compare(self, file: str, line: int, n: int, h: str) -> None:
        self.compared += 1
        if self.kept[n] != h:
            self._add(
                "broken", file, line, f"line {n} of the log is not the one that the controller's checkpoint speaks of"
            )

    def _entry(self, file: str, line: int, raw: bytes) -> None:
        entry = entry_of(raw)
        if entry is None:
            return
        kind = entry["entry"]
        if kind in ("begin", "continued"):
            self._named(file, line, entry)
        elif kind == "checkpoint":
            self._checkpoint(file, line, entry)
        else:
            self.entries.append((file, line, {**entry, "signed_t": self.signed_t}))  # since when nothing is certain

    def _named(self, file: str, line: int, entry: dict[str, Any]) -> None:
        log = str(entry.get("log"))
        if self.log and log != self.log:
            self._add("broken", file, line, f"belongs to log {log}, not to {self.log}")
        self.log = self.log or log
        self.retention = dict(entry.get("retention") or {})

    def _checkpoint(self, file: str, line: int, entry: dict[str, Any]) -> None:
        self.checkpoints += 1
        key = next((one for one in self.public if key_id(one) == entry.get("key")), None)
        if entry.get("log") != self.log or entry.get("covers") != entry.get("n", 0) - 1:
            self._add("broken", file, line, "is a checkpoint of something else than the lines before it")
        elif key is None:
            self._add("broken", file, line, f"is signed by the key {entry.get('key')}, which this log does not have")
        elif not checkpoint_holds(entry, key, self.verifier):
            self._add("broken", file, line, "the checkpoint's signature does not match")
        else:
            self.signed, self.signed_t = int(entry["covers"]), float(entry["t"])


def _why(raw: bytes, n: int) -> str:
    """Why a line does not follow from line `n`, in words."""
    if not raw.endswith(b"\n"):
        return "the line is cut off"
    claim = claimed(raw[:-1])
    if claim is None:
        return "does not end with its number and hash: it was changed or added"
    if claim.n != n + 1:
        return f"is line {claim.n} of the log but stands behind line {n}: lines were removed, added or moved"
    return f"line {claim.n} of the log was changed, or the line before it"


def file_order(path: Path) -> tuple[int, str]:
    """Sorts the files of one log by the number of their first line; files without one come last."""
    with path.open("rb") as handle:
        claim = claimed(handle.readline().rstrip(b"\n"))
    return (claim.n if claim else 1 << 62), path.name
