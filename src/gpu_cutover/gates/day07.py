"""Day 7: when something dies, who notices, and how fast is it back?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .check import Check, at_least, at_most, equals, reading_of, unproven

CERTIFICATE_DAYS_MIN = 21
GPU_DRILLS = ("engine", "guard")
GATEWAY_DRILLS = ("router",)
ROLE = "role monitoring"
SITE = "site gates.recovery_max_s"
SITE_ALERT = "site gates.alert_max_s"


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """The checks of the monitor, then of every host on which something was killed."""
    found: list[Check] = []
    for host in plan["hosts"]["monitor"]:
        found += _monitor(readings, host)
        found += _alarms(readings, host, plan["hosts"]["gateway"])
    for group, drills in (("gpu", GPU_DRILLS), ("gateway", GATEWAY_DRILLS)):
        for host in plan["hosts"][group]:
            reading, why = reading_of(readings, "recovery", host)
            for name in drills:
                found += _drill(plan["gates"], (reading.get("drills") or {}).get(name), name, host, why)
    for host in plan["hosts"]["gpu"]:
        found.append(_engines(readings, host))
    return found


def _monitor(readings: Mapping[str, Any], host: str) -> list[Check]:
    reading, why = reading_of(readings, "monitoring", host)
    expected, up = reading.get("expected"), reading.get("up")
    missing = [*(reading.get("down") or {}), *(reading.get("unknown") or [])]
    not_up = f": not {', '.join(missing)}" if missing else ""
    rules = reading.get("rules")
    missing_rules = [*(reading.get("rules_missing") or []), *(reading.get("rules_foreign") or [])]
    as_shipped = reading.get("rules_shipped") and reading.get("rules_taken_up") and not missing_rules
    unlike = f": not {', '.join(missing_rules)}" if missing_rules else ""
    senders = reading.get("alertmanagers")
    return [
        equals(
            "monitoring.targets",
            len(up) if isinstance(up, list) and expected else None,
            len(expected) if isinstance(expected, list) else None,
            "",
            "every role that serves",
            f"every expected target is scraped{not_up}",
            host,
            why,
        ),
        equals(
            "monitoring.rules",
            bool(as_shipped) if rules else None,
            True,
            "",
            ROLE,
            f"the {len(rules or [])} alerts that are loaded are those that were shipped{unlike}",
            host,
            why,
        ),
        equals(
            "monitoring.rules_broken",
            len(reading["rules_broken"]) if isinstance(reading.get("rules_broken"), list) else None,
            0,
            "",
            "Prometheus",
            "every rule can be evaluated",
            host,
            why,
        ),
        at_least(
            "monitoring.certificate_days",
            reading.get("certificate_days"),
            CERTIFICATE_DAYS_MIN,
            "days",
            "role site_pki",
            "every certificate in use is watched, and good for a while",
            host,
            why,
        ),
        at_least(
            "monitoring.alertmanager",
            len(senders) if isinstance(senders, list) else None,
            1,
            "",
            "Prometheus",
            "alerts have somewhere to go",
            host,
            why,
        ),
    ]


def _alarms(readings: Mapping[str, Any], host: str, gateways: Iterable[str]) -> list[Check]:
    """On every gateway: the watchdog is heard, and the drills' alerts arrived."""
    reading, why = reading_of(readings, "alarms", host)
    wanted = reading.get("wanted") or []
    found: list[Check] = []
    for gateway in gateways:
        told = (reading.get("listeners") or {}).get(gateway) or {}
        reason = why or str(told.get("error") or "the listener was not asked")
        age, patience = told.get("watchdog_age_s"), told.get("patience_s")
        if age is None or patience is None:
            found.append(unproven("alarms.watchdog", ROLE, "the watchdog is heard", gateway, reason, unit="s"))
        else:
            found.append(at_most("alarms.watchdog", age, patience, "s", ROLE, "the watchdog is heard", gateway))
        heard = len(told["heard"]) if wanted and "heard" in told else None
        missing = f": not {', '.join(told['missing'])}" if told.get("missing") else ""
        sentence = f"the drills' alerts arrived where people are told{missing}"
        found.append(equals("alarms.arrived", heard, len(wanted), "", ROLE, sentence, gateway, reason))
    return found


def _drill(gates: Mapping[str, Any], drill: Mapping[str, Any] | None, name: str, host: str, why: str) -> list[Check]:
    """Back in time, and a person would have been told. A drill that was not run proves nothing."""
    id_ = f"recovery.{name}"
    if not drill or (drill.get("error") and not drill.get("t")):
        reason = why or (str(drill["error"]) if drill else "the drill was not run")
        return [
            unproven(id_, SITE, f"{name} killed and back", host, reason, unit="s"),
            unproven(f"{id_}.alert", SITE_ALERT, f"the alert for {name} fired", host, reason, unit="s"),
        ]
    sentence = f"{drill['unit']} killed, noticed after {drill.get('detection_s', '?')} s, serving again"
    return [
        _late_is_bad(id_, drill.get("recovery_s"), gates["recovery_max_s"], SITE, sentence, host),
        _late_is_bad(
            f"{id_}.alert", drill.get("alert_s"), gates["alert_max_s"], SITE_ALERT, f"{drill['alert']} fired", host
        ),
    ]


def _late_is_bad(id_: str, seconds: Any, limit: float, source: str, sentence: str, host: str) -> Check:
    """A drill that ran and has no time was waited for beyond its bound: that is proven bad, not missing."""
    if seconds is None:
        return Check(id_, "fail", f"not within {limit:g} s", "", limit, source, sentence, host, "at most")
    return at_most(id_, seconds, limit, "s", source, sentence, host)


def _engines(readings: Mapping[str, Any], host: str) -> Check:
    reading, why = reading_of(readings, "engine_health", host)
    engines = reading.get("engines") or {}
    healthy = sum(bool(engine["active"] and engine["healthy"]) for engine in engines.values())
    figure = healthy if engines else None
    return equals(
        "recovery.engines", figure, len(engines), "", "the placement", "every engine serves after the drills", host, why
    )
