"""Rules and dashboards ask for what is really exposed, and every panel shows something in a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from exporters import PAGES, products
from monitor import OWN, SETTINGS, alertmanager, eventually, get, pages, prometheus

from gpu_cutover.monitoring import looked_at, routing, rules
from gpu_cutover.monitoring.boards.files import every_dashboard, texts
from gpu_cutover.monitoring.boards.panel import RATE

WINDOW = "10s"
WORDS = {"by", "on", "and", "or", "unless", "ignoring", "group_left", "group_right", "bool", "without", "offset"}


def metric_names(expr: str) -> set[str]:
    """The metrics that a query asks for: no strings, selectors, windows, label lists, functions."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expr.replace(RATE, "1m"))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|on|ignoring|without)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\b[a-z_]+\s*\(", "(", bare)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.sub(r"\b\d[\w.]*", " ", bare))) - WORDS


@dataclass(frozen=True)
class Monitor:
    """A Prometheus that scrapes everything, and the names it knows."""

    address: str
    names: frozenset[str]


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    directory = tmp_path_factory.mktemp("monitor")
    with ExitStack() as stack:
        ours = stack.enter_context(pages(PAGES))
        beside = stack.enter_context(products(directory))
        alerts = stack.enter_context(alertmanager(directory, routing.text(routing.Ways([], 5))))
        jobs = [
            *({"job_name": path.strip("/"), "metrics_path": path, "static_configs": [at(ours)]} for path in PAGES),
            *({"job_name": job, "static_configs": [at(address)]} for job, address in beside.items()),
            {"job_name": "prometheus", "static_configs": [at(OWN)]},
            {"job_name": "alertmanager", "static_configs": [at(alerts.removeprefix("http://"))]},
        ]
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
        }
        text = rules.text(SETTINGS).replace("interval: 30s", "interval: 1s")
        address = stack.enter_context(prometheus(directory, config, text))
        eventually(lambda: not looked_at.every_panel_has_data(address, SETTINGS, WINDOW))
        yield Monitor(address, frozenset(get(f"{address}/api/v1/label/__name__/values")["data"]))


def at(address: str) -> dict[str, Any]:
    return {"targets": [address], "labels": {"host": "here", "engine_model": "m"}}


def test_every_panel_shows_something(monitor: Monitor) -> None:
    assert looked_at.every_panel_has_data(monitor.address, SETTINGS, WINDOW) == []


def test_a_panel_without_data_or_with_a_wrong_query_is_told(monitor: Monitor) -> None:
    problem = looked_at.problem_of
    assert problem(monitor.address, "no_such_metric") == "no data"
    assert "400" in problem(monitor.address, "sum by (")
    assert "http://127.0.0.1:9" in problem("http://127.0.0.1:9", "up")


@pytest.mark.parametrize(
    "rule",
    [rule for group in rules.rule_file(SETTINGS)["groups"] for rule in group["rules"]],
    ids=lambda rule: rule.get("alert") or rule["record"],
)
def test_a_rule_asks_for_metrics_that_are_exposed(rule: dict[str, Any], monitor: Monitor) -> None:
    assert metric_names(rule["expr"]) - monitor.names == set()


def test_the_names_in_a_query_are_found() -> None:
    quantile = 'histogram_quantile(0.95, sum by (le, m) (rate(vllm:x_bucket{a="b c{}"}[5m])))'
    expr = f"{quantile} > 2 and on (h) up == 1 or y_total * 1e9"
    assert metric_names(expr) == {"vllm:x_bucket", "up", "y_total"}


def test_every_rule_can_be_evaluated(monitor: Monitor) -> None:
    groups = get(f"{monitor.address}/api/v1/rules")["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) > 100
    assert [rule["name"] for rule in found if rule["health"] == "err"] == []


def test_dashboards_are_the_same_bytes_each_time_and_no_two_share_a_name() -> None:
    assert texts(SETTINGS) == texts(SETTINGS)
    boards = [json.loads(text) for text in texts(SETTINGS).values()]
    assert len({board["uid"] for board in boards}) == len(boards) == 6
    for board in boards:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(set(places)) == len({panel["id"] for panel in board["panels"]}) == len(places)


def test_every_panel_has_a_title_and_a_unit_of_its_own_kind() -> None:
    for board in every_dashboard(SETTINGS):
        titles = [panel.title for panel in board.panels]
        assert len(set(titles)) == len(titles), board.name
        assert all(panel.queries and panel.unit for panel in board.panels)
