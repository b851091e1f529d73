"""How many servers the users need, one of them lost: the fleet solver asked, and why it cannot be. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..catalog import Catalog
from ..catalog.scaling import Scaling
from .fit import Instance
from .fleet import FleetPlan, place
from .fleet_parts import FleetModel, Node
from .queueing import waiting
from .scale_engine import SPLITS, Question, carried, chat_engine, engine_gpus, fewest_gpus, month, per_million, rounded

FLEET_SECONDS = 20.0


def nodes(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """Servers that the users need, one of them lost, by the fleet solver: the declared ones, or both sizes to buy."""
    if question.nodes:
        options = [_option(question, question.nodes, catalog, data)]
    else:
        options = [
            _option(question, [(_enough(question, gpus, catalog, data), gpus)], catalog, data)
            for gpus in range(1, data.gpus_per_server_max + 1)
        ]
    met = [option for option in options if not option["binding"]]
    best = min(met, key=lambda option: (option["month"] or 0.0, option["nodes"]), default=None)
    return {
        "users": question.users,
        "options": options,
        "best": best["name"] if best else None,
        "binding": "" if best else options[-1]["binding"],
    }


def _enough(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> int:
    """Servers that are surely enough: engines for the users and for one server lost, none shared."""
    split = engine_gpus(question, catalog, data, gpus)
    users = carried(question, split, catalog, data) if split else 0
    if not split or not users:
        return 1
    each = gpus // split
    return math.ceil(math.ceil(question.users / users) / each) + 1


def _option(question: Question, sizes: Sequence[tuple[int, int]], catalog: Catalog, data: Scaling) -> dict[str, Any]:
    name = " + ".join(f"{count} x {gpus} GPU" for count, gpus in sizes)
    servers = [
        Node(f"server{number}-{gpus}gpu", question.gpu_name, gpus)
        for count, gpus in sizes
        for number in range(1, min(count, data.max_nodes) + 1)
    ]
    problem = _impossible(question, sizes, catalog, data)
    if problem:
        return _nothing(name, sizes, problem)
    most = max(gpus for _, gpus in sizes)
    splits = [gpus for gpus in SPLITS if gpus <= most and carried(question, gpus, catalog, data)]
    tried = [_solved(question, servers, split, catalog, data) for split in splits]
    best = min(tried, key=lambda option: (-option["served"], option["month"] or 0.0, option["nodes"]))
    return {**best, "name": name} if question.nodes else best


def _solved(question: Question, servers: Sequence[Node], split: int, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """What the fleet solver makes of these servers with engines of `split` GPUs."""
    wanted = FleetModel(
        question.model.name,
        Instance(question.model, question.weights, "vllm", max_model_len=data.max_model_len),
        split,
        {question.gpu_name: carried(question, split, catalog, data)},
        question.users,
        survive=True,
    )
    plan = place(servers, [wanted], FLEET_SECONDS, 1)
    used = [node for node in servers if plan.nodes[node.name]]
    users = plan.served[question.model.name]
    costs = [month(question, node.gpus, 1, data) for node in used]
    prices = [data.server(question.gpu_name, node.gpus) for node in used]
    cost = sum(one for one in costs if one is not None) if None not in costs else None
    answers = users / (data.think_s + chat_engine(question, split, catalog, data).answer_s(1))
    sizes = _sizes(used)
    return {
        "name": " + ".join(f"{count} x {gpus} GPU" for count, gpus in sizes),
        "sizes": [list(size) for size in sizes],
        "nodes": len(used),
        "engines": sum(len(engines) for engines in plan.nodes.values()),
        "gpus_per_engine": split,
        "served": users,
        "bound": plan.bound,
        "gap": round(plan.gap, 4),
        "status": plan.status,
        "capex": sum(price for price in prices if price is not None) if None not in prices else None,
        "month": rounded(cost),
        "per_million": rounded(per_million(cost, answers * data.chat_answer_tokens, data.chat_busy)),
        "binding": _short(plan, question, len(servers)),
    }


def _short(plan: FleetPlan, question: Question, count: int) -> str:
    if not plan.binding:
        return ""
    if count == 1:
        return plan.binding
    return (
        f"{count} servers carry {plan.served[question.model.name]:,} of {question.users:,} users with one server lost"
    )


def _sizes(used: Sequence[Node]) -> list[tuple[int, int]]:
    sizes = sorted({node.gpus for node in used})
    return [(sum(node.gpus == gpus for node in used), gpus) for gpus in sizes]


def _nothing(name: str, sizes: Sequence[tuple[int, int]], problem: str) -> dict[str, Any]:
    return {
        "name": name,
        "sizes": [list(size) for size in sizes],
        "nodes": None,
        "engines": 0,
        "gpus_per_engine": None,
        "served": 0,
        "bound": None,
        "gap": None,
        "status": None,
        "capex": None,
        "month": None,
        "per_million": None,
        "binding": problem,
    }


def _impossible(question: Question, sizes: Sequence[tuple[int, int]], catalog: Catalog, data: Scaling) -> str:
    """Why these servers cannot carry the users at all, before a solver is asked; empty where one has to be."""
    most = max(gpus for _, gpus in sizes)
    fewest = fewest_gpus(question, catalog, data)
    weights = question.model.weight_bytes(question.weights) / 1e9
    if not question.weights.runs_on(question.gpu):
        return f"{question.gpu_name} has no kernel for these weights"
    split = engine_gpus(question, catalog, data, most)
    if split is None:
        need = f"{fewest} GPUs" if fewest else f"more than {SPLITS[-1]} GPUs"
        return (
            f"{question.model.name} has {weights:.0f} GB of weights and needs {need} of {question.gpu_name} in one"
            f" server; a server has {most}"
        )
    users = carried(question, split, catalog, data)
    if not users:
        return _too_slow(question, split, catalog, data)
    servers = sum(count for count, _ in sizes)
    if servers > data.max_nodes:
        return (
            f"{question.users:,} users at {users} per engine need {math.ceil(question.users / users):,} engines on"
            f" about {servers:,} servers; fleets are planned up to {data.max_nodes}"
        )
    return ""


def _too_slow(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> str:
    engine = chat_engine(question, gpus, catalog, data)
    seen = waiting(engine, 1)
    if seen.first_token_p95_s > data.first_token_s:
        return (
            f"one user alone waits {seen.first_token_p95_s:.2f} s for the first token (limit {data.first_token_s:g} s):"
            f" {data.chat_new_tokens} tokens of prompt take {engine.prefill_s:.2f} s on {gpus} x {question.gpu_name}"
        )
    return (
        f"one stream alone gets {1 / engine.itl_s:.1f} tokens/s on {gpus} x {question.gpu_name}, below the reading"
        f" speed of {data.reading_tokens_s}"
    )
