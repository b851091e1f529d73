"""Route changes that gateways made and the ledger does not tell yet: asked from the journals, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..evidence.records import Record
from . import judge, recorder
from .gateways import Gateways

PATIENCE_S = 2.5  # for a status: the gateways that answer by then are told of


@dataclass(frozen=True, slots=True)
class Change:
    """One change, by every gateway that keeps it. `t`: epoch s of its end."""

    id: str
    t: float
    by: str
    path: str
    reason: str
    moved: list[str]
    gateways: list[str]


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """What is missing in the ledger, oldest first, and which gateways could not be asked (why)."""

    changes: list[Change] = field(default_factory=list)
    not_asked: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def ask(site_dir: Path, records: Sequence[Record], patience_s: float = PATIENCE_S) -> Unrecorded:
    """Ask every gateway that can be reached within `patience_s` seconds. Raises InputError for a wrong inventory."""
    with Gateways(site_dir, open_s=patience_s) as gateways:
        answers = gateways.ask({"do": "unrecorded"}, patience_s)
        lost = dict(gateways.lost)
    lost |= {host: str(one.get("message")) for host, one in answers.items() if not one.get("ok")}
    told = {host: one["changes"] for host, one in answers.items() if one.get("ok")}
    return Unrecorded(missing(told, recorder.recorded(records)), lost)


def missing(told: Mapping[str, Iterable[Mapping[str, Any]]], known: set[tuple[str, str]]) -> list[Change]:
    """What the gateways keep without the ledger knowing it. Pure."""
    found: dict[str, Change] = {}
    for host, entries in told.items():
        for entry in entries:
            id = str(entry["id"])
            if (id, host) in known:
                continue
            if id not in found:
                by, path, reason = (str(entry[key]) for key in ("by", "path", "reason"))
                found[id] = Change(id, float(entry["t"]), by, path, reason, _moved(entry), [])
            found[id].gateways.append(host)
    return sorted(found.values(), key=lambda one: one.t)


def _moved(entry: Mapping[str, Any]) -> list[str]:
    """What it did, a line a tenant; a model or breaker that moved nobody is named itself."""
    lines = judge.moved({"": {**entry, "ok": True}})
    if not lines and entry.get("model"):
        what = f"breaker {entry['override']}" if entry["do"] == "breaker" else "rolled back or given back"
        lines.append(f"model {entry['model']}: {what}")
    return lines or [str(entry["do"])]
