"""Fleets to measure the planner on, and the alternative it is measured beside: one CP-SAT model of all nodes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning.fit import Instance
from gpu_cutover.planning.fleet_parts import FleetModel, Kind, Node, blocks, shelf

# name, model, format, GPUs, cache GiB, rate of a replica, demand per node, survives a lost node, share of a GPU's time
KINDS = (
    ("chat-70b", "llama-3.1-70b-instruct", "awq-int4", 2, 30.0, 12, 6.0, True, 1.0),
    ("soap-70b", "llama-3.1-70b-instruct", "awq-int4", 2, 34.0, 12, 2.5, True, 0.9),
    ("research-70b", "llama-3.1-70b-instruct", "fp8", 4, 60.0, 20, 1.3, False, 1.0),
    ("reason-72b", "qwen2.5-72b-instruct", "awq-int4", 2, 24.0, 9, 1.1, True, 1.0),
    ("reason-72b-long", "qwen2.5-72b-instruct", "awq-int4", 4, 80.0, 16, 0.9, False, 1.0),
    ("chat-32b", "qwen2.5-32b-instruct", "awq-int4", 1, 12.0, 10, 2.1, True, 0.8),
    ("coding-32b", "qwen2.5-32b-instruct", "fp8", 2, 20.0, 14, 1.4, False, 0.9),
    ("letters-32b", "qwen2.5-32b-instruct", "awq-int4", 1, 8.0, 8, 0.7, False, 0.6),
    ("chat-8b", "llama-3.1-8b-instruct", "bf16", 1, 10.0, 25, 3.1, True, 0.7),
    ("triage-8b", "llama-3.1-8b-instruct", "fp8", 1, 6.0, 30, 2.3, True, 0.5),
    ("extract-8b", "llama-3.1-8b-instruct", "fp8", 1, 14.0, 40, 5.9, False, 1.0),
    ("code-8b", "llama-3.1-8b-instruct", "awq-int4", 1, 4.0, 22, 1.0, False, 0.4),
    ("vision-7b", "llava-1.6-mistral-7b", "bf16", 1, 4.0, 9, 1.2, True, 0.5),
    ("vision-13b", "llava-1.6-vicuna-13b", "bf16", 1, 6.0, 6, 0.6, False, 0.6),
    ("speech", "whisper-large-v3", "bf16", 1, 6.0, 12, 2.6, True, 0.6),
    ("speech-ward", "whisper-large-v3", "bf16", 1, 3.0, 6, 0.9, True, 0.3),
    ("embed", "bge-m3", "bf16", 1, 0.0, 200, 60.0, True, 0.2),
    ("embed-research", "bge-m3", "bf16", 1, 0.0, 200, 30.0, False, 0.2),
    ("rerank", "colbertv2", "bf16", 1, 0.0, 300, 50.0, True, 0.15),
    ("rerank-images", "colbertv2", "bf16", 1, 0.0, 300, 20.0, False, 0.15),
)


def nodes(count: int, gpu: str = "l40s", gpus: int = 4) -> list[Node]:
    """Equal servers."""
    return [Node(f"n{number:02d}", gpu, gpus) for number in range(count)]


def models(count: int, load: float = 1.0) -> list[FleetModel]:
    """The twenty kinds of work above with the demand of so many nodes."""
    catalog = load_catalog()
    return [
        FleetModel(
            name,
            Instance(catalog.models[model], catalog.formats[weights], "vllm", kv_gib=cache),
            gpus,
            {"l40s": rate},
            max(1, round(demand * count * load)),
            survive,
            1,
            time,
        )
        for name, model, weights, gpus, cache, rate, demand, survive, time in KINDS
    ]


def _contents(cp: Any, node: Node, wanted: Sequence[FleetModel]) -> dict[tuple[str, tuple[int, ...]], Any]:
    """Variables and constraints of one node: (model, GPUs) to how many replicas run there."""
    room = shelf(Kind(node.gpu, node.gpus), {model.name: model for model in wanted}, load_catalog())
    numbers = {
        (item, block): cp.new_int_var(0, room.memory // item.memory, "")
        for item in room.items
        for block in blocks(node.gpus, item.gpus)
    }
    for gpu in range(node.gpus):
        here = {item: number for (item, block), number in numbers.items() if gpu in block}
        cp.add(sum(item.memory * number for item, number in here.items()) <= room.memory)
        cp.add(sum(item.time * number for item, number in here.items()) <= room.time)
    return {(item.name, block): number for (item, block), number in numbers.items()}


def naive(fleet: Sequence[Node], wanted: Sequence[FleetModel], seconds: float, workers: int) -> dict[str, Any]:
    """The same question as one CP-SAT model: replicas on every block of GPUs of every node, equal nodes in order."""
    from ortools.sat.python import cp_model

    cp = cp_model.CpModel()
    numbers = [_contents(cp, node, wanted) for node in fleet]
    used = [cp.new_bool_var("") for _ in fleet]
    shares = []
    for contents, taken in zip(numbers, used, strict=True):
        for number in contents.values():
            cp.add(number == 0).only_enforce_if(~taken)
    for before, after in itertools.pairwise(used):
        cp.add(before >= after)
    for model in wanted:
        rate = next(iter(model.rate.values()))
        each = [rate * sum(n for (name, _), n in contents.items() if name == model.name) for contents in numbers]
        loss = cp.new_int_var(0, 10**6, "")
        for capacity in each if model.survive else ():
            cp.add(capacity <= loss)
        share = cp.new_int_var(0, 10_000, "")
        cp.add(model.demand * share <= 10_000 * (sum(each) - (loss if model.survive else 0)))
        shares.append(share)
    cp.maximize(1000 * sum(shares) - sum(used))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = 1
    solver.parameters.max_time_in_seconds = seconds
    status = solver.solve(cp)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return {"served": 0.0, "nodes": 0, "proven": False}
    return {
        "served": sum(solver.value(share) for share in shares) / 10_000 / len(shares),
        "nodes": sum(solver.value(taken) for taken in used),
        "proven": status == cp_model.OPTIMAL,
    }


def replicas(contents: Any) -> Counter[str]:
    """Engines by model."""
    return Counter(engine.model for engines in contents.values() for engine in engines)
