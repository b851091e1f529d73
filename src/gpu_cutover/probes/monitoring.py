"""What Prometheus and Alertmanager say, as plain data. `base` is an address such as `http://10.0.0.1:9090`."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from . import web


def targets(base: str) -> dict[str, dict[str, Any]]:
    """ "job instance" → {health, error, age...} of every active target. Raises OSError."""
    answer = web.get_json(f"{base}/api/v1/targets?state=active")
    found = {}
    for target in answer["data"]["activeTargets"]:
        labels = target["labels"]
        found[f"{labels['job']} {labels['instance']}"] = {
            "up": target["health"] == "up",
            "error": target.get("lastError", ""),
        }
    return found


def rules(base: str) -> dict[str, dict[str, Any]]:
    """Alert name → {state, health, error} of every alerting rule. Raises OSError."""
    groups = web.get_json(f"{base}/api/v1/rules?type=alert")["data"]["groups"]
    return {
        rule["name"]: {"state": rule["state"], "health": rule["health"], "error": rule.get("lastError", "")}
        for group in groups
        for rule in group["rules"]
    }


def alertmanagers(base: str) -> list[str]:
    """The Alertmanagers that Prometheus sends to. Raises OSError."""
    found = web.get_json(f"{base}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    return [str(entry["url"]) for entry in found]


def certificate_days(base: str) -> float | None:
    """Days until the first certificate in use ends, as Prometheus sees them; None when it sees none. Raises OSError."""
    query = urllib.parse.quote("min(gpu_cutover_certificate_not_after_seconds) - time()")
    found = web.get_json(f"{base}/api/v1/query?query={query}")["data"]["result"]
    return round(float(found[0]["value"][1]) / 86400, 1) if found else None


def _epoch(text: str) -> float:
    """Alertmanager's time (RFC 3339 with up to nine decimals) in epoch seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def alerts(base: str, name: str, labels: Mapping[str, str]) -> list[float]:
    """Starts (epoch s) of the active alerts with this name and these labels in Alertmanager. Raises OSError."""
    found = []
    for alert in web.get_json(f"{base}/api/v2/alerts?active=true"):
        known = alert["labels"]
        if known.get("alertname") == name and all(known.get(key) == value for key, value in labels.items()):
            found.append(_epoch(alert["startsAt"]))
    return found


def reading(prometheus: str, expected: Iterable[str], wanted_rules: Iterable[str]) -> dict[str, Any]:
    """The reading for the gate: expected targets that are up, down or unknown; rules; Alertmanagers. Never raises."""
    try:
        seen, loaded, senders = targets(prometheus), rules(prometheus), alertmanagers(prometheus)
        days = certificate_days(prometheus)
    except (OSError, KeyError, TypeError, ValueError) as error:
        return {"error": f"Prometheus cannot be asked: {error}"}
    wanted = sorted(set(expected))
    return {
        "expected": wanted,
        "up": [name for name in wanted if seen.get(name, {}).get("up")],
        "down": {name: seen[name]["error"] for name in wanted if name in seen and not seen[name]["up"]},
        "unknown": [name for name in wanted if name not in seen],
        "rules": sorted(loaded),
        "rules_missing": sorted(set(wanted_rules) - loaded.keys()),
        "rules_broken": sorted(name for name, rule in loaded.items() if rule["health"] == "err"),
        "alertmanagers": senders,
        "certificate_days": days,
    }


def complete(found: Mapping[str, Any]) -> bool:
    """Is there nothing left to wait for?"""
    if "error" in found:
        return False
    return (
        len(found["up"]) == len(found["expected"])
        and not found["rules_missing"]
        and bool(found["alertmanagers"])
        and found["certificate_days"] is not None
    )
