"""What must come out, told in another way than the routers and their orders do it."""

from __future__ import annotations

from typing import Any

from ..tables import legs, table, tenant
from .records import Asked
from .rig import Rig

ROUTE = {"chat": "chat", "chat_stream": "chat", "embed": "embed", "audio": "audio"}
ROUTES = ("chat", "embed", "audio")
TENANTS = {  # policy, pool
    "std": ("standard", "hybrid"),
    "two": ("standard", "hybrid"),
    "far": ("cloud_only", "hybrid"),
    "sec": ("sensitive", "sealed"),
}
SENSITIVE = ("sec",)
FOREIGN = ("sec", "nobody")
FIRST = {
    "std": {"chat": "onprem", "embed": "onprem", "audio": "mirror"},
    "two": {"chat": "mirror", "embed": "onprem", "audio": "onprem"},
    "far": {"chat": "cloud", "embed": "cloud", "audio": "cloud"},
    "sec": {"chat": "onprem", "embed": "onprem", "audio": "off"},
}
LOST = {"healthy": (), "without-gpu0": ("audio", "embed")}
FALLBACK = {"first_byte_s": 2.0, "error_rate": 0.4, "window_s": 60, "minimum_requests": 4, "open_s": 0.5}


def models_of(example: int) -> dict[str, str]:
    """The model of each route; every example has its own, so that no breaker remembers another's."""
    return {route: f"own{example}-{route}" for route in ROUTES}


def tables(example: int, rig: Rig) -> dict[str, Any]:
    """The tables that an example begins with."""
    made = {}
    for pool in ("hybrid", "sealed"):
        here = {name: tenant(policy, **FIRST[name]) for name, (policy, home) in TENANTS.items() if home == pool}
        raw = table(pool, cloud=rig.cloud.url, tenants=here, source=f"{rig.guard.url}/placement")
        raw["onprem"] = {name: legs(rig.engine.url, f"own{example}", lost) for name, lost in LOST.items()}
        raw["fallback"] = dict(FALLBACK)
        if pool == "hybrid":
            raw["reverse_shadow"] = {"share": 0.5}
        made[pool] = raw
    return made


class Model:
    """The site as it should be: by gateway."""

    def __init__(self, example: int, gateways: tuple[str, ...]) -> None:
        self.names = models_of(example)
        self.placement = "healthy"
        self.states = {name: {who: dict(routes) for who, routes in FIRST.items()} for name in gateways}
        self.out: dict[str, dict[str, set[str]]] = {name: {"hybrid": set(), "sealed": set()} for name in gateways}
        self.overrides: dict[str, dict[str, str]] = {name: {} for name in gateways}
        self.bad: dict[str, set[str]] = {name: set() for name in gateways}

    # --- one request ------------------------------------------------------------------------------------------------

    def outcomes(self, asked: Asked, rig: Rig, open_breakers: list[str]) -> set[str]:
        """What may come of this request now."""
        policy, home = TENANTS.get(asked.tenant, ("", ""))
        if home != asked.pool:
            return {"refused"}
        route = ROUTE[asked.kind]
        state = self.states[asked.gateway][asked.tenant][route]
        by_cloud = self._by("cloud", rig.cloud.fault, asked.kind) if policy != "sensitive" else set()
        if state == "off":
            return {"refused"}
        if state in ("cloud", "mirror"):
            return by_cloud
        takeover = by_cloud if route != "embed" else set()
        if route in LOST[self.placement]:
            return takeover or {"refused"}
        if route in self.out[asked.gateway][asked.pool]:
            return by_cloud or {"refused"}
        word = self.overrides[asked.gateway].get(route, "auto")
        if word == "open" and takeover:
            return takeover
        here = self._by("onprem", rig.engine.fault, asked.kind)
        if takeover and "failed" in here:
            here = (here - {"failed"}) | takeover
        if takeover and word == "auto" and self.names[route] in open_breakers:
            here = here | takeover
        return here

    @staticmethod
    def _by(leg: str, fault: str, kind: str) -> set[str]:
        """What comes of a request that only this leg answers."""
        if not fault:
            return {leg}
        return {"broken", "failed"} if fault == "cut" and kind == "chat_stream" else {"failed"}

    # --- orders -----------------------------------------------------------------------------------------------------

    def rolled_back(
        self, gateway: str, tenant: str | None, route: str | None, accept_off: bool, no_cloud: set[str]
    ) -> tuple[dict[str, dict[str, str]], set[str]]:
        """Carry a rollback out on the model. (what moved, as it works; what has to wait)"""
        moved: dict[str, dict[str, str]] = {}
        waiting = set()
        for name, routes in self.states[gateway].items():
            for one, state in list(routes.items()):
                if tenant not in (None, name) or route not in (None, one) or state not in ("onprem", "mirror"):
                    continue
                sensitive = TENANTS[name][0] == "sensitive"
                if state == "onprem" and (not accept_off if sensitive else one in no_cloud):
                    waiting |= set() if sensitive else {f"{name}/{one}"}
                    continue
                routes[one] = "off" if sensitive else "cloud"
                if self._works_as(gateway, name, one, state) != routes[one]:
                    moved.setdefault(name, {})[one] = routes[one]
        return moved, waiting

    def onprem(self, gateway: str, tenant: str | None, route: str | None, *pools: str) -> set[str]:
        """The routes that some tenant of these pools has on our machine."""
        return {
            one
            for name, routes in self.states[gateway].items()
            for one, state in routes.items()
            if state == "onprem" and tenant in (None, name) and route in (None, one) and TENANTS[name][1] in pools
        }

    def _works_as(self, gateway: str, tenant: str, route: str, state: str) -> str:
        """A route whose model is out works as if it were where its requests go."""
        if state != "onprem" or route not in self.out[gateway][TENANTS[tenant][1]]:
            return state
        return "off" if TENANTS[tenant][0] == "sensitive" else "cloud"

    def set_out(self, gateway: str, route: str, out: bool, pools: list[str]) -> None:
        for pool in pools:
            (self.out[gateway][pool].add if out else self.out[gateway][pool].discard)(route)

    def adopted(self, gateway: str, other: str, pool: str, raw: dict[str, Any]) -> None:
        """Each tenant is as it was or as the other gateway has it; the models likewise."""
        for name, entry in raw["tenants"].items():
            assert entry["routes"] in (self.states[gateway][name], self.states[other][name])
            self.states[gateway][name] = dict(entry["routes"])
        out = {route for route, model in self.names.items() if model in raw["models_rolled_back"]}
        assert out in (self.out[gateway][pool], self.out[other][pool])
        self.out[gateway][pool] = out
