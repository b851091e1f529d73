"""How clinics are served: objectives, budget, answers, what is decided and what rings."""

from __future__ import annotations

from .. import slo
from ..settings import Settings
from .panel import Dashboard, Panel, p95, per_second


def dashboard(settings: Settings) -> Dashboard:
    """The first page a person on call opens."""
    bad = [
        (f'slo:bad:rate1h{{slo="{one.name}"}} / slo:requests:rate1h{{slo="{one.name}"}}', one)
        for one in slo.objectives(settings)
    ]
    return Dashboard(
        "service",
        "Service and objectives",
        [
            Panel(
                "What rings",
                [('count by (alertname, severity) (ALERTS{alertstate="firing"})', "{{alertname}}")],
                says="Watchdog always rings: without it the monitor itself is broken.",
            ),
            Panel(
                "Bad requests, last hour",
                [(expr, one.title) for expr, one in bad],
                "percentunit",
                "Each objective's share of the last hour; empty without requests.",
            ),
            Panel(
                "How fast the budget burns",
                [(f"{expr} / {one.budget:g}", one.title) for expr, one in bad],
                "short",
                "1 uses the budget up in thirty days; 14.4 pages.",
                limit=14.4,
            ),
            Panel(
                "Answers of the edge",
                [
                    (
                        per_second("haproxy_frontend_http_responses_total", "host, code", 'proxy="edge"'),
                        "{{host}} {{code}}",
                    )
                ],
                "reqps",
                "5xx is what a clinic does not get.",
            ),
            Panel(
                "Whole answers, p95",
                [(p95("gpu_cutover_router_total_seconds", "route, leg"), "{{route}} {{leg}}")],
                "s",
                "By route and leg: ours beside the cloud's.",
            ),
            Panel(
                "First byte, p95",
                [(p95("gpu_cutover_router_first_byte_seconds", "route, leg"), "{{route}} {{leg}}")],
                "s",
                "What a doctor waits for before text appears.",
            ),
            Panel(
                "Gates",
                [("gpu_cutover_gate_promoted", "day {{day}}: {{verdict}}")],
                "bool_yes_no",
                "The last verdict of each day, since day 7 closed.",
                "stat",
            ),
            Panel(
                "Age of the gates",
                [("time() - gpu_cutover_gate_finished_seconds", "day {{day}}")],
                "s",
                "How long ago each verdict was reached.",
                "stat",
            ),
            Panel(
                "Scraped",
                [("up", "{{job}} {{host}} {{engine_model}}")],
                "bool_on_off",
                "0 is a target that does not answer.",
            ),
            Panel(
                "Days until a certificate ends",
                [
                    (
                        "min by (certificate) (gpu_cutover_certificate_not_after_seconds - time()) / 86400",
                        "{{certificate}}",
                    )
                ],
                "d",
                "An alert comes at 21 days.",
            ),
        ],
    )
