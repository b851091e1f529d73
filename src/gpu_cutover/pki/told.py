"""Which certificates the ledger does not tell yet: given out, or ended. Pure.

The register is what counts, not the run that changed it: a run that died before its record is made up for by the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from ..evidence.records import Record
from .register import Issued

KIND = "certificates"


def news(known: Iterable[Issued], records: Iterable[Record]) -> dict[str, list[dict[str, str]]]:
    """`{issued, revoked}` of what no record of the ledger names, each with certificate (file), serial and time."""
    told: dict[str, set[str]] = {"issued": set(), "revoked": set()}
    for record in records:
        if record.kind == KIND:
            for what, serials in told.items():
                serials.update(str(one["serial"]) for one in record.data.get(what, []))
    entries = list(known)
    return {
        "issued": [
            {"certificate": one.file, "serial": one.serial, "not_after": one.not_after}
            for one in entries
            if one.serial not in told["issued"]
        ],
        "revoked": [
            {"certificate": one.file, "serial": one.serial, "revoked": one.revoked}
            for one in entries
            if one.revoked and one.serial not in told["revoked"]
        ],
    }


def name_of(told: dict[str, list[dict[str, Any]]]) -> str:
    """The record's name: whose certificate it is about, where it is one alone."""
    owners = {PurePath(one["certificate"]).stem for group in told.values() for one in group}
    return owners.pop() if len(owners) == 1 else "several"
