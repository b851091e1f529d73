"""Is the ledger whole and unchanged? Every byte of every file in `evidence/` is accounted for.

`broken` findings mean that something was changed, removed or added. A `note` explains what a crash leaves behind and
the next append repairs; it is no damage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from . import signing
from .files import is_leftover
from .records import (
    ATTACHMENTS,
    FOLDER,
    HEAD,
    KINDS,
    NO_RECORD,
    PAYLOAD_TYPE,
    PUBLIC_KEY,
    RECORD_NAME,
    STATEMENT_TYPE,
    MalformedRecordError,
    Record,
    canonical,
    parse_record,
    predicate_type,
    record_files,
    sha256,
)

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

HEAD_TYPE = "application/vnd.gpu-cutover.ledger-head+json"
STATE_KEY, STATE_SEEN, STATE_LOCK = ".state/ledger.key", ".state/ledger.seen", ".state/ledger.lock"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one file of the ledger."""

    level: Literal["broken", "note"]
    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.file}: {self.message}"


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a chain: the last record's sequence and the digest of its file; (0, NO_RECORD) for an empty one."""

    sequence: int
    digest: str


EMPTY = Position(0, NO_RECORD)


def verify(site_dir: Path) -> list[Finding]:
    """Everything that is not as it was recorded; [] for a whole ledger and for a site that never recorded anything.

    Raises InputError when a file cannot be read at all (permissions).
    """
    try:
        return list(_findings(Path(site_dir)))
    except OSError as error:
        raise InputError(
            str(error.filename), "ledger", error.strerror or str(error), "give the user who runs this read access"
        ) from error


def broken(findings: list[Finding]) -> list[Finding]:
    """Those findings that mean damage."""
    return [finding for finding in findings if finding.level == "broken"]


def position_of(site_dir: Path) -> Position:
    """Where the chain of files ends now, signatures unchecked."""
    files = record_files(site_dir)
    if not files:
        return EMPTY
    named = RECORD_NAME.fullmatch(files[-1].name)
    return Position(int(named["sequence"]) if named else 0, sha256(files[-1].read_bytes()))


def read_head(site_dir: Path, key: SSlibKey) -> Position:
    """The signed head. Raises FileNotFoundError, or BadEnvelopeError when it is not as signed."""
    payload = signing.unseal((site_dir / FOLDER / HEAD).read_bytes(), HEAD_TYPE, key)
    head = json.loads(payload)
    return Position(int(head["sequence"]), str(head["digest"]))


def _findings(site_dir: Path) -> Iterator[Finding]:
    folder = site_dir / FOLDER
    files = record_files(site_dir)
    yield from _against_what_was_seen(site_dir, len(files))
    if not folder.is_dir():
        return
    if not files and not (folder / HEAD).exists() and not (folder / PUBLIC_KEY).exists():
        yield from _attachments(folder, set())  # the very first recording may have been cut off
        yield from _strangers(folder)
        return
    try:
        key = signing.parse_public_key((folder / PUBLIC_KEY).read_bytes())
    except FileNotFoundError:
        yield Finding("broken", PUBLIC_KEY, "the public key is missing: nothing here can be proven")
        return
    except signing.BadEnvelopeError as error:
        yield Finding("broken", PUBLIC_KEY, f"{error}: nothing here can be proven")
        return
    if files and not any(key.keyid.encode() in path.read_bytes() for path in files):
        yield Finding("broken", PUBLIC_KEY, "is not the key that signed the records: it was changed or replaced")
        return
    yield from _against_private_key(site_dir)
    attached: set[str] = set()
    yield from _chain(files, key, attached)
    yield from _head(site_dir, key, files)
    yield from _attachments(folder, attached)
    yield from _strangers(folder)


def _against_what_was_seen(site_dir: Path, count: int) -> Iterator[Finding]:
    """This controller remembers how far it wrote: an old head put back with the newest records removed shows here."""
    seen_file = site_dir / STATE_SEEN
    if not seen_file.exists():
        return
    text = seen_file.read_text().strip()
    if not text.isdecimal():
        yield Finding("broken", seen_file.name, "holds no number: it was changed")
    elif count < int(text):
        yield Finding("broken", FOLDER, f"{count} records, but this controller has written {text}: some were removed")


def _against_private_key(site_dir: Path) -> Iterator[Finding]:
    """Where the private key is at hand, the public key must be its other half."""
    key_file = site_dir / STATE_KEY
    if key_file.exists():
        expected = signing.public_pem(signing.load_signer(key_file))
        if expected != (site_dir / FOLDER / PUBLIC_KEY).read_bytes():
            yield Finding("broken", PUBLIC_KEY, f"is not the other half of {STATE_KEY}: one of them was replaced")


