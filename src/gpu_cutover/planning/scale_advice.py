"""The framework's decision tree, comparison and phases, with the figures they rest on; what we assumed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalog import Catalog
from ..catalog.scaling import Scaling
from .scale_engine import Question, carried, engine_gpus, month, rounded, width


def tree(question: Question, catalog: Catalog, data: Scaling) -> list[dict[str, str]]:
    """The framework's decisions with what they rest on."""
    gpus = width(question, catalog, data)
    users = carried(question, gpus, catalog, data) if gpus else 0
    return [
        {
            "question": "Do people wait for the first words (chat)?",
            "answer": "horizontal: one more engine behind the load balancer",
            "because": f"an engine carries {users} users here; engines share nothing, and one may die",
        },
        {
            "question": "Is it one queue that may take minutes (batch)?",
            "answer": "vertical: fill the server, one engine per GPU while each has cache for a full batch",
            "because": "throughput adds up engine by engine; the second card costs less than a second server",
        },
        {
            "question": "Is it training?",
            "answer": "by memory, not by parameters alone: LoRA or QLoRA on one card, full fine-tuning on many",
            "because": "full fine-tuning takes 16 bytes per parameter, LoRA 2, QLoRA about 0.5 (see the table)",
        },
        {
            "question": "Is a single answer too slow on an idle engine?",
            "answer": "neither: a smaller model, fewer bits, or faster memory",
            "because": "a node more shortens the queue, never the decoding of one answer",
        },
    ]


def matrix(question: Question, catalog: Catalog, data: Scaling) -> list[dict[str, str]]:
    """The framework's comparison of both ways, line by line, with figures."""
    one, two = data.server(question.gpu_name, 1), data.server(question.gpu_name, 2)
    money = "no price for this card"
    if one is not None and two is not None:
        money = (
            f"second card {two - one:,}, second server {one:,}: per GPU {two / 2:,.0f} against {one:,} {data.currency}"
        )
    return [
        _line("Initial cost", "High $$", "Lower $", f"the other way round per GPU: {money}"),
        _line("Complexity", "Low", "High", "a load balancer and the same unit twice; no Kubernetes needed for either"),
        _line("Redundancy", "None", "Built-in", "only if one server is spare: plan for the load with one lost"),
        _line(
            "Max capability",
            "Limited",
            "Unlimited",
            f"a server takes {data.gpus_per_server_max} cards; engines add up while each model fits in one server",
        ),
        _line(
            "Network overhead",
            "None",
            "Significant",
            "none for separate engines (a question is kilobytes); large only for training over nodes",
        ),
        _line("Maintenance", "Easier", "Complex", "easier with two: one is updated while the other serves"),
    ]


def _line(metric: str, vertical: str, horizontal: str, ours: str) -> dict[str, str]:
    return {"metric": metric, "vertical": vertical, "horizontal": horizontal, "ours": ours}


def phases(question: Question, catalog: Catalog, data: Scaling) -> list[dict[str, Any]]:
    """The framework's three phases with what they cost and carry."""
    low, high = data.phase_two_nodes
    node = data.server(question.gpu_name, 1)
    large, small = (_server_users(question, gpus, catalog, data) for gpus in (2, 1))
    return [
        _phase(
            "Phase 1, months 1-3: one server, 2 cards",
            framework_price=list(data.server_two_gpus_range),
            capex=data.server(question.gpu_name, 2),
            month=rounded(month(question, 2, 1, data)),
            users=large,
            users_one_lost=0,
            remark="no redundancy: its loss is an outage; batch and training share the second card by the hour",
        ),
        *[
            _phase(
                f"Phase 2, months 4-6: {count} servers more, 1 card each",
                capex=node * count if node is not None else None,
                month=rounded(month(question, 1, count, data)),
                users=large + count * small,
                users_one_lost=large + count * small - max(large, small),
                remark="the framework gives no price; the lost one is the server that carries most",
            )
            for count in range(low, high + 1)
        ],
        _phase(
            "Phase 3: by the rules below",
            remark="add what the signal names, one step at a time, after the figures of two to three months",
        ),
    ]


def _phase(name: str, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("framework_price", "capex", "month", "users", "users_one_lost"))
    return {"name": name, **unknown, **known}


def _server_users(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> int:
    """Users that one server carries."""
    split = engine_gpus(question, catalog, data, gpus)
    return gpus // split * carried(question, split, catalog, data) if split else 0


def assumptions(data: Scaling) -> dict[str, dict[str, Any]]:
    """Our figures that are no table of the framework, with where they come from."""
    shown = (
        *("think_s", "chat_prompt_tokens", "chat_new_tokens", "chat_answer_tokens", "first_token_s"),
        *("reading_tokens_s", "batch_prompt_tokens", "batch_answer_tokens", "batch_busy", "chat_busy", "max_streams"),
        *("amortisation_months", "kwh", "pue", "host_w", "server_two_gpus", "memory_128_gb"),
        *("train_tokens", "train_sequence", "train_micro_batch", "lora_rank", "train_efficiency"),
    )
    plain: Mapping[str, Any] = vars(data)
    return {name: {"value": plain[name], "source": data.sources[name]} for name in shown}
