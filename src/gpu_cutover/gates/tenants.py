"""What days 9 and 10 both ask of a tenant: is it where it should be, and was its watch clean? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .check import FAIL, PASS, Check, at_least, at_most, equals, number, reading_of, unproven

SOURCE = "site.gates"


def placed(plan: Mapping[str, Any], readings: Mapping[str, Any], tenant: str, host: str) -> Check:
    """Is every route of the tenant in its declared state on this gateway?"""
    declared = plan["tenants"][tenant]["declared"]
    sentence = f"{tenant}: every route is where the site declares it"
    reading, why = reading_of(readings, "routes", host)
    states = reading.get("states")
    found = states.get(tenant) if isinstance(states, Mapping) else None
    if not isinstance(found, Mapping):
        return unproven(f"routes.{tenant}", "site.tenants", sentence, host, why or "the tenant is in no table")
    wrong = {route: found.get(route) for route, state in declared.items() if found.get(route) != state}
    figure = ", ".join(f"{route} {state}" for route, state in sorted(wrong.items())) or "as declared"
    status = FAIL if wrong else PASS
    return Check(f"routes.{tenant}", status, figure, "", "as declared", "site.tenants", sentence, host, "equal to")


def watched(plan: Mapping[str, Any], readings: Mapping[str, Any], tenant: str) -> list[Check]:
    """Did the tenant's watch end clean on every gateway, with enough requests on all together and few enough errors?"""
    gates, gateways = plan["gates"], plan["hosts"]["gateway"]
    host = gateways[0] if len(gateways) == 1 else None
    watches, why = _watches(readings, tenant, gateways)
    sentence = f"{tenant}: the watch ended clean"
    verdicts = {str(watch.get("verdict")): str(watch.get("reason")) for watch in watches}
    bad = sorted(set(verdicts) - {"clean", "running", "short"})
    waiting = sorted(set(verdicts) & {"running", "short"})
    if waiting and not bad:
        reason = "; ".join(verdicts[one] for one in waiting)
        verdict = unproven(f"watch.{tenant}.verdict", "watch", sentence, host, reason, limit="clean")
    else:
        figure = ", ".join(bad) or ("clean" if watches else None)
        verdict = equals(f"watch.{tenant}.verdict", figure, "clean", "", "watch", sentence, host, why)
    seen, failed = _sums(watches)
    requests = at_least(
        f"watch.{tenant}.requests", seen, gates["watch_requests_min"], "", SOURCE,
        f"{tenant}: enough requests were watched", host, why,
    )  # fmt: skip
    if requests.status == FAIL:
        missing = f"{seen} of {gates['watch_requests_min']}"
        requests = unproven(requests.id, requests.source, requests.sentence, host, missing)
    rate = at_most(
        f"watch.{tenant}.error_rate", failed / seen if seen and failed is not None else None,
        gates["watch_error_rate_max"], "", SOURCE, f"{tenant}: share of failed requests on-prem", host, why,
    )  # fmt: skip
    return [verdict, requests, rate]


def _watches(readings: Mapping[str, Any], tenant: str, gateways: Sequence[str]) -> tuple[list[Mapping[str, Any]], str]:
    """(every gateway's watch of the tenant, why one is missing): none at all while one of them cannot be read."""
    found = []
    for host in gateways:
        reading, why = reading_of(readings, "routes", host)
        by_tenant = reading.get("watches")
        watch = by_tenant.get(tenant) if isinstance(by_tenant, Mapping) else None
        if not isinstance(watch, Mapping):
            return [], why or f"no watch of this tenant on {host} since its routes changed"
        found.append(watch)
    return found, ""


def _sums(watches: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """(requests, errors) of all gateways together; None where one of them does not tell."""
    requests, errors = ([number(watch.get(key)) for watch in watches] for key in ("requests", "errors"))
    seen = None if not requests or None in requests else int(sum(one or 0 for one in requests))
    return seen, None if not errors or None in errors else int(sum(one or 0 for one in errors))
