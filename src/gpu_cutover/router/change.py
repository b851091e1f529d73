"""Changes of a route table: pure functions on its plain data, and the one way a changed table reaches the disk.

Used by the module `route_table` and by the tenant watch; both hold the same lock, so neither overwrites the other.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import read_table
from .table import legal_states, parse_table

Raw = dict[str, Any]
States = dict[str, dict[str, str]]


def states(raw: Mapping[str, Any]) -> States:
    """{tenant: {route: state}} of a table as it works: a route whose model is rolled back counts as where it goes."""
    return {
        name: {route: _effective(raw, tenant["policy"], route, state) for route, state in tenant["routes"].items()}
        for name, tenant in raw.get("tenants", {}).items()
    }


def _effective(raw: Mapping[str, Any], policy: str, route: str, state: str) -> str:
    leg = raw["onprem"].get(raw["placement"], {}).get(route, {})
    if state != "onprem" or leg.get("model") not in raw["models_rolled_back"]:
        return state
    return "cloud" if route in raw.get("cloud", {}) and policy != "sensitive" else "off"


def installed(existing: Raw | None, planned: Raw) -> Raw:
    """The table after the plan was applied: legs, limits and tenants come from the plan, states stay as they are.

    States belong to the gateway once the table exists. A new tenant or route, and one whose state its new policy
    forbids, gets the plan's.
    """
    if existing is None:
        return copy.deepcopy(planned)
    table = copy.deepcopy(planned)
    for kept in ("version", "changed", "reason", "models_rolled_back"):
        table[kept] = existing[kept]
    if existing["placement"] in table["onprem"]:
        table["placement"] = existing["placement"]
    for name, tenant in table["tenants"].items():
        known = existing["tenants"].get(name, {})
        before = known.get("routes", {})
        if "changed" in known:
            tenant["changed"] = known["changed"]
        legal = legal_states(tenant["policy"], table["pool"])
        for route in tenant["routes"]:
            if before.get(route) in legal:
                tenant["routes"][route] = before[route]
    return table


def with_states(
    raw: Raw, wanted: Mapping[str, Mapping[str, str]], file: str, only_from: Iterable[str] | None = None
) -> Raw:
    """The table with these states set, where the state is one of `only_from` (None: any).

    Raises InputError for a tenant or route that the table does not have.
    """
    sources = None if only_from is None else set(only_from)
    table = copy.deepcopy(raw)
    for name, routes in wanted.items():
        tenant = table["tenants"].get(name)
        if tenant is None:
            raise InputError(file, f"tenants.{name}", "no such tenant", "name one of " + ", ".join(table["tenants"]))
        for route, state in routes.items():
            if route not in tenant["routes"]:
                raise InputError(file, f"tenants.{name}.routes.{route}", "no such route", "name a route of this tenant")
            if sources is None or tenant["routes"][route] in sources:
                tenant["routes"][route] = state
    return table


def rolled_back(raw: Raw, tenant: str | None, accept_off: bool, ready: Iterable[str], kept: list[str]) -> Raw:
    """The table with one tenant (None: every tenant) back where it was before: on the cloud.

    Only routes in `ready` (their cloud leg answers) move. A sensitive tenant has no cloud to go back to: its routes go
    `off` with `accept_off`, else they stay. Whatever stays on-prem is told in `kept`.
    """
    table, usable = copy.deepcopy(raw), set(ready)
    for name, entry in table["tenants"].items():
        if tenant not in (None, name):
            continue
        for route, state in entry["routes"].items():
            if state not in ("onprem", "mirror"):
                continue
            if entry["policy"] == "sensitive" or table["pool"] == "sealed":
                goal = "off" if accept_off else None
            else:
                goal = "cloud" if route in table["cloud"] and (route in usable or state == "mirror") else None
            if goal is None:
                kept.append(f"{name}/{route} stays {state}")
            else:
                entry["routes"][route] = goal
    return table


def with_model(raw: Raw, model: str, rolled_back: bool, file: str) -> Raw:
    """The table with one on-prem model taken out of service (or given back). Raises InputError for an unknown model."""
    known = {leg["model"] for legs in raw["onprem"].values() for leg in legs.values()}
    if model not in known:
        raise InputError(file, "models_rolled_back", f"no leg uses {model}", "name one of " + ", ".join(sorted(known)))
    table = copy.deepcopy(raw)
    now = set(table["models_rolled_back"]) - {model}
    table["models_rolled_back"] = sorted(now | {model} if rolled_back else now)
    return table


def unexpected(now: Mapping[str, Mapping[str, str]], expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences for every state that is not (one of) the expected before a change."""
    found = []
    for name, routes in expected.items():
        for route, wanted in routes.items():
            state = now.get(name, {}).get(route)
            if state not in ([wanted] if isinstance(wanted, str) else wanted):
                found.append(f"{name}/{route} is {state}, expected {wanted}")
    return found


@dataclass(frozen=True, slots=True)
class Changed:
    """A table before and after. Equal when nothing had to change."""

    before: Raw | None
    after: Raw

    @property
    def changed(self) -> bool:
        return self.before != self.after


def change(path: Path, mutate: Callable[[Raw | None], Raw], reason: str, now: str, write: bool = True) -> Changed:
    """Change the table at `path` under its lock: validate, write whole, read back.

    `now` is the ISO 8601 time written into the table. With `write=False` predicts. Raises InputError when the result
    would be illegal (the file is then as before) or the disk gave back something else.
    """
    with _locked(path.parent / ".lock", write):
        before = _read_raw(path)
        after = mutate(before)
        parse_table(after, str(path))
        if after == before:
            return Changed(before, after)
        if before is not None:
            _stamp_tenants(before, after, now)
            after = {**after, "version": before["version"] + 1, "changed": now, "reason": reason}
        if write:
            _write_whole(path, json.dumps(after, indent=1, sort_keys=True).encode() + b"\n")
            if read_table(path) != parse_table(after, str(path)):
                raise InputError(
                    str(path), "(file)", "was not read back as written", "check the disk, then set it again"
                )
        return Changed(before, after)


def _stamp_tenants(before: Raw, after: Raw, now: str) -> None:
    for name, tenant in after["tenants"].items():
        if tenant["routes"] != before["tenants"].get(name, {}).get("routes"):
            tenant["changed"] = now


@contextmanager
def _locked(path: Path, lock: bool) -> Iterator[None]:
    if not lock:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_raw(path: Path) -> Raw | None:
    if not path.exists():
        return None
    read_table(path)
    raw: Raw = json.loads(path.read_bytes())
    return raw


def _write_whole(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.chmod(0o644)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
