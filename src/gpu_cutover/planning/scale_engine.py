"""One engine of the framework's question: what it holds, how fast it is, whom it carries, what servers cost. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..catalog import Catalog, Format, Gpu, Model
from ..catalog.scaling import Scaling
from . import latency
from .fit import Instance, fit, tensor_parallel_problem
from .queueing import Batcher, most_users

SCENARIOS = ("chat", "batch", "training")
SPLITS = (1, 2, 4, 8)
HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class Question:
    """What is asked; `nodes` is what stands in the rack, as (servers, GPUs in each)."""

    users: int
    model: Model
    weights: Format
    gpu_name: str
    gpu: Gpu
    nodes: tuple[tuple[int, int], ...] = ()


def streams(question: Question, gpus: int, tokens: int, catalog: Catalog, data: Scaling) -> int:
    """Requests of so many tokens that the cache of one engine on its own GPUs holds at once; 0: it does not fit."""
    instance = Instance(question.model, question.weights, "vllm", max_model_len=data.max_model_len)
    if tensor_parallel_problem(instance, gpus) or not question.weights.runs_on(question.gpu):
        return 0
    found = fit({"": instance}, {"": range(gpus)}, question.gpu, gpus, catalog)
    return min(data.max_streams, found.kv_tokens[""] // tokens) if found.fits else 0


@dataclass(frozen=True)
class Work:
    """A request: tokens of its prompt, of these what is new to the engine, of its answer; seconds before the next."""

    prompt: int
    new: int
    answer: int
    think_s: float


def chat_work(data: Scaling) -> Work:
    """Chat: of a prompt only what is new is read, all of it stays in the cache."""
    return Work(data.chat_prompt_tokens, data.chat_new_tokens, data.chat_answer_tokens, data.think_s)


def batch_work(data: Scaling) -> Work:
    """Batch work: whole prompts, no thinking."""
    return Work(data.batch_prompt_tokens, data.batch_prompt_tokens, data.batch_answer_tokens, 0.0)


def batcher(question: Question, gpus: int, work: Work, catalog: Catalog, data: Scaling) -> Batcher:
    """One engine over so many GPUs under this work."""
    return Batcher(
        latency.prefill(question.model, question.weights, question.gpu, gpus, work.new, catalog),
        latency.decode_expected(question.model, question.weights, question.gpu, gpus, catalog),
        catalog.vllm.batch_slope,
        work.answer,
        streams(question, gpus, work.prompt + work.answer, catalog, data),
        work.think_s,
    )


def chat_engine(question: Question, gpus: int, catalog: Catalog, data: Scaling) -> Batcher:
    """One engine under chat."""
    return batcher(question, gpus, chat_work(data), catalog, data)


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


def rounded(value: float | None, digits: int = 2) -> float | None:
    """A figure for people; None where there is none."""
    return None if value is None or math.isinf(value) else round(value, digits)
