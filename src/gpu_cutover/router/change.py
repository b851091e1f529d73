"""Changes of a route table: pure functions on its plain data. `orders` carries them out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import InputError
from .table import legal_states

Raw = dict[str, Any]
States = dict[str, dict[str, str]]

SENSITIVE = "a sensitive tenant never goes to the cloud"
OVERRIDES = ("open", "closed", "auto")


class Kept(NamedTuple):
    """A route that a rollback had to leave where it is, and why."""

    tenant: str
    route: str
    state: str
    why: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.route} stays {self.state}: {self.why}"


def _copy(raw: Raw) -> Raw:
    """A table whose tenants may be changed. Only what changes is copied: 10,000 tenants take milliseconds."""
    tenants = {name: {**tenant, "routes": dict(tenant["routes"])} for name, tenant in raw["tenants"].items()}
    return {**raw, "tenants": tenants}


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
    """The table after the plan was applied: legs, limits, shadows and tenants are the plan's, states stay as they are.

    States belong to the gateway once the table exists. A new tenant or route, and one whose state its new policy
    forbids, gets the plan's.
    """
    if existing is None:
        return copy.deepcopy(planned)
    table = copy.deepcopy(planned)
    for kept in ("version", "changed", "reason", "models_rolled_back", "overrides", "models_changed"):
        if kept in existing:
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


def adopted(raw: Raw, other: Mapping[str, Any]) -> Raw:
    """The table with what another gateway's table says later: each tenant's routes, and the models.

    Each carries the time of its last change, so that an older state never comes back. Only what this table has and its
    policies permit is taken over.
    """
    table = _copy(raw)
    for name, tenant in table["tenants"].items():
        theirs = other["tenants"].get(name, {})
        if theirs.get("changed", "") <= tenant.get("changed", ""):
            continue
        legal = legal_states(tenant["policy"], table["pool"])
        later = {r: state for r, state in theirs["routes"].items() if r in tenant["routes"] and state in legal}
        if not later.items() <= tenant["routes"].items():
            tenant["routes"].update(later)
            tenant["changed"] = theirs["changed"]
    if other.get("models_changed", "") <= table.get("models_changed", ""):
        return table
    known = models(raw)
    out = sorted(set(other["models_rolled_back"]) & known)
    overrides = {name: held for name, held in other.get("overrides", {}).items() if name in known}
    if (out, overrides) != (table["models_rolled_back"], table.get("overrides", {})):
        table |= {"models_rolled_back": out, "models_changed": other["models_changed"]}
        table.pop("overrides", None)
        table |= {"overrides": overrides} if overrides else {}
    return table


def with_states(
    raw: Raw, wanted: Mapping[str, Mapping[str, str]], file: str, only_from: Iterable[str] | None = None
) -> Raw:
    """The table with these states set, where the state is one of `only_from` (None: any).

    Raises InputError for a tenant or route that the table does not have.
    """
    sources = None if only_from is None else set(only_from)
    table = _copy(raw)
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


def rolled_back(
    raw: Raw,
    tenant: str | None,
    route: str | None,
    accept_off: bool,
    silent: Mapping[str, str],
    kept: list[Kept],
) -> Raw:
    """The table with one tenant (None: every tenant) back where it was before: on the cloud; all routes or just one.

    A route whose cloud leg is `silent` {route: why} stays. A sensitive tenant has no cloud to go back to: its routes go
    `off` with `accept_off`, else they stay. Whatever stays on-prem is told in `kept`.
    """
    table = _copy(raw)
    for name, entry in table["tenants"].items():
        if tenant not in (None, name):
            continue
        for one, state in entry["routes"].items():
            if state not in ("onprem", "mirror") or route not in (None, one):
                continue
            if state == "mirror":
                why, goal = "", "cloud"  # the cloud answers it already
            elif entry["policy"] == "sensitive" or table["pool"] == "sealed":
                why, goal = ("", "off") if accept_off else (SENSITIVE, "")
            elif one not in table["cloud"]:
                why, goal = "it has no cloud leg", ""
            else:
                why, goal = (silent[one], "") if one in silent else ("", "cloud")
            if why:
                kept.append(Kept(name, one, state, why))
            else:
                entry["routes"][one] = goal
    return table


def with_model(raw: Raw, model: str, rolled_back: bool, file: str) -> Raw:
    """The table with one on-prem model taken out of service (or given back). Raises InputError for an unknown model."""
    _known_model(raw, model, file, "models_rolled_back")
    table = _copy(raw)
    now = set(table["models_rolled_back"]) - {model}
    table["models_rolled_back"] = sorted(now | {model} if rolled_back else now)
    return table


def with_override(raw: Raw, model: str, override: str, file: str) -> Raw:
    """The table with a model's breaker held `open` or `closed` by an operator, or given back (`auto`).

    Raises InputError for a model that no leg uses or another word.
    """
    if override not in OVERRIDES:
        raise InputError(file, "overrides", f"{override!r} is no override", "use one of " + ", ".join(OVERRIDES))
    _known_model(raw, model, file, "overrides")
    table = _copy(raw)
    overrides = {name: held for name, held in table.get("overrides", {}).items() if name != model}
    if override != "auto":
        overrides[model] = override
    table.pop("overrides", None)
    return {**table, "overrides": overrides} if overrides else table


def _known_model(raw: Raw, model: str, file: str, key: str) -> None:
    known = models(raw)
    if model not in known:
        raise InputError(file, key, f"no leg uses {model}", "name one of " + ", ".join(sorted(known)))


def models(raw: Mapping[str, Any]) -> set[str]:
    """Every on-prem model that some placement's leg uses."""
    return {leg["model"] for legs in raw["onprem"].values() for leg in legs.values()}


def unexpected(now: Mapping[str, Mapping[str, str]], expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences for every state that is not (one of) the expected before a change."""
    found = []
    for name, routes in expected.items():
        for route, wanted in routes.items():
            state = now.get(name, {}).get(route)
            if state not in ([wanted] if isinstance(wanted, str) else wanted):
                found.append(f"{name}/{route} is {state}, expected {wanted}")
    return found


def stamped(before: Raw | None, after: Raw, reason: str, now: str) -> Raw:
    """The changed table with its next version, the reason, and the time on itself and on whatever moved.

    What was taken over from another gateway brings its time along.
    """
    if before is None or after == before:
        return after
    table = _copy(after)
    for name, tenant in table["tenants"].items():
        was = before["tenants"].get(name, {})
        if tenant["routes"] != was.get("routes") and tenant.get("changed") == was.get("changed"):
            tenant["changed"] = now
    held = ("models_rolled_back", "overrides")
    if any(table.get(key) != before.get(key) for key in held) and not _moved_stamp(before, table):
        table["models_changed"] = now
    return {**table, "version": before["version"] + 1, "changed": now, "reason": reason}


def _moved_stamp(before: Raw, after: Raw) -> bool:
    return bool(after.get("models_changed") != before.get("models_changed"))


def moved(before: States, after: States) -> tuple[States, States]:
    """(before, after) of those tenants and routes alone whose state differs."""
    sides: tuple[States, States] = ({}, {})
    for name, routes in after.items():
        for route, state in routes.items():
            was = before.get(name, {}).get(route, "")
            if was != state:
                sides[0].setdefault(name, {})[route] = was
                sides[1].setdefault(name, {})[route] = state
    return sides
