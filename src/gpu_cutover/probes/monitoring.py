"""What Prometheus and Alertmanager say, as plain data. `base` is an address such as `http://10.0.0.1:9090`."""

from __future__ import annotations

import hashlib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from . import web

LISTENER_PORT = 9405
RULES = Path("/etc/prometheus/rules/gpu-cutover.yml")


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


def loading(base: str) -> dict[str, Any]:
    """Whether Prometheus took up its last configuration, and when (epoch s). Raises OSError."""
    found = {}
    for name in ("prometheus_config_last_reload_successful", "prometheus_config_last_reload_success_timestamp_seconds"):
        result = web.get_json(web.query(base, "/api/v1/query", query=name))["data"]["result"]
        found[name] = float(result[0]["value"][1]) if result else None
    successful, at = found.values()
    return {"successful": successful == 1, "at": at}


def rule_file(path: Path) -> dict[str, Any]:
    """sha256 of the rule file and when it was written (epoch s). Raises OSError."""
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "written": path.stat().st_mtime}


def reading(
    prometheus: str, expected: Iterable[str], shipped: Iterable[str], rules_sha256: str, path: Path = RULES
) -> dict[str, Any]:
    """The reading for the gate: expected targets that are up, down or unknown; rules; Alertmanagers. Never raises."""
    try:
        seen, loaded, senders = targets(prometheus), rules(prometheus), alertmanagers(prometheus)
        days, taken, file = certificate_days(prometheus), loading(prometheus), rule_file(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        return {"error": f"Prometheus cannot be asked: {error}"}
    wanted = sorted(set(expected))
    return {
        "expected": wanted,
        "up": [name for name in wanted if seen.get(name, {}).get("up")],
        "down": {name: seen[name]["error"] for name in wanted if name in seen and not seen[name]["up"]},
        "unknown": [name for name in wanted if name not in seen],
        "rules": sorted(loaded),
        "rules_missing": sorted(set(shipped) - loaded.keys()),
        "rules_foreign": sorted(loaded.keys() - set(shipped)),
        "rules_broken": sorted(name for name, rule in loaded.items() if rule["health"] == "err"),
        "rules_shipped": file["sha256"] == rules_sha256,
        "rules_taken_up": taken["successful"] and taken["at"] is not None and taken["at"] >= file["written"] - 1,
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
        and found["rules_taken_up"]
        and bool(found["alertmanagers"])
        and found["certificate_days"] is not None
    )


def arrived(listeners: Mapping[str, str], fired: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each listener (name → address) heard of the drills' alerts since the first of them, and of the watchdog.

    A drill that did not happen (`t` is 0) fired nothing. Never raises.
    """
    happened = [drill for drill in fired if drill["t"] > 0]
    since = min((float(drill["t"]) for drill in happened), default=0.0)
    wanted = sorted({str(drill["alert"]) for drill in happened})
    told = {name: _heard(base, since, wanted) for name, base in listeners.items()}
    return {"wanted": wanted, "since": since, "listeners": told}


def _heard(base: str, since: float, wanted: Sequence[str]) -> dict[str, Any]:
    try:
        told = web.get_json(web.query(base, "/alarms", since=f"{since}"))
        heard = {notice["alert"] for notice in told["notices"]}
        return {
            "watchdog_age_s": told["watchdog_age_s"],
            "patience_s": told["patience_s"],
            "heard": [name for name in wanted if name in heard],
            "missing": [name for name in wanted if name not in heard],
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        return {"error": f"the listener cannot be asked: {error}"}


def all_arrived(found: Mapping[str, Any]) -> bool:
    """Is there nothing left to wait for?"""
    return all(
        "error" not in told and not told["missing"] and told["watchdog_age_s"] is not None
        for told in found["listeners"].values()
    )
