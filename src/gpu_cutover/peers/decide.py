"""Whose table is newer? Pure: two tables in, one order or none out. Standard library only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..router import change
from ..router.orders import Order

# An order reaches all gateways within a second or two. Only what stays different is a gateway that missed something.
SETTLE_S = 3.0
BACK = ("cloud", "off")
SHARED = ("pool", "models_rolled_back", "overrides", "models_changed")


def shared_part(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What gateways compare of a table: tenants' routes with their times, models and breakers. Legs are the plan's."""
    tenants = {
        name: {key: tenant[key] for key in ("routes", "changed") if key in tenant}
        for name, tenant in raw["tenants"].items()
    }
    return {"tenants": tenants, **{key: raw[key] for key in SHARED if key in raw}}


def digest(raw: Mapping[str, Any]) -> str:
    """What two tables have in common when they send everybody the same way; times do not count."""
    routes = {name: tenant["routes"] for name, tenant in raw["tenants"].items()}
    content = [routes, raw["models_rolled_back"], raw.get("overrides", {})]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class Settling:
    """What would be taken over, and since when it is the same."""

    since: dict[str, tuple[str, float]] = field(default_factory=dict)

    def settled(self, key: str, wanted: str, now: float) -> bool:
        """Has the same been wanted for long enough? Asked again and again."""
        known = self.since.get(key)
        if known is None or known[0] != wanted:
            self.since[key] = (wanted, now)
            return False
        return now - known[1] >= SETTLE_S

    def over(self, key: str) -> None:
        """There is nothing to take over."""
        self.since.pop(key, None)


def order_for(own: change.Raw, theirs: Mapping[str, Any], peer: str, id: str) -> Order | None:
    """The order that takes over what a peer's table says later; None when there is nothing."""
    wanted = change.adopted(own, theirs)
    if digest(wanted) == digest(own):
        return None
    _, after = change.moved(change.states(own), change.states(wanted))
    goals = {state for routes in after.values() for state in routes.values()}
    return Order(
        do="adopt",
        id=id,
        by=peer,
        path="peer",
        reason=f"taken over from {peer}, which has it later",
        record="rollback" if goals and goals <= set(BACK) else "cutover",
        states=after,
        tables={str(own["pool"]): dict(theirs)},
    )
