"""The rule file, as plain data and as text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import yaml

from . import slo
from .alerts import Alert, every_alert
from .settings import Settings

HEAD = (
    "# Written by gpu-cutover (role monitoring), from the site's own figures. Read on in runbooks/holiday-on-call.md.\n"
)


def rule_file(settings: Settings) -> dict[str, Any]:
    """The content of the rule file."""
    groups = [{"name": name, "rules": _rules(found, settings)} for name, found in every_alert(settings).items()]
    interval = f"{max(slo.EVALUATED_EVERY_S, settings.interval_s)}s"
    objectives = [*slo.recordings(settings), *_rules(slo.alerts(settings), settings)]
    return {"groups": [*groups, {"name": "objectives", "interval": interval, "rules": objectives}]}


def text(settings: Settings) -> str:
    """The rule file; equal settings give equal bytes."""
    return HEAD + yaml.safe_dump(rule_file(settings), sort_keys=False, allow_unicode=True, width=160)


def names(data: dict[str, Any]) -> list[str]:
    """The alerts of a rule file, each once."""
    return sorted({rule["alert"] for group in data["groups"] for rule in group["rules"] if "alert" in rule})


def digest(content: str) -> str:
    """sha256 of a rule file's text."""
    return hashlib.sha256(content.encode()).hexdigest()


def _rules(alerts: Iterable[Alert], settings: Settings) -> list[dict[str, Any]]:
    return [_rule(alert, settings) for alert in alerts]


def _rule(alert: Alert, settings: Settings) -> dict[str, Any]:
    held = {"for": f"{alert.hold_s}s"} if alert.hold_s else {}
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **held,
        "labels": {"severity": alert.severity, "page": settings.page, **alert.labels},
        "annotations": {"summary": alert.summary, "meaning": alert.meaning, "runbook": alert.runbook},
    }
