"""Objectives and how fast their error budget burns: multi-window, multi-burn-rate, as the SRE workbook's chapter
"Alerting on SLOs" has it (14.4 x in 1 h and 5 m, 6 x in 6 h and 30 m, 3 x in 1 d and 2 h, 1 x in 3 d and 6 h).

A target "p95 <= T" is an objective of 95 % of the requests within T. A share within T is read from a histogram as
`histogram_quantile` reads it: linear between two bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from .alerts import ON_CALL, PAGE, TICKET, Alert
from .settings import Settings

# Bounds of the router's histograms (`router.metrics.SECONDS`; a test compares them).
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
P95 = 0.95
THREE_NINES = 0.999
EVALUATED_EVERY_S = 30
# One failed request of a quiet night is a large share of few: below this count nobody is woken.
BAD_MIN = 5
WINDOW_S = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21600, "1d": 86400, "3d": 259200}


@dataclass(frozen=True, slots=True)
class Burn:
    """An alert fires while the budget burns at `rate` times the allowed speed in both windows."""

    name: str
    rate: float
    long: str
    short: str
    severity: str


BURNS = (
    Burn("BudgetBurnsFast", 14.4, "1h", "5m", PAGE),
    Burn("BudgetBurns", 6.0, "6h", "30m", PAGE),
    Burn("BudgetBurnsSlowly", 3.0, "1d", "2h", TICKET),
    Burn("BudgetRunsOut", 1.0, "3d", "6h", TICKET),
)


@dataclass(frozen=True, slots=True)
class Objective:
    """`total` and `bad` are requests per second, with `$window` in place of the window."""

    name: str
    title: str
    objective: float
    total: str
    bad: str

    @property
    def budget(self) -> float:
        """The share of requests that may be bad."""
        return round(1.0 - self.objective, 9)


def objectives(settings: Settings) -> list[Objective]:
    """The plan's targets that live traffic shows, as far as the site declares them; 99.9 % always."""
    accepted = settings.targets.get("availability", THREE_NINES)
    found = [_availability(share) for share in sorted({accepted, THREE_NINES})]
    for target, title, metric, routes in (
        ("whisper_p95_s", "recordings", "total_seconds", "audio"),
        ("soap_p95_s", "whole notes and chats", "total_seconds", "chat"),
        ("soap_first_token_p95_s", "first tokens", "first_byte_seconds", "chat"),
        ("retrieval_p95_s", "retrieval calls", "total_seconds", "embed|rerank"),
    ):
        if target in settings.targets:
            found.append(_latency(target, title, metric, routes, settings.targets[target]))
    return found


def _availability(share: float) -> Objective:
    """What a clinic sees: answers of every edge that are no server error."""
    answers = 'haproxy_frontend_http_responses_total{proxy="edge"'
    return Objective(
        f"availability-{100 * share:g}",
        f"{100 * share:g} % of requests answered",
        share,
        f"sum(rate({answers}}}[$window]))",
        f'sum(rate({answers},code="5xx"}}[$window]))',
    )


def _latency(name: str, title: str, metric: str, routes: str, target_s: float) -> Objective:
    series = f"gpu_cutover_router_{metric}"
    of = f'leg="onprem",route=~"{routes}"'
    total = f"sum(rate({series}_count{{{of}}}[$window]))"
    return Objective(
        name, f"95 % of {title} within {target_s:g} s", P95, total, f"{total} - ({_within(series, of, target_s)})"
    )


def _within(series: str, of: str, target_s: float) -> str:
    """Requests per second that took at most `target_s`."""
    above = bisect_left(BOUNDS, target_s)
    if above == len(BOUNDS):  # beyond the last bound nothing can be told apart
        return _below(series, of, "+Inf")
    high, low = BOUNDS[above], BOUNDS[above - 1] if above else 0.0
    weight = round((target_s - low) / (high - low), 6)
    part = _below(series, of, f"{high:g}")
    if weight == 1.0:
        return part
    return f"{weight:g} * {part}" + (f" + {1 - weight:g} * {_below(series, of, f'{low:g}')}" if above else "")


def _below(series: str, of: str, bound: str) -> str:
    # An exporter writes le="2.0", a newer Prometheus keeps le="2".
    label = 'le="+Inf"' if bound == "+Inf" else 'le=~"{}(\\\\.0)?"'.format(bound.replace(".", "\\\\."))
    return f"sum(rate({series}_bucket{{{of},{label}}}[$window]))"


def recordings(settings: Settings) -> list[dict[str, object]]:
    """Recording rules: requests and bad requests per second of each objective in each window."""
    return [
        {
            "record": f"slo:{what}:rate{window}",
            "expr": expr.replace("$window", window),
            "labels": {"slo": objective.name},
        }
        for objective in objectives(settings)
        for window in WINDOW_S
        for what, expr in (("requests", objective.total), ("bad", objective.bad))
    ]


def alerts(settings: Settings) -> Iterable[Alert]:
    """Four alerts per objective."""
    for objective in objectives(settings):
        for burn in BURNS:
            yield _alert(objective, burn)


def _alert(objective: Objective, burn: Burn) -> Alert:
    too_much = f"{burn.rate * objective.budget:.6g}"
    of = f'{{slo="{objective.name}"}}'
    return Alert(
        burn.name,
        f"slo:bad:rate{burn.long}{of} / slo:requests:rate{burn.long}{of} > {too_much}"
        f" and slo:bad:rate{burn.short}{of} / slo:requests:rate{burn.short}{of} > {too_much}"
        f" and slo:bad:rate{burn.long}{of} * {WINDOW_S[burn.long]} >= {BAD_MIN}",
        burn.severity,
        f"{{{{ $value | humanizePercentage }}}} of the last {burn.long} missed the objective: {objective.title}",
        f"The error budget burns {burn.rate:g} times as fast as allowed; at this speed thirty days' worth is gone in "
        f"{_span(30 * 24 / burn.rate)}.",
        ON_CALL,
        labels={"objective": objective.name},
    )


def _span(hours: float) -> str:
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
