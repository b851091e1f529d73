"""The route table: which tenant's route is served by which leg. Pure; a wrong table never becomes a `Table`.

Travels to gateways with the module `route_table`: standard library only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import InputError

SCHEMA = 1
ROUTES = ("audio", "chat", "reason", "embed", "rerank", "vision")
POOLS = ("hybrid", "sealed")
POLICIES = ("standard", "sensitive", "cloud_only")
STATES = ("cloud", "mirror", "onprem", "off")
BREAKER_STATES = ("closed", "open")


@dataclass(frozen=True, slots=True)
class Leg:
    """One place that answers a route. `version` is the digest of the weights; what is unknown (cloud) is empty."""

    url: str
    path: str
    model: str
    version: str = ""
    gpus: tuple[int, ...] = ()
    engine: str = ""
    engine_version: str = ""
    gpu_uuids: tuple[str, ...] = ()


class Tenant(NamedTuple):
    """A tenant's policy, the state of each of its routes, and when one of them last changed (ISO 8601; "": never).

    `synthetic`: its requests are drills, no clinic's.
    """

    policy: str
    routes: Mapping[str, str]
    changed: str = ""
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Fallback:
    """When an on-prem answer is given up. Seconds, except `error_rate` (share 0..1) and `minimum_requests` (count)."""

    first_byte_s: float
    error_rate: float
    window_s: float
    minimum_requests: int
    open_s: float


@dataclass(frozen=True, slots=True)
class Table:
    """One pool's validated route table."""

    version: int
    pool: str
    changed: str
    reason: str
    placement: str
    placement_source: str | None
    onprem: Mapping[str, Mapping[str, Leg]]
    cloud: Mapping[str, Leg]
    tenants: Mapping[str, Tenant]
    models_rolled_back: frozenset[str]
    fallback: Fallback
    overrides: Mapping[str, str]  # model: an operator holds its breaker `open` or `closed`
    reverse_share: float  # of the on-prem answers, asked again of the cloud


def legal_states(policy: str, pool: str) -> tuple[str, ...]:
    """The states a route of a tenant with this policy may have in this pool."""
    if policy == "sensitive" or pool == "sealed":
        return ("onprem", "off")
    return ("cloud",) if policy == "cloud_only" else STATES


def parse_table(data: object, file: str) -> Table:
    """Validate a decoded table. Raises InputError naming the key and the problem."""
    root = _Node(data, file, "")
    if root.take("schema", int) != SCHEMA:
        root.wrong("schema", f"only schema {SCHEMA} is known", "install the release that wrote this table")
    pool = root.choice("pool", POOLS)
    if pool == "sealed" and "cloud" in root.mapping:
        root.wrong("cloud", "a sealed table must not name any cloud leg", "remove the key")
    table = Table(
        version=root.take("version", int),
        pool=pool,
        changed=root.take("changed", str),
        reason=root.take("reason", str),
        placement=root.take("placement", str),
        placement_source=root.optional("placement_source", str),
        onprem={name: _legs(root.node("onprem").node(name)) for name in root.node("onprem").mapping},
        cloud=_legs(root.node("cloud")) if pool == "hybrid" else {},
        tenants=_tenants(root.node("tenants"), pool),
        models_rolled_back=_names(root, "models_rolled_back"),
        fallback=_fallback(root.node("fallback")),
        overrides=_overrides(root),
        reverse_share=_reverse_share(root, pool),
    )
    root.optional("models_changed", str)  # when a model or a breaker last changed: gateways compare it
    root.only({*Table.__slots__, "schema", "reverse_shadow", "models_changed"} - {"reverse_share"})
    if table.placement not in table.onprem:
        root.wrong(
            "placement", f"{table.placement!r} has no legs under onprem", "name one of " + ", ".join(table.onprem)
        )
    return table


class _Node:
    """A mapping inside the table that knows its place, so that every complaint names file and key."""

    def __init__(self, data: object, file: str, key: str) -> None:
        self.file, self.key = file, key
        if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
            raise InputError(file, key or "(whole file)", "must be a mapping", "see docs/architecture.md, Route table")
        self.mapping: dict[str, Any] = data

    def wrong(self, name: str, problem: str, fix: str) -> None:
        raise InputError(self.file, f"{self.key}.{name}".lstrip("."), problem, fix)

    def take(self, name: str, kind: type) -> Any:
        value = self.mapping.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(name, f"must be {kind.__name__}, is {value!r}", "correct the value")
        return value

    def optional(self, name: str, kind: type) -> Any:
        return None if self.mapping.get(name) is None else self.take(name, kind)

    def number(self, name: str, low: float, high: float) -> float:
        value = self.mapping.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            self.wrong(name, f"must be a number above {low} and at most {high}, is {value!r}", "correct the value")
        return float(self.mapping[name])

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.mapping.get(name)
        if value not in choices:
            self.wrong(name, f"{value!r} is not legal here", "use one of " + ", ".join(choices))
        return str(value)

    def node(self, name: str) -> _Node:
        return _Node(self.mapping.get(name), self.file, f"{self.key}.{name}".lstrip("."))

    def only(self, known: set[str]) -> None:
        for name in self.mapping:
            if name not in known:
                self.wrong(name, "is an unknown key", "remove it, or use one of " + ", ".join(sorted(known)))


