"""Reading the ledger without cryptography: what a record says, not whether it is true (that is `audit`)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

KINDS = frozenset(
    {
        "gate",
        "waiver",
        "cutover",
        "rollback",
        "derate",
        "restore",
        "drill",
        "watch",
        "hold",
        "checkpoint",
        "certificates",
    }
)
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
NO_RECORD = "0" * 64  # `previous` of the first record

FOLDER, HEAD, PUBLIC_KEY, ATTACHMENTS = "evidence", "head.json", "ledger.pub", "attachments"
RECORD_NAME = re.compile(r"(?P<sequence>\d{6})-(?P<kind>[a-z]+)-(?P<name>[a-z0-9][a-z0-9._-]*)\.json")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that a record speaks for: its name in the statement and the digest that names it on disk."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """One statement of the ledger. `time` is UTC in ISO 8601, `previous` the digest of the file before it."""

    sequence: int
    kind: str
    name: str
    time: str
    by: str
    previous: str
    data: Mapping[str, Any]
    attachments: tuple[Attachment, ...]
    file: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "sequence": self.sequence,
            "kind": self.kind,
            "name": self.name,
            "time": self.time,
            "by": self.by,
            "data": dict(self.data),
            "attachments": [{"name": item.name, "sha256": item.sha256} for item in self.attachments],
            "file": self.file,
        }


class MalformedRecordError(ValueError):
    """A file that is no record of this ledger."""


def canonical(data: Any) -> bytes:
    """The one JSON form that is digested and signed. Raises ValueError for NaN, TypeError for what JSON cannot say."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def predicate_type(kind: str) -> str:
    """The in-toto predicate type of a kind of record."""
    return f"https://gpu-cutover.invalid/{kind}/v1"


def record_files(site_dir: Path) -> list[Path]:
    """The record files in the order of their names. Raises InputError when the folder cannot be read."""
    folder = site_dir / FOLDER
    try:
        return sorted(path for path in folder.iterdir() if RECORD_NAME.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def read_status(site_dir: Path) -> list[Record]:
    """All records of a site, oldest first, signatures unchecked; [] where nothing was recorded yet.

    Raises InputError naming the file that cannot be read as a record.
    """
    records = []
    for path in record_files(Path(site_dir)):
        try:
            records.append(parse_record(path.name, path.read_bytes()))
        except OSError as error:
            raise _unreadable(path, error) from error
        except MalformedRecordError as error:
            raise InputError(
                str(path), "record", str(error), "run `gpu-cutover evidence verify` and restore the file from a copy"
            ) from error
    return records


def parse_record(file: str, content: bytes) -> Record:
    """The record in an envelope's bytes. Raises MalformedRecordError."""
    try:
        envelope = json.loads(content)
        statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return _record(file, statement)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedRecordError(f"not a record: {error!r}") from error


def attachment_path(site_dir: Path, sha256_hex: str) -> Path:
    """Where the attachment with this digest is stored."""
    return Path(site_dir) / FOLDER / ATTACHMENTS / f"{sha256_hex}.json"


def _record(file: str, statement: Mapping[str, Any]) -> Record:
    itself, *attached = statement["subject"]
    named = RECORD_NAME.fullmatch(f"{itself['name']}.json")
    if named is None:
        raise MalformedRecordError(f"the statement names itself {itself['name']!r}")
    predicate = statement["predicate"]
    return Record(
        sequence=int(predicate["sequence"]),
        kind=named["kind"],
        name=named["name"],
        time=str(predicate["time"]),
        by=str(predicate["by"]),
        previous=str(predicate["previous"]),
        data=dict(predicate["data"]),
        attachments=tuple(Attachment(str(item["name"]), str(item["digest"]["sha256"])) for item in attached),
        file=file,
    )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(str(path), "ledger", error.strerror or str(error), "give the user who runs this read access")
