"""The hospital's scaling framework beside arithmetic: chat, batch and training; when to add what; how many nodes. Pure.

The framework's tables and our assumptions are data (`catalog/scaling.yml`, each with its source). What an engine does
follows from `fit` and `latency`, what users wait from `queueing`, what training takes from `training`, and how many
nodes a load needs from `fleet`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalog import Catalog, Format, Gpu, Model
from ..catalog.scaling import Scaling
from . import fleet, latency, training
from .finding import as_json, in_order
from .fit import Instance, fit, tensor_parallel_problem
from .queueing import Batcher, Waiting, most_users, waiting

SCENARIOS = ("chat", "batch", "training")
SPLITS = (1, 2, 4, 8)
HOURS_A_MONTH = 730.0
FLEET_SECONDS = 20.0
TRAINED = (
    "qwen2.5-7b-instruct",
    "llama-3.1-8b-instruct",
    "qwen2.5-14b-instruct",
    "qwen2.5-32b-instruct",
    "llama-3.1-70b-instruct",
)


@dataclass(frozen=True)
class Question:
    """What is asked; `nodes` is what stands in the rack, as (servers, GPUs in each)."""

    users: int
    model: Model
    weights: Format
    gpu_name: str
    gpu: Gpu
    nodes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Layout:
    """Engines side by side: `engines` of `gpus` GPUs each, spread over `servers`."""

    name: str
    title: str
    gpus: int
    engines: int
    servers: int


LAYOUTS = (
    Layout("one-gpu", "1 GPU", 1, 1, 1),
    Layout("two-gpus", "2 GPUs, split", 2, 1, 1),
    Layout("two-engines", "2 GPUs, 2 engines", 1, 2, 1),
    Layout("four-servers", "4 servers", 1, 4, 4),
)
BATCH_LAYOUTS = (*LAYOUTS[:3], Layout("two-servers", "2 servers", 1, 2, 2))


def answer(question: Question, scenarios: Sequence[str], catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """Everything there is to say of these scenarios, as plain data."""
    from .scale_findings import findings

    made: dict[str, Any] = {
        "gpu": question.gpu_name,
        "model": question.model.name,
        "format": next(name for name, weights in catalog.formats.items() if weights is question.weights),
        "users": question.users,
        "currency": data.currency,
        "scenarios": list(scenarios),
        "engine": engine_facts(question, catalog, data),
        "tree": tree(question, catalog, data),
    }
    if "chat" in scenarios:
        made["chat"] = chat(question, catalog, data)
        made["nodes"] = nodes(question, catalog, data)
    if "batch" in scenarios:
        made["batch"] = batch(question, catalog, data)
    if "training" in scenarios:
        made["training"] = trainings(question, catalog, data)
    if set(scenarios) == set(SCENARIOS):
        made["matrix"] = matrix(question, catalog, data)
        made["phases"] = phases(question, catalog, data)
    made["rules"] = [{"name": name, **rule} for name, rule in data.rules.items() if _concerns(name, scenarios)]
    made["findings"] = [as_json(one) for one in in_order(findings(question, scenarios, catalog, data))]
    made["assumptions"] = assumptions(data)
    binding = made["nodes"]["binding"] if "nodes" in made else ""
    made["verdict"] = "impossible" if binding else "possible"
    made["binding"] = binding
    return made


def _concerns(rule: str, scenarios: Sequence[str]) -> bool:
    return "training" in scenarios if rule == "training" else "chat" in scenarios or "batch" in scenarios


# --- one engine ------------------------------------------------------------------------------------------------------


def streams(question: Question, gpus: int, tokens: int, catalog: Catalog, data: Scaling) -> int:
    """Requests of so many tokens that the cache of one engine on its own GPUs holds at once; 0 where it does not"
    " fit."""
    instance = Instance(question.model, question.weights, "vllm", max_model_len=data.max_model_len)
    if tensor_parallel_problem(instance, gpus) or not question.weights.runs_on(question.gpu):
        return 0
    found = fit({"": instance}, {"": range(gpus)}, question.gpu, gpus, catalog)
    return min(data.max_streams, found.kv_tokens[""] // tokens) if found.fits else 0


def chat_engine(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> Batcher:
    """One engine under chat: of a prompt only what is new is read, all of it stays in the cache."""
    context = data.chat_prompt_tokens + data.chat_answer_tokens
    return Batcher(
        latency.prefill(question.model, question.weights, question.gpu, gpus, data.chat_new_tokens, catalog),
        latency.decode_expected(question.model, question.weights, question.gpu, gpus, catalog),
        catalog.vllm.batch_slope,
        data.chat_answer_tokens,
        streams(question, gpus, context, catalog, data),
        data.think_s,
    )


def batch_engine(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> Batcher:
    """One engine under batch work: whole prompts, no thinking."""
    context = data.batch_prompt_tokens + data.batch_answer_tokens
    return Batcher(
        latency.prefill(question.model, question.weights, question.gpu, gpus, data.batch_prompt_tokens, catalog),
        latency.decode_expected(question.model, question.weights, question.gpu, gpus, catalog),
        catalog.vllm.batch_slope,
        data.batch_answer_tokens,
        streams(question, gpus, context, catalog, data),
        0.0,
    )


def engine_gpus(question: Question, catalog: Catalog, data: Scaling, most: int = SPLITS[-1]) -> int | None:
    """GPUs of one engine with which a GPU carries most users, of at most so many; None where the model fits on none.

    A larger engine has the weights once and more cache: where that is short, splitting pays in spite of transfers.
    """
    able = [gpus for gpus in SPLITS if gpus <= most and chat_engine(question, gpus, catalog, data).streams]
    return max(able, key=lambda gpus: (carried(question, gpus, catalog, data) / gpus, -gpus), default=None)


def fewest_gpus(question: Question, catalog: Catalog, data: Scaling) -> int | None:
    """Fewest GPUs over which the model runs with a cache for one chat, or None."""
    return next((gpus for gpus in SPLITS if chat_engine(question, gpus, catalog, data).streams), None)


def engine_facts(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """The engine that carries most users per GPU of a server: sizes and speeds of one stream."""
    gpus = width(question, catalog, data)
    weights = question.model.weight_bytes(question.weights) / 1e9
    if gpus is None:
        return {"gpus": None, "weights_gb": round(weights, 1)}
    engine = chat_engine(question, gpus, catalog, data)
    floor = latency.decode_floor(question.model, question.weights, question.gpu, gpus)
    return {
        "gpus": gpus,
        "weights_gb": round(weights, 1),
        "streams": engine.streams,
        "tokens_s": round(1 / engine.itl_s, 1),
        "tokens_s_limit": round(1 / floor, 1),
        "prompt_s": round(engine.prefill_s, 3),
        "answer_s": round(engine.answer_s(1), 2),
        "users": carried(question, gpus, catalog, data),
    }


def width(question: Question, catalog: Catalog, data: Scaling) -> int | None:
    """GPUs of one engine in a server of the framework's size; more where the model needs more."""
    inside = engine_gpus(question, catalog, data, data.gpus_per_server_max)
    return inside or fewest_gpus(question, catalog, data)


def carried(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> int:
    """Users one engine carries with first token and reading speed kept at p95."""
    engine = chat_engine(question, gpus, catalog, data)
    return most_users(engine, data.first_token_s, 1 / data.reading_tokens_s)


# --- money -----------------------------------------------------------------------------------------------------------


def server_w(question: Question, gpus: int, data: Scaling) -> float:
    """Watts of a server under load, at its plug."""
    return data.host_w + gpus * question.gpu.power_max_w


def month(question: Question, gpus: int, servers: int, data: Scaling) -> float | None:
    """What servers cost a month: purchase over its months, and electricity under load with cooling."""
    price = data.server(question.gpu_name, gpus)
    if price is None:
        return None
    energy = server_w(question, gpus, data) / 1000 * HOURS_A_MONTH * data.pue * data.kwh
    return servers * (price / data.amortisation_months + energy)


def per_million(cost: float | None, tokens_s: float, busy: float) -> float | None:
    """Price of a million answer tokens when the servers work so much of the month; None without a price or work."""
    tokens = tokens_s * busy * HOURS_A_MONTH * 3600
    return cost / tokens * 1e6 if cost is not None and tokens > 0 else None


# --- scenario 1: chat ------------------------------------------------------------------------------------------------


def chat(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """The framework's table of users and response times, ours beside it."""
    rows = sorted({*data.chat_users, question.users})
    engines = {layout.name: chat_engine(question, layout.gpus, catalog, data) for layout in LAYOUTS}
    return {
        "recommendation": "horizontal",
        "layouts": [
            {
                "name": layout.name,
                "title": layout.title,
                "fits": engines[layout.name].streams > 0,
                "users": layout.engines * carried(question, layout.gpus, catalog, data),
            }
            for layout in LAYOUTS
        ],
        "rows": [
            {
                "users": users,
                "framework": list(data.chat_table.get(users, ())),
                **{layout.name: _seen(engines[layout.name], users, layout.engines) for layout in LAYOUTS},
            }
            for users in rows
        ],
    }


def _seen(engine: Batcher, users: int, engines: int) -> dict[str, Any] | None:
    """What users see when they are spread evenly over engines; None where the model does not fit."""
    if not engine.streams:
        return None
    seen: Waiting = waiting(engine, math.ceil(users / engines))
    return {
        "first_token_p95_s": round(seen.first_token_p95_s, 2),
        "answer_p95_s": round(seen.answer_p95_s, 1),
        "tokens_s_p95": round(1 / seen.token_p95_s, 1),
        "queued": round(seen.queued * engines, 1),
        "busy": round(seen.busy, 3),
    }


# --- nodes for a load ------------------------------------------------------------------------------------------------


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
        fleet.Node(f"server{number}-{gpus}gpu", question.gpu_name, gpus)
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


def _solved(
    question: Question, servers: Sequence[fleet.Node], split: int, catalog: Catalog, data: Scaling
) -> dict[str, Any]:
    """What the fleet solver makes of these servers with engines of `split` GPUs."""
    wanted = fleet.FleetModel(
        question.model.name,
        Instance(question.model, question.weights, "vllm", max_model_len=data.max_model_len),
        split,
        {question.gpu_name: carried(question, split, catalog, data)},
        question.users,
        survive=True,
    )
    plan = fleet.place(servers, [wanted], FLEET_SECONDS, 1)
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
        "month": _rounded(cost),
        "per_million": _rounded(per_million(cost, answers * data.chat_answer_tokens, data.chat_busy)),
        "binding": _short(plan, question, len(servers)),
    }


def _short(plan: fleet.FleetPlan, question: Question, count: int) -> str:
    if not plan.binding:
        return ""
    if count == 1:
        return plan.binding
    return (
        f"{count} servers carry {plan.served[question.model.name]:,} of {question.users:,} users with one server lost"
    )


def _sizes(used: Sequence[fleet.Node]) -> list[tuple[int, int]]:
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


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None or math.isinf(value) else round(value, digits)


# --- scenario 2: batch -----------------------------------------------------------------------------------------------


def batch(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """The framework's table of throughput and cost, ours beside it, by batch size."""
    rows = []
    for layout in BATCH_LAYOUTS:
        engine = batch_engine(question, layout.gpus, catalog, data)
        per_server = layout.gpus * layout.engines // layout.servers
        cost = month(question, per_server, layout.servers, data)
        rates = {size: _batch_rate(engine, size, layout.engines, data) for size in data.batch_sizes}
        full = max(rates.values())
        price = data.server(question.gpu_name, per_server)
        rows.append(
            {
                "name": layout.name,
                "title": layout.title,
                "framework": list(data.batch_table.get(layout.name, ())),
                "fits": engine.streams > 0,
                "streams": engine.streams,
                "tokens_s": {str(size): round(rate, 1) for size, rate in rates.items()},
                "capex": price * layout.servers if price is not None else None,
                "month": _rounded(cost),
                "per_million": _rounded(per_million(cost, full, data.batch_busy)),
            }
        )
    return {"recommendation": "vertical", "rows": rows}


def _batch_rate(engine: Batcher, size: int, engines: int, data: Scaling) -> float:
    """Answer tokens per second of engines that each keep so many requests in the batch."""
    return engines * engine.rate(size) * data.batch_answer_tokens if engine.streams else 0.0


# --- scenario 3: training --------------------------------------------------------------------------------------------


def trainings(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """GPUs that each model needs by each method, beside the framework's tree."""
    names = [name for name in TRAINED if name in catalog.models]
    asked = question.model
    if asked.name not in names and asked.kind == "decoder":
        names.append(asked.name)
    return {
        "recommendation": "vertical first, then horizontal",
        "methods": list(data.methods),
        "usable_gb": round(training.usable_bytes(question.gpu, data) / 1e9, 1),
        "rows": [_training_row(catalog.models[name], question, data) for name in names],
        "cnn": _cnn(question, data),
    }


def _training_row(model: Model, question: Question, data: Scaling) -> dict[str, Any]:
    needs = {method: training.need(model, method, question.gpu, data) for method in data.methods}
    return {
        "model": model.name,
        "parameters": model.parameters(),
        "framework_gpus": framework_gpus(model.parameters(), data),
        **{
            method: {
                "gpus": need.gpus,
                "states_gb": round(need.states / 1e9, 1),
                "activations_gb": round(need.activations / 1e9, 1),
                "hours": _rounded(need.hours, 1),
                "arithmetic": need.arithmetic,
            }
            for method, need in needs.items()
        },
    }


def framework_gpus(parameters: int, data: Scaling) -> int | None:
    """GPUs that the framework's tree gives a model of this size; None: multi-node."""
    for below, gpus in data.training_tree:
        if below is None or parameters < below * 1e9:
            return gpus
    return None


def _cnn(question: Question, data: Scaling) -> dict[str, Any]:
    states = training.states_bytes(data.cnn["parameters"], "full", data)
    activations = data.cnn["images"] * data.cnn["activation_mib_per_image"] * 1024 * 1024
    return {
        "states_gb": round(states / 1e9, 2),
        "activations_gb": round(activations / 1e9, 1),
        "images": data.cnn["images"],
        "gpus": 1 if states + activations <= training.usable_bytes(question.gpu, data) else None,
    }


# --- tree, matrix, phases --------------------------------------------------------------------------------------------


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
            month=_rounded(month(question, 2, 1, data)),
            users=large,
            users_one_lost=0,
            remark="no redundancy: its loss is an outage; batch and training share the second card by the hour",
        ),
        *[
            _phase(
                f"Phase 2, months 4-6: {count} servers more, 1 card each",
                capex=node * count if node is not None else None,
                month=_rounded(month(question, 1, count, data)),
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