def _legs(node: _Node) -> dict[str, Leg]:
    node.only(set(ROUTES))
    return {route: _leg(node.node(route)) for route in node.mapping}


def _leg(node: _Node) -> Leg:
    node.only(set(Leg.__slots__))
    leg = Leg(
        url=node.take("url", str),
        path=node.take("path", str),
        model=node.take("model", str),
        version=node.optional("version", str) or "",
        gpus=tuple(node.optional("gpus", list) or ()),
        engine=node.optional("engine", str) or "",
        engine_version=node.optional("engine_version", str) or "",
        gpu_uuids=tuple(node.optional("gpu_uuids", list) or ()),
    )
    if not leg.url.startswith(("http://", "https://")):
        node.wrong("url", f"{leg.url!r} is not an http address", "write http://address:port")
    if not leg.path.startswith("/"):
        node.wrong("path", f"{leg.path!r} is not a path", "start it with /")
    if not all(isinstance(gpu, int) for gpu in leg.gpus):
        node.wrong("gpus", "must be a list of GPU indices", "correct the list")
    if not all(isinstance(uuid, str) for uuid in leg.gpu_uuids):
        node.wrong("gpu_uuids", "must be a list of GPU names as the driver tells them", "correct the list")
    return leg


def _tenants(node: _Node, pool: str) -> dict[str, Tenant]:
    """All tenants. Ten thousand are read while requests wait, so what is like one already read is not read again."""
    known: dict[str, Tenant] = {}
    alike: dict[Hashable, Tenant] = {}  # by all that a plain tenant says, but when it last changed
    for name, raw in node.mapping.items():
        try:
            routes, changed = raw["routes"], raw.get("changed")
            plain = len(raw) == 2 if changed is None else len(raw) == 3 and isinstance(changed, str)
            shape = (raw["policy"], tuple(routes), tuple(routes.values())) if plain else None
            tenant = alike.get(shape)
        except (AttributeError, KeyError, TypeError):
            shape = tenant = None
        if tenant is None:
            tenant = known[name] = _tenant(node.node(name), pool)
            if shape:
                alike[shape] = tenant._replace(changed="")
        else:
            known[name] = Tenant(tenant.policy, tenant.routes, changed) if changed else tenant
    return known


def _tenant(node: _Node, pool: str) -> Tenant:
    node.only(set(Tenant._fields))
    policy = node.choice("policy", POLICIES)
    if policy == "sensitive" and pool == "hybrid":
        node.wrong(
            "policy", "a sensitive tenant has no place in the pool that can reach the cloud", "use the sealed table"
        )
    if policy == "cloud_only" and pool == "sealed":
        node.wrong("policy", "a cloud_only tenant cannot be served by the sealed pool", "use the hybrid table")
    routes = node.node("routes")
    routes.only(set(ROUTES))
    states = {route: routes.choice(route, legal_states(policy, pool)) for route in routes.mapping}
    return Tenant(policy, states, node.optional("changed", str) or "", bool(node.optional("synthetic", bool)))


def _names(root: _Node, key: str) -> frozenset[str]:
    names = root.take(key, list)
    if not all(isinstance(name, str) for name in names):
        root.wrong(key, "must be a list of model names", "correct the list")
    return frozenset(names)


def _overrides(root: _Node) -> dict[str, str]:
    if "overrides" not in root.mapping:
        return {}
    node = root.node("overrides")
    return {model: node.choice(model, BREAKER_STATES) for model in node.mapping}


def _reverse_share(root: _Node, pool: str) -> float:
    if "reverse_shadow" not in root.mapping:
        return 0.0
    if pool == "sealed":
        root.wrong("reverse_shadow", "nothing of a sealed pool is ever asked of the cloud", "remove the key")
    node = root.node("reverse_shadow")
    node.only({"share"})
    return node.number("share", 0, 1)


def _fallback(node: _Node) -> Fallback:
    node.only(set(Fallback.__slots__))
    return Fallback(
        first_byte_s=node.number("first_byte_s", 0, 600),
        error_rate=node.number("error_rate", 0, 1),
        window_s=node.number("window_s", 0, 86400),
        minimum_requests=int(node.number("minimum_requests", 0, 1_000_000)),
        open_s=node.number("open_s", 0, 86400),
    )
