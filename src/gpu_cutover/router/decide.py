"""Which leg answers a request, which may take over, and whether a copy goes on-prem. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .table import Leg, Table, Tenant

# Two embedding models share no vector space: an automatic change of leg would search an on-prem index with cloud
# vectors and return wrong documents without an error (facts: delivery C2). Only a person moves this route.
NO_AUTOMATIC_CHANGE = frozenset({"embed"})


@dataclass(frozen=True, slots=True)
class Live:
    """What is true now beside the table.

    The placement that runs, the on-prem models whose breaker is open, and those whose engines the guard starts anew.
    """

    placement: str
    open_models: frozenset[str] = frozenset()
    away: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one request. Without `leg` it is refused (503, `sentence` says why to the caller)."""

    state: str
    why: str  # policy | drill | derate | breaker | refused
    sentence: str
    leg_name: str | None = None  # onprem | cloud
    leg: Leg | None = None
    fallback: Leg | None = None
    mirror: Leg | None = None
    reverse: Leg | None = None  # the cloud's leg that may be asked the same once the on-prem answer is complete


def decide(table: Table, tenant_name: str, route: str, live: Live) -> Decision:
    """Decide one request. Never yields a cloud leg for a sensitive tenant or in a sealed pool."""
    tenant = table.tenants.get(tenant_name)
    if tenant is None:
        return _refused("off", "this tenant is not known here")
    state = tenant.routes.get(route, "off")
    if state == "off":
        return _refused(state, "this route is not served for this tenant at the moment")
    if state == "onprem":
        return _onprem(table, tenant, route, live)
    return _cloud(table, tenant, route, live, state)


def _cloud(table: Table, tenant: Tenant, route: str, live: Live, state: str) -> Decision:
    leg = _cloud_leg(table, tenant, route)
    if leg is None:
        return _refused(state, "no permitted model serves this route")
    copy = _usable(table, route, live) if state == "mirror" else None
    return Decision(state, _reason(tenant), "", "cloud", leg, mirror=copy)


def _onprem(table: Table, tenant: Tenant, route: str, live: Live) -> Decision:
    leg = table.onprem.get(live.placement, {}).get(route)
    cloud = _cloud_leg(table, tenant, route)
    takeover = None if route in NO_AUTOMATIC_CHANGE else cloud
    if leg is None or leg.model in live.away:
        return _instead(takeover, "derate", "this route's model is not running at the moment")
    if leg.model in table.models_rolled_back:
        return _instead(cloud, "policy", "this route's model has been rolled back")
    if leg.model in live.open_models and takeover is not None:
        return Decision("onprem", "breaker", "", "cloud", takeover)
    # With nowhere else to go the breaker does not refuse: at 6 % errors, 94 % of answers are better than none.
    reverse = cloud if tenant.policy == "standard" and not tenant.synthetic and table.reverse_share else None
    return Decision("onprem", _reason(tenant), "", "onprem", leg, fallback=takeover, reverse=reverse)


def _reason(tenant: Tenant) -> str:
    """Why a leg was taken where nothing was in the way: a synthetic tenant only ever drills."""
    return "drill" if tenant.synthetic else "policy"


def _instead(cloud: Leg | None, why: str, sentence: str) -> Decision:
    return Decision("onprem", why, "", "cloud", cloud) if cloud else _refused("onprem", sentence)


def _usable(table: Table, route: str, live: Live) -> Leg | None:
    leg = table.onprem.get(live.placement, {}).get(route)
    return None if leg is None or leg.model in table.models_rolled_back or leg.model in live.away else leg


def _cloud_leg(table: Table, tenant: Tenant, route: str) -> Leg | None:
    """The cloud leg this tenant may use. Validation refuses such a state already; this is the second lock."""
    if table.pool == "sealed" or tenant.policy == "sensitive":
        return None
    return table.cloud.get(route)


def _refused(state: str, sentence: str) -> Decision:
    return Decision(state, "refused", sentence)
