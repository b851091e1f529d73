"""Does every panel show something? Each query of each dashboard, asked of a Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..probes import web
from .boards.files import every_dashboard
from .boards.panel import RATE
from .settings import Settings


@dataclass(frozen=True, slots=True)
class Empty:
    """A query that gave nothing, and what Prometheus said."""

    dashboard: str
    panel: str
    query: str
    problem: str


def every_panel_has_data(prometheus: str, settings: Settings, rate_window: str = "1m") -> list[Empty]:
    """The queries without data, none when all is well. `rate_window` stands for Grafana's variable."""
    return list(_empty(prometheus, settings, rate_window))


def _empty(prometheus: str, settings: Settings, rate_window: str) -> Iterator[Empty]:
    for board in every_dashboard(settings):
        for panel in board.panels:
            for expr, _ in panel.queries:
                problem = problem_of(prometheus, expr.replace(RATE, rate_window))
                if problem:
                    yield Empty(board.name, panel.title, expr, problem)


def problem_of(prometheus: str, expr: str) -> str:
    """Why a query shows nothing; empty when it shows something."""
    try:
        answer = web.get_json(web.query(prometheus, "/api/v1/query", query=expr))
        return "" if answer["data"]["result"] else "no data"
    except (OSError, KeyError, TypeError) as error:
        return str(error)
