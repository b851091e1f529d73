"""vLLM and Triton: load, queue, cache, times."""

from __future__ import annotations

from .panel import RATE, Dashboard, Panel, p95, per_second

MODEL = "{{model_name}}"


def _mean(what: str) -> str:
    """Seconds a request of Triton, by model: its sums are in microseconds."""
    requests = f"sum by (model) (rate(nv_inference_request_success[{RATE}]))"
    return f"sum by (model) (rate(nv_inference_{what}_duration_us[{RATE}])) / {requests} / 1e6"


def dashboard() -> Dashboard:
    """Engines."""
    return Dashboard(
        "engines",
        "Engines",
        [
            Panel(
                "Answers its health check", [("gpu_guard_engine_up", "{{model}}")], "bool_on_off", "Asked by the guard."
            ),
            Panel(
                "Restarts",
                [("gpu_guard_engine_restarts_total", "{{model}}")],
                "short",
                "By systemd, since somebody last started it.",
            ),
            Panel("Requests answered at once", [("sum by (model_name) (vllm:num_requests_running)", MODEL)], "short"),
            Panel(
                "Requests waiting",
                [("sum by (model_name) (vllm:num_requests_waiting)", MODEL)],
                "short",
                "Over 10 for five minutes is a ticket.",
                limit=10,
            ),
            Panel(
                "Cache in use",
                [("vllm:kv_cache_usage_perc", MODEL)],
                "percentunit",
                "Over 90 % with preemptions is a ticket.",
                limit=0.9,
            ),
            Panel(
                "Preemptions",
                [(per_second("vllm:num_preemptions_total", "model_name"), MODEL)],
                "ops",
                "Requests thrown out for others.",
            ),
            Panel("First token, p95", [(p95("vllm:time_to_first_token_seconds", "model_name"), MODEL)], "s"),
            Panel("Between tokens, p95", [(p95("vllm:inter_token_latency_seconds", "model_name"), MODEL)], "s"),
            Panel(
                "In the queue, p95",
                [(p95("vllm:request_queue_time_seconds", "model_name"), MODEL)],
                "s",
                "What another node would take away.",
            ),
            Panel("Whole answer, p95", [(p95("vllm:e2e_request_latency_seconds", "model_name"), MODEL)], "s"),
            Panel(
                "Tokens",
                [
                    (per_second("vllm:generation_tokens_total", "model_name"), f"{MODEL} out"),
                    (per_second("vllm:prompt_tokens_total", "model_name"), f"{MODEL} in"),
                ],
                "short",
                "Tokens a second.",
            ),
            Panel(
                "Finished",
                [
                    (
                        per_second("vllm:request_success_total", "model_name, finished_reason"),
                        f"{MODEL} {{{{finished_reason}}}}",
                    )
                ],
                "reqps",
                "`abort` is a caller that went away.",
            ),
            Panel("Triton: requests", [(per_second("nv_inference_request_success", "model"), "{{model}}")], "reqps"),
            Panel(
                "Triton: time in the queue and whole",
                [
                    (_mean("queue"), "{{model}} queue"),
                    (_mean("request"), "{{model}} whole"),
                ],
                "s",
                "Means: Triton has no histogram.",
            ),
        ],
    )