def _chain(files: list[Path], key: SSlibKey, attached: set[str]) -> Iterator[Finding]:
    previous, previous_file = NO_RECORD, ""
    for expected, path in enumerate(files, start=1):
        content = path.read_bytes()
        try:
            record = _proven(path.name, content, key)
        except (ValueError, KeyError, TypeError) as error:
            yield Finding("broken", path.name, str(error))
        else:
            attached.update(item.sha256 for item in record.attachments)
            if record.sequence != expected:
                yield Finding("broken", path.name, f"is number {record.sequence} but stands at place {expected}")
            if record.previous != previous:
                yield Finding("broken", path.name, f"does not follow from {previous_file or 'the start'} as it is now")
        previous, previous_file = sha256(content), path.name


def _proven(file: str, content: bytes, key: SSlibKey) -> Record:
    """The record, if its signature, its shape and its own name agree. Raises ValueError or KeyError otherwise."""
    statement: dict[str, Any] = json.loads(signing.unseal(content, PAYLOAD_TYPE, key))
    record = parse_record(file, content)
    own_name = f"{record.sequence:06d}-{record.kind}-{record.name}"
    if file != f"{own_name}.json":
        raise MalformedRecordError(f"the file was renamed: it was written as {own_name}.json")
    if record.kind not in KINDS or statement["predicateType"] != predicate_type(record.kind):
        raise MalformedRecordError(f"unknown kind of record {statement['predicateType']!r}")
    if statement["_type"] != STATEMENT_TYPE:
        raise MalformedRecordError(f"not an in-toto statement v1: {statement['_type']!r}")
    if statement["subject"][0]["digest"]["sha256"] != sha256(canonical(dict(record.data))):
        raise MalformedRecordError("the data do not have the digest the statement names")
    return record


def _head(site_dir: Path, key: SSlibKey, files: list[Path]) -> Iterator[Finding]:
    try:
        head = read_head(site_dir, key)
    except FileNotFoundError:
        head = EMPTY
        if len(files) > 1:
            yield Finding("broken", HEAD, "is missing: the newest records may have been removed")
            return
    except (signing.BadEnvelopeError, ValueError, KeyError) as error:
        yield Finding("broken", HEAD, str(error))
        return
    end = position_of(site_dir)
    if head == end:
        return
    before_last = Position(len(files) - 1, sha256(files[-2].read_bytes())) if len(files) > 1 else EMPTY
    if files and head == before_last:
        yield Finding(
            "note",
            HEAD,
            f"ends before {files[-1].name}: the recording was cut off in between; the next record repairs it",
        )
    elif head.sequence > len(files):
        yield Finding("broken", HEAD, f"speaks of {head.sequence} records, {len(files)} are here: some were removed")
    else:
        name = files[-1].name if files else FOLDER
        yield Finding("broken", name, f"is not the end that the signed head names (record {head.sequence})")


def _attachments(folder: Path, attached: set[str]) -> Iterator[Finding]:
    store = folder / ATTACHMENTS
    here = {path.name: path for path in store.iterdir()} if store.is_dir() else {}
    for digest in sorted(attached):
        path = here.pop(f"{digest}.json", None)
        if path is None:
            yield Finding("broken", f"{ATTACHMENTS}/{digest}.json", "is missing, and a record speaks for it")
        elif sha256(path.read_bytes()) != digest:
            yield Finding("broken", f"{ATTACHMENTS}/{path.name}", "was changed: its content has another digest")
    for name, path in sorted(here.items()):
        if is_leftover(path):
            yield Finding(
                "note", f"{ATTACHMENTS}/{name}", "left by a recording that was cut off; the next one removes it"
            )
        elif f"{sha256(path.read_bytes())}.json" == name:
            yield Finding(
                "note", f"{ATTACHMENTS}/{name}", "no record speaks for it: a recording was cut off before its end"
            )
        else:
            yield Finding("broken", f"{ATTACHMENTS}/{name}", "no record speaks for this file: it was added or changed")


def _strangers(folder: Path) -> Iterator[Finding]:
    for path in sorted(folder.iterdir()):
        if RECORD_NAME.fullmatch(path.name) or path.name in (HEAD, PUBLIC_KEY, ATTACHMENTS):
            continue
        if is_leftover(path):
            yield Finding("note", path.name, "left by a recording that was cut off; the next one removes it")
        else:
            yield Finding("broken", path.name, "does not belong to the ledger: it was added")
