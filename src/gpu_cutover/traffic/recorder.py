"""From the gateways' journals to the ledger: every change is recorded once per gateway, whoever made it. Mostly pure.

A gateway's journal keeps a change until somebody with the ledger asks; nothing is lost when a controller dies between
the change and its record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..evidence.records import Record, read_status
from ..router.journal import LEDGER_KINDS, belongs_in_ledger

Entry = Mapping[str, Any]  # one ended change of a journal, see router/journal.py


@dataclass(frozen=True, slots=True)
class Recordable:
    """One record to be: its kind, name and data."""

    kind: str
    name: str
    data: dict[str, Any]


def recorded(records: Iterable[Record]) -> set[tuple[str, str]]:
    """(change, gateway) of everything the ledger already tells."""
    found = set()
    for record in records:
        gateways = record.data.get("gateways")
        if record.kind in LEDGER_KINDS and isinstance(gateways, Mapping):
            found |= {(str(record.data.get("id")), str(host)) for host in gateways}
    return found


def last_recorded(records: Sequence[Record], host: str) -> str | None:
    """The latest recorded change of one gateway: its journal is asked for what came after."""
    for record in reversed(records):
        gateways = record.data.get("gateways")
        if record.kind in LEDGER_KINDS and isinstance(gateways, Mapping) and host in gateways:
            return str(record.data.get("id"))
    return None


def recordables(
    changes: Mapping[str, Iterable[Entry]], known: set[tuple[str, str]], unknown: Mapping[str, Mapping[str, str]]
) -> list[Recordable]:
    """What has to be recorded out of {gateway: changes}, oldest first; one change on several gateways is one record.

    `unknown`: {change: {gateway: why}} where no answer came, so that nobody can say whether it was carried out there.
    """
    by_id: dict[str, dict[str, Entry]] = {}
    for host, entries in changes.items():
        for entry in entries:
            if belongs_in_ledger(entry) and (str(entry["id"]), host) not in known:
                by_id.setdefault(str(entry["id"]), {})[host] = entry
    found = [_recordable(one, hosts, unknown.get(one, {})) for one, hosts in by_id.items()]
    return sorted(found, key=lambda one: str(one.data["started"]))


def _recordable(change: str, hosts: Mapping[str, Entry], unknown: Mapping[str, str]) -> Recordable:
    first = next(iter(hosts.values()))
    order = first["order"]
    what = {key: order[key] for key in ("tenant", "model", "route") if order.get(key)}
    if order["do"] in ("set", "adopt") and order["states"]:
        what["tenant" if len(order["states"]) == 1 else "tenants"] = _one_or_all(order["states"])
    if order["do"] == "breaker":
        what["breaker"] = order["override"]
    if order["do"] == "roll_back" and not what:
        what["all"] = True
    data = {
        "id": change,
        **what,
        "to": _goal(order),
        "reason": order["reason"],
        "path": order["path"],
        "by": order["by"],
        "started": _iso(min(entry["began"] for entry in hosts.values())),
        "finished": _iso(max(entry["t"] for entry in hosts.values())),
        "took_s": round(max(entry["t"] - entry["began"] for entry in hosts.values()), 4),
        "before": first.get("before", {}),
        "after": first.get("after", {}),
        "kept": first.get("kept", []),
        "readback": {host: entry.get("after", {}) for host, entry in hosts.items()},
        "gateways": {host: _gateway(entry) for host, entry in hosts.items()},
        "stale": dict(order.get("leaving", {})),
        "unknown": dict(unknown),
    }
    return Recordable(order["record"], _name(what), data)


def _one_or_all(states: Mapping[str, Any]) -> str | list[str]:
    names = sorted(states)
    return names[0] if len(names) == 1 else names


def _gateway(entry: Entry) -> dict[str, Any]:
    told = {key: entry[key] for key in ("outcome", "before", "after", "readback", "note") if key in entry}
    versions = {pool: table["version"] for pool, table in entry.get("tables", {}).items()}
    return {**told, "versions": versions, "finished": _iso(entry["t"])}


def _goal(order: Mapping[str, Any]) -> str:
    if order["do"] in ("set", "adopt"):
        goals = sorted({state for routes in order["states"].values() for state in routes.values()})
        return ", ".join(goals)
    if order["do"] == "model":
        return "cloud" if order["out"] else "onprem"
    return str(order["override"]) if order["do"] == "breaker" else "cloud"


def _name(what: Mapping[str, Any]) -> str:
    named = what.get("tenant") or what.get("model") or what.get("route") or ("many" if "tenants" in what else "all")
    return re.sub(r"[^a-z0-9._-]", "-", str(named).lower())[:80]


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(
    site_dir: Path,
    changes: Mapping[str, Iterable[Entry]],
    unknown: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Record]:
    """Append what the ledger does not tell yet. Raises Refused or InputError when nothing can be appended to it."""
    wanted = recordables(changes, recorded(read_status(site_dir)), unknown or {})
    if not wanted:
        return []
    from ..evidence.ledger import Ledger  # late: it imports cryptography

    ledger = Ledger.open(site_dir)
    return [ledger.append(one.kind, one.name, one.data) for one in wanted]
