"""What a panel and a dashboard are, and Grafana's JSON of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${source}"}
SCHEMA = 39  # Grafana 11; older ones migrate down what they know
COLUMNS, WIDTH, HEIGHT = 2, 12, 8
# Grafana's own variable: at least four scrapes.
RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries`: (PromQL, legend). `unit`: Grafana's name of it. `says`: what a person should see in it."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    says: str = ""
    kind: str = "timeseries"
    limit: float | None = None  # drawn as a red line


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A subject."""

    name: str
    title: str
    panels: Sequence[Panel]

    def as_json(self) -> dict[str, Any]:
        """Grafana's model of it."""
        return {
            "uid": f"gpu-cutover-{self.name}",
            "title": self.title,
            "tags": ["gpu-cutover"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": False,
            "timezone": "browser",
            "refresh": "15s",
            "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "hide": 2}]},
            "links": [{"type": "dashboards", "tags": ["gpu-cutover"], "title": "gpu-cutover", "asDropdown": True}],
            "panels": [_panel(number, panel) for number, panel in enumerate(self.panels)],
        }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "targets": [
            {"refId": chr(65 + place), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
            for place, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {"legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]}}
        if panel.kind == "timeseries"
        else {},
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    style = {"thresholdsStyle": {"mode": "line" if panel.limit is not None else "off"}, "lineWidth": 1}
    return {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        **({"custom": style} if panel.kind == "timeseries" else {}),
    }


def p95(series: str, by: str, of: str = "") -> str:
    """95th percentile of a histogram by these labels."""
    return f"histogram_quantile(0.95, sum by (le, {by}) (rate({series}_bucket{{{of}}}[{RATE}])))"


def or_zero(expr: str, by: str, always: str) -> str:
    """The same, and 0 where nothing was counted yet: a series begins with its first event."""
    return f"{expr} or sum by ({by}) (0 * {always})"


def per_second(series: str, by: str, of: str = "") -> str:
    """Rate of a counter by these labels."""
    return f"sum by ({by}) (rate({series}{{{of}}}[{RATE}]))"
