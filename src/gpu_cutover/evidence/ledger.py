"""Appending to the ledger: one signed file per record, each naming the digest of the file before it.

Order of writing: attachments, record, head, then this controller's memory of how far it came. A crash between any two
of them leaves a ledger that `audit.verify` explains and the next append finishes.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import InputError, Refused
from . import audit, signing
from .files import is_leftover, locked, write_whole
from .records import (
    ATTACHMENTS,
    FOLDER,
    HEAD,
    KINDS,
    PAYLOAD_TYPE,
    PUBLIC_KEY,
    STATEMENT_TYPE,
    Attachment,
    Record,
    attachment_path,
    canonical,
    parse_record,
    predicate_type,
    read_status,
    sha256,
)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,80}")

# What a patient said or was answered, and what opens a door: neither is ever recorded, only digests of them.
NEVER_RECORDED = frozenset(
    {"prompt", "messages", "transcript", "completion", "answer", "request_body", "response_body", "patient"}
    | {"password", "secret", "api_key", "private_key"}
)


def utc_now() -> datetime:
    """The controller's clock."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """UTC in ISO 8601 with milliseconds: 2026-12-24T10:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Ledger:
    """A site's ledger, open for appending."""

    def __init__(self, site_dir: Path, clock: Callable[[], datetime], by: str) -> None:
        self._site_dir, self._clock, self._by = site_dir, clock, by

    @classmethod
    def open(cls, site_dir: Path | str, clock: Callable[[], datetime] = utc_now, by: str | None = None) -> Ledger:
        """The ledger of a site directory; nothing is written before the first append.

        Raises InputError when the directory does not exist.
        """
        path = Path(site_dir)
        if not path.is_dir():
            raise InputError(str(path), "site", "no such directory", "give the site directory with -i inventory/<site>")
        return cls(path, clock, by or _who())

    def records(self) -> list[Record]:
        """All records, oldest first, signatures unchecked."""
        return read_status(self._site_dir)

    def append(
        self, kind: str, name: str, data: Mapping[str, Any], attachments: Iterable[Mapping[str, Any]] = ()
    ) -> Record:
        """Record `data`. Each attachment is `{name, content}`, content any JSON value; it is stored by its digest.

        Raises Refused when the ledger is damaged or locked, InputError for data that may not or cannot be recorded, or
        when a file cannot be written.
        """
        _refuse_unfit(kind, name, data)
        contents = [(str(item["name"]), _json(item["content"])) for item in attachments]
        try:
            with locked(self._site_dir / audit.STATE_LOCK):
                return self._append(kind, name, data, contents)
        except OSError as error:
            raise InputError(
                str(error.filename), "ledger", error.strerror or str(error), "give the user who runs this write access"
            ) from error

    def _append(self, kind: str, name: str, data: Mapping[str, Any], contents: list[tuple[str, bytes]]) -> Record:
        folder = self._site_dir / FOLDER
        damage = audit.broken(audit.verify(self._site_dir))
        if damage:
            raise Refused(f"the ledger is damaged, so nothing is added to it. {damage[0].file}: {damage[0].message}")
        (folder / ATTACHMENTS).mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_leftovers(folder)
        end = audit.position_of(self._site_dir)
        signer = self._signer(first=end == audit.EMPTY)
        attached = [self._store(attachment_name, content) for attachment_name, content in contents]
        file = f"{end.sequence + 1:06d}-{kind}-{name}.json"
        statement = self._statement(file, kind, end, data, attached)
        content = signing.seal(canonical(statement), PAYLOAD_TYPE, signer)
        write_whole(folder / file, content)
        head = {"sequence": end.sequence + 1, "digest": sha256(content)}
        write_whole(folder / HEAD, signing.seal(canonical(head), audit.HEAD_TYPE, signer))
        write_whole(self._site_dir / audit.STATE_SEEN, f"{end.sequence + 1}\n".encode(), 0o600)
        return parse_record(file, content)

    def _signer(self, first: bool) -> Any:
        """The private key; only an empty ledger may make a new one."""
        key_file = self._site_dir / audit.STATE_KEY
        signer = signing.load_or_create_signer(key_file) if first else signing.load_signer(key_file)
        if first:
            write_whole(self._site_dir / FOLDER / PUBLIC_KEY, signing.public_pem(signer))
        return signer

    def _store(self, name: str, content: bytes) -> Attachment:
        digest = sha256(content)
        path = attachment_path(self._site_dir, digest)
        if not path.exists():
            write_whole(path, content)
        return Attachment(name, digest)

    def _statement(
        self, file: str, kind: str, end: audit.Position, data: Mapping[str, Any], attached: list[Attachment]
    ) -> dict[str, Any]:
        itself = {"name": file.removesuffix(".json"), "digest": {"sha256": sha256(_json(dict(data)))}}
        return {
            "_type": STATEMENT_TYPE,
            "subject": [itself, *({"name": item.name, "digest": {"sha256": item.sha256}} for item in attached)],
            "predicateType": predicate_type(kind),
            "predicate": {
                "sequence": end.sequence + 1,
                "previous": end.digest,
                "time": timestamp(self._clock()),
                "by": self._by,
                "data": dict(data),
            },
        }


def _who() -> str:
    """The person behind the process: who called sudo, else the user."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _refuse_unfit(kind: str, name: str, data: Mapping[str, Any]) -> None:
    if kind not in KINDS:
        raise InputError("ledger", "kind", f"{kind!r} is no kind of record", f"one of {', '.join(sorted(KINDS))}")
    if not NAME.fullmatch(name):
        raise InputError("ledger", "name", f"{name!r} cannot name a file", "small letters, digits, . _ and -")
    _json(dict(data))
    forbidden = sorted(_keys(data) & NEVER_RECORDED)
    if forbidden:
        raise InputError(
            "ledger", forbidden[0], "the ledger holds no content and no secrets", "record its sha256 digest instead"
        )


def _keys(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {str(key) for key in value}.union(*(_keys(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_keys(item) for item in value))
    return set()


def _json(value: Any) -> bytes:
    try:
        return canonical(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            "ledger", "data", f"cannot be recorded: {error}", "give plain JSON data without NaN"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    for path in (*folder.iterdir(), *(folder / ATTACHMENTS).iterdir()):
        if is_leftover(path):
            path.unlink()
