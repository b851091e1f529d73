"""Where alerts go: Alertmanager's configuration.

A `page` goes to every way there is, a `ticket` to the mail (or, without mail, to the webhook), the watchdog to the
listeners only. The listeners on the gateways get everything: they keep it, and they miss the watchdog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from .alerts import PAGE, TICKET, WATCHDOG

HEAD = (
    "# Written by gpu-cutover (role monitoring). Severity decides who hears of it; a lost host silences its services.\n"
)
GATHERED_S = 10  # alerts of one cause come within seconds: one message
SUBJECT = "[{{ .Status }}] {{ .CommonLabels.alertname }} {{ .CommonLabels.host }}"


@dataclass(frozen=True, slots=True)
class Ways:
    """How people are reached. `mail`: to, sender, smarthost. Without any, alerts end at the listeners."""

    listeners: Sequence[str]
    heartbeat_s: int
    webhook: str = ""
    mail: Mapping[str, str] | None = None


def configuration(ways: Ways) -> dict[str, Any]:
    """Alertmanager's configuration as plain data."""
    return {
        "route": _route(ways),
        "receivers": [
            _receiver("watchdog", ways.listeners, "", None, resolved=False),
            _receiver(PAGE, ways.listeners, ways.webhook, ways.mail),
            _receiver(TICKET, ways.listeners, "" if ways.mail else ways.webhook, ways.mail),
        ],
        "inhibit_rules": _inhibitions(),
    }


def text(ways: Ways) -> str:
    """The file; equal ways give equal bytes."""
    return HEAD + yaml.safe_dump(configuration(ways), sort_keys=False, allow_unicode=True, width=120)


def _route(ways: Ways) -> dict[str, Any]:
    heartbeat = f"{ways.heartbeat_s}s"
    return {
        "receiver": TICKET,
        "group_by": ["alertname", "host"],
        "group_wait": f"{GATHERED_S}s",
        "group_interval": "1m",
        "repeat_interval": "1d",
        "routes": [
            {
                "matchers": [f'alertname = "{WATCHDOG}"'],
                "receiver": "watchdog",
                "group_wait": "0s",
                "group_interval": heartbeat,
                # Looked at when a group's interval is over: what is due a moment later would wait for the next one.
                "repeat_interval": f"{max(1, ways.heartbeat_s // 2)}s",
            },
            {"matchers": [f'severity = "{PAGE}"'], "receiver": PAGE, "repeat_interval": "1h"},
        ],
    }


def _receiver(
    name: str, listeners: Sequence[str], webhook: str, mail: Mapping[str, str] | None, *, resolved: bool = True
) -> dict[str, Any]:
    urls = [*listeners, *([webhook] if webhook else [])]
    found: dict[str, Any] = {"name": name}
    if urls:
        found["webhook_configs"] = [{"url": url, "send_resolved": resolved} for url in urls]
    if mail and name != "watchdog":
        address = {"to": mail["to"], "from": mail["sender"], "smarthost": mail["smarthost"]}
        found["email_configs"] = [{**address, "send_resolved": resolved, "headers": {"Subject": SUBJECT}}]
    return found


def _inhibitions() -> list[dict[str, Any]]:
    return [
        {
            "source_matchers": ['alertname = "HostLost"'],
            "target_matchers": [f'alertname !~ "HostLost|{WATCHDOG}"'],
            "equal": ["host"],
        },
        {
            "source_matchers": ['alertname =~ "GpuDerated|GpuLost"'],
            "target_matchers": ['alertname = "GpuMarginSmall"'],
            "equal": ["host", "gpu"],
        },
        *(
            {
                "source_matchers": [f'alertname = "{fast}"'],
                "target_matchers": [f'alertname =~ "{slower}"'],
                "equal": ["objective"],
            }
            for fast, slower in (
                ("BudgetBurnsFast", "BudgetBurns|BudgetBurnsSlowly|BudgetRunsOut"),
                ("BudgetBurns", "BudgetBurnsSlowly|BudgetRunsOut"),
                ("BudgetBurnsSlowly", "BudgetRunsOut"),
            )
        ),
    ]
