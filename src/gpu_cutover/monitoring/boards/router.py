"""Routers and tenants: who was answered by which leg, how fast, and why not by the first."""

from __future__ import annotations

from .panel import Dashboard, Panel, or_zero, p95, per_second

ROUTER = "gpu_cutover_router"
MODEL = "gen_ai_request_model, gen_ai_provider_name"
OF_MODEL = "{{gen_ai_request_model}} {{gen_ai_provider_name}}"
WHO = "{{host}} {{job}}"


def _counted(what: str, by: str) -> str:
    """A counter since the router started."""
    return or_zero(f"sum by (host, {by}) ({ROUTER}_{what})", "host", f"{ROUTER}_in_flight")


def dashboard() -> Dashboard:
    """Router and tenants."""
    return Dashboard(
        "router",
        "Router and tenants",
        [
            Panel(
                "Attempts by tenant and leg",
                [(per_second(f"{ROUTER}_attempts_total", "tenant, leg"), "{{tenant}} {{leg}}")],
                "reqps",
                "A sensitive tenant has no line with `cloud`, ever.",
            ),
            Panel(
                "Attempts by route and leg",
                [(per_second(f"{ROUTER}_attempts_total", "route, leg"), "{{route}} {{leg}}")],
                "reqps",
            ),
            Panel(
                "Why",
                [(per_second(f"{ROUTER}_attempts_total", "why"), "{{why}}")],
                "reqps",
                "policy is the rule; fallback, breaker and derate are answers from elsewhere; refused is none.",
            ),
            Panel(
                "How they ended",
                [(per_second(f"{ROUTER}_attempts_total", "leg, outcome"), "{{leg}} {{outcome}}")],
                "reqps",
            ),
            Panel("Attempts, p95", [(p95("gen_ai_server_request_duration_seconds", MODEL), OF_MODEL)], "s"),
            Panel("First token, p95", [(p95("gen_ai_server_time_to_first_token_seconds", MODEL), OF_MODEL)], "s"),
            Panel("Per token, p95", [(p95("gen_ai_server_time_per_output_token_seconds", MODEL), OF_MODEL)], "s"),
            Panel("Tokens", [(per_second("gen_ai_client_token_usage_sum", MODEL), OF_MODEL)], "short", "A second."),
            Panel("Under way", [(f"{ROUTER}_in_flight", WHO)], "short", "At most 512 a router."),
            Panel(
                "Bytes of their bodies", [(f"{ROUTER}_in_flight_body_bytes", WHO)], "bytes", "At most 256 MiB a router."
            ),
            Panel(
                "Turned away",
                [(_counted("turned_away_total", "reason"), "{{host}} {{reason}}")],
                "short",
                "Since the router started; 0 without any.",
            ),
            Panel(
                "Breakers",
                [(_counted("breaker_open", "model"), "{{host}} {{model}}")],
                "bool_yes_no",
                "1 while a model's requests go elsewhere.",
            ),
            Panel(
                "Copies compared",
                [(_counted("mirrored_total", "route, outcome"), "{{host}} {{route}} {{outcome}}")],
                "short",
                "Day 8's mirror.",
            ),
            Panel(
                "Copies waiting and dropped",
                [
                    (f"{ROUTER}_mirror_waiting", "{{host}} waiting"),
                    (_counted("mirror_dropped_total", "route"), "{{host}} dropped {{route}}"),
                ],
                "short",
            ),
            Panel(
                "On-prem answers asked again of the cloud",
                [(_counted("reverse_shadow_total", "route, outcome"), "{{host}} {{route}} {{outcome}}")],
                "short",
            ),
            Panel(
                "Records",
                [(f"{ROUTER}_records_written", f"{WHO} written"), (f"{ROUTER}_records_lost", f"{WHO} lost")],
                "short",
                "Lost must stay 0.",
            ),
            Panel(
                "Table in force",
                [(f"{ROUTER}_table_version", WHO), (f"{ROUTER}_table_bad", f"{WHO} wrong on disk")],
                "short",
            ),
            Panel(
                "Age of the placement", [(f"{ROUTER}_placement_age_seconds", WHO)], "s", "Asked every second.", limit=30
            ),
        ],
    )
