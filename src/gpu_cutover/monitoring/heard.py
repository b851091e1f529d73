"""What a listener has heard, and when silence is an alarm. Pure: times come from the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WATCHDOG = "Watchdog"
KEPT = 1000
AGAIN_S = 3600.0
Notice = dict[str, Any]


def notices(message: Mapping[str, Any], now: float) -> list[Notice]:
    """The alerts of Alertmanager's message (webhook, version 4). Raises KeyError, TypeError for anything else."""
    return [
        {
            "t": round(now, 3),
            "status": str(alert["status"]),
            "alert": str(alert["labels"]["alertname"]),
            "labels": {str(key): str(value) for key, value in alert["labels"].items() if key != "alertname"},
            "summary": str(alert.get("annotations", {}).get("summary", "")),
            "started": str(alert.get("startsAt", "")),
        }
        for alert in message["alerts"]
    ]


@dataclass
class Heard:
    """A listener's memory. `patience_s`: silence of the watchdog that is an alarm; counted from the start at first.

    `armed`: the watchdog was heard at least once since the listener was installed. Before, there is no monitor yet.
    """

    started: float
    patience_s: float
    armed: bool = False
    watchdog: float | None = None
    told: float | None = None
    kept: deque[Notice] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, found: Iterable[Notice]) -> list[Notice]:
        """Take what came; returns what is worth keeping (not the watchdog)."""
        worth = []
        for notice in found:
            if notice["alert"] == WATCHDOG:
                if notice["status"] == "firing":
                    self.watchdog, self.armed = notice["t"], True
            else:
                worth.append(notice)
        self.kept.extend(worth)
        return worth

    def silent_s(self, now: float) -> float:
        """Seconds since the watchdog was heard."""
        return max(0.0, now - (self.started if self.watchdog is None else self.watchdog))

    def is_silent(self, now: float) -> bool:
        """Is the silence an alarm?"""
        return self.silent_s(now) > self.patience_s

    def to_tell(self, now: float) -> str | None:
        """`firing` once when it falls silent and every hour, `resolved` when it is heard again, else None."""
        if self.armed and self.is_silent(now):
            return "firing" if self.told is None or now - self.told >= AGAIN_S else None
        return "resolved" if self.told is not None else None

    def was_told(self, status: str, now: float) -> None:
        """People were told (or all ways failed: the caller decides when to try again)."""
        self.told = now if status == "firing" else None

    def since(self, t: float) -> list[Notice]:
        """Notices not older than `t`."""
        return [notice for notice in self.kept if notice["t"] >= t]


def own_alarm(host: str, status: str, silent_s: float, patience_s: float) -> dict[str, Any]:
    """The message about the silence itself, in Alertmanager's shape, so that a receiver need not know two."""
    summary = f"The monitor has been silent for {silent_s:.0f} s (allowed {patience_s:.0f} s), says {host}"
    if status == "resolved":
        summary = f"The monitor is heard again, says {host}"
    labels = {"alertname": "MonitorSilent", "severity": "page", "host": host}
    annotations = {"summary": summary, "runbook": "runbooks/holiday-on-call.md"}
    alert = {"status": status, "labels": labels, "annotations": annotations}
    return {"version": "4", "status": status, "receiver": host, "commonLabels": labels, "alerts": [alert]}
