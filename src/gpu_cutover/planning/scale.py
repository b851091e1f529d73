"""The hospital's scaling framework beside arithmetic: chat, batch and training; when to add what; how many nodes. Pure.

The framework's tables and our assumptions are data (`catalog/scaling.yml`, each with its source). What an engine does
is `scale_engine`'s, how many servers a load needs `scale_nodes`', what else the framework says `scale_tables`' and
`scale_advice`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..catalog import Catalog
from ..catalog.scaling import Scaling
from .finding import as_json, in_order
from .scale_advice import assumptions, matrix, phases, tree
from .scale_engine import SCENARIOS, Question, engine_facts
from .scale_findings import findings
from .scale_nodes import nodes
from .scale_tables import batch, chat, trainings


def answer(question: Question, scenarios: Sequence[str], catalog: Catalog, data: Scaling) -> dict[str, Any]:
    """Everything there is to say of these scenarios, as plain data."""
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
