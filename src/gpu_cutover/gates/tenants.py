"""What days 9 and 10 both ask of a tenant: is it where it should be, and was its watch clean? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import FAIL, PASS, Check, at_least, at_most, equals, reading_of, unproven

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


def watched(plan: Mapping[str, Any], readings: Mapping[str, Any], tenant: str, host: str) -> list[Check]:
    """Did the tenant's watch end clean, with enough requests and few enough errors?"""
    gates = plan["gates"]
    reading, why = reading_of(readings, "routes", host)
    by_tenant = reading.get("watches")
    watch = by_tenant.get(tenant) if isinstance(by_tenant, Mapping) else None
    if not isinstance(watch, Mapping):
        watch, why = {}, why or "no watch of this tenant since its routes changed"
    sentence = f"{tenant}: the watch ended clean"
    if watch.get("verdict") in ("running", "short"):
        reason = str(watch.get("reason"))
        verdict = unproven(f"watch.{tenant}.verdict", "watch", sentence, host, reason, limit="clean")
    else:
        verdict = equals(f"watch.{tenant}.verdict", watch.get("verdict"), "clean", "", "watch", sentence, host, why)
    requests = at_least(
        f"watch.{tenant}.requests", watch.get("requests"), gates["watch_requests_min"], "", SOURCE,
        f"{tenant}: enough requests were watched", host, why,
    )  # fmt: skip
    if requests.status == FAIL:
        missing = f"{watch.get('requests')} of {gates['watch_requests_min']}"
        requests = unproven(requests.id, requests.source, requests.sentence, host, missing)
    rate = at_most(
        f"watch.{tenant}.error_rate", watch.get("error_rate"), gates["watch_error_rate_max"], "",
        SOURCE, f"{tenant}: share of failed requests on-prem", host, why,
    )  # fmt: skip
    return [verdict, requests, rate]
