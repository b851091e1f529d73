"""The framework's three tables, ours beside them: chat, batch, training. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..catalog import Catalog, Model
from ..catalog.scaling import Scaling
from . import training
from .queueing import Batcher, Waiting, waiting
from .scale_engine import Question, batch_work, batcher, carried, chat_engine, month, per_million, rounded

TRAINED = (
    "qwen2.5-7b-instruct",
    "llama-3.1-8b-instruct",
    "qwen2.5-14b-instruct",
    "qwen2.5-32b-instruct",
    "llama-3.1-70b-instruct",
)


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


# --- chat ------------------------------------------------------------------------------------------------------------


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


# --- batch -----------------------------------------------------------------------------------------------------------


def batch(question: Question, catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """The framework's table of throughput and cost, ours beside it, by batch size."""
    rows = []
    for layout in BATCH_LAYOUTS:
        engine = batcher(question, layout.gpus, batch_work(data), catalog, data)
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
                "month": rounded(cost),
                "per_million": rounded(per_million(cost, full, data.batch_busy)),
            }
        )
    return {"recommendation": "vertical", "rows": rows}


def _batch_rate(engine: Batcher, size: int, engines: int, data: Scaling) -> float:
    """Answer tokens per second of engines that each keep so many requests in the batch."""
    return engines * engine.rate(size) * data.batch_answer_tokens if engine.streams else 0.0


# --- training --------------------------------------------------------------------------------------------------------


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
                "hours": rounded(need.hours, 1),
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
