"""Which engines run on which of many nodes: served demand first, then few nodes, then few moves. Pure.

Equal nodes are not told apart, and neither are equal GPUs. A *block* is what an aligned group of 1, 2, 4, … GPUs of one
node carries, and the unknown is how many blocks of each sort there are: blocks of powers of two never waste a place.
Where all sorts of block can be listed, they are; where there are too many, they are found one at a time (column
generation, Gilmore and Gomory 1961): a linear program over the blocks known so far sets a price per replica, `shelf`
finds what one node should carry at these prices, and when none pays, the program's value is a bound that no placement
can beat. CP-SAT then chooses whole numbers of blocks, and the blocks are dealt to nodes so that no node takes much of a
model that must survive its loss. What fits on a GPU is decided by `fit`. These steps are `fleet_columns`, `fleet_whole`
and `fleet_deal`.

An engine over several GPUs sits on an aligned block (0-1 or 2-3): GPUs that share a socket or a switch. OR-Tools is
imported when a fleet is solved, not before: it takes most of a second.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..catalog import Catalog, load_catalog
from .fleet_columns import Columns
from .fleet_deal import Deal
from .fleet_parts import (
    SHARES,
    TOLERANCE,
    Contents,
    Deadline,
    Engine,
    Fleet,
    FleetModel,
    Node,
    countable,
    has_home,
    kinds_of,
    names_of,
    nodes_used,
    obstacle,
    promised,
)
from .fleet_whole import Chosen, Whole


@dataclass(frozen=True)
class FleetPlan:
    """The placement found and how good it is proven to be.

    `served` counts the units of each model's demand that are answered, for `survive` models with the worst node lost.
    `served_share` is the weighted share of all demand, `served_bound` what no placement exceeds; `bound` is the least
    number of nodes with which so much can be served. `gap` is 0 where both are reached (`status` optimal), else the
    share by which the first of them may be missed. A demand of more than a hundred times what the fleet could give if
    it did nothing else counts as that in the shares. `starts` counts engines that did not run on their node before,
    `stops` those that ran and do not any more. `binding` is empty when all demand is served.
    """

    status: Literal["optimal", "feasible"]
    nodes: Contents
    served: Mapping[str, int]
    served_share: float
    served_bound: float
    nodes_used: int
    bound: int
    gap: float
    starts: int
    stops: int
    binding: str


def place(
    nodes: Sequence[Node],
    models: Sequence[FleetModel],
    seconds: float,
    workers: int,
    current: Contents | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FleetPlan:
    """Place models on nodes; `current` is what runs there now.

    The same input gives the same answer as long as the time is enough; a search cut off by `seconds` says so by its
    gap. Never raises for a demand that cannot be met: `binding` says what is short.
    """
    catalog = load_catalog()
    names = {model.name: model for model in models}
    able = {
        model.name: replace(model, demand=countable(model, nodes, catalog))
        for model in models
        if model.demand > 0 and has_home(model, nodes, catalog)
    }
    now = {node.name: tuple((current or {}).get(node.name, ())) for node in nodes}
    if not able:
        return _plan(nodes, names, {node.name: () for node in nodes}, now, 0.0, 0, catalog)
    contents, served_bound, bound = _solved(
        Fleet(nodes, able, now, workers, Deadline(seconds, clock, clock()), catalog)
    )
    weight = sum(model.weight for model in models if model.demand > 0)
    part = sum(model.weight for model in able.values()) / weight
    return _plan(nodes, names, contents, now, served_bound * part, bound, catalog)


def _solved(fleet: Fleet) -> tuple[Contents, float, int]:
    """What each node carries, the bound of the served share, the bound of the number of nodes."""
    columns = Columns(fleet)
    whole, deal = Whole(columns), Deal(columns)
    most = min(1.0, columns.generate(None))
    columns.vary(None)
    chosen = Chosen({}, fleet.everything, 0.0)
    if most < 1 - TOLERANCE:
        chosen = whole.choose("parts", 0, chosen)
        most = min(most, (chosen.bound + fleet.weight) / fleet.everything) if columns.complete else most
    least = math.ceil(-columns.generate(chosen.parts) - 1e-4)
    columns.vary(chosen.parts)
    chosen = whole.choose("nodes", chosen.parts, chosen, least)
    least = max(least, math.ceil(chosen.bound - 1e-4)) if columns.complete else least
    contents = deal.lean(_moved(whole, deal, chosen) if columns.standing else deal.pack(chosen))
    return (contents, 0.0, len(fleet.nodes)) if deal.proven else (contents, most, least)


def _moved(whole: Whole, deal: Deal, chosen: Chosen) -> dict[str, tuple[Engine, ...]]:
    """The better of: blocks as they stand now where that is as good, and the first choice without such regard."""
    plain = deal.contents(deal.dealt(chosen))
    kept = deal.pack(whole.choose("moves", chosen.parts, chosen))
    return max(kept, plain, key=lambda contents: (deal.parts(contents), -nodes_used(contents)))


def _plan(
    nodes: Sequence[Node],
    models: Mapping[str, FleetModel],
    contents: Contents,
    now: Contents,
    served_bound: float,
    bound: int,
    catalog: Catalog,
) -> FleetPlan:
    amounts = {name: promised(contents, nodes, model) for name, model in models.items()}
    asked = {name: model for name, model in models.items() if model.demand > 0}
    weight = sum(model.weight for model in asked.values())
    parts = {name: amounts[name] / countable(model, nodes, catalog) for name, model in asked.items()}
    share = sum(asked[name].weight * part for name, part in parts.items()) / weight if asked else 1.0
    served_bound = served_bound if served_bound > share + 1 / SHARES else share
    used = nodes_used(contents)
    bound = min(bound, used)
    short = served_bound - share
    gap = short / served_bound if short else (used - bound) / used if used else 0.0
    return FleetPlan(
        status="feasible" if gap > 0 else "optimal",
        nodes=contents,
        served=amounts,
        served_share=share,
        served_bound=served_bound,
        nodes_used=used,
        bound=bound,
        gap=gap,
        starts=sum(
            (Counter(names_of(contents[node.name])) - Counter(names_of(now[node.name]))).total() for node in nodes
        ),
        stops=sum(
            (Counter(names_of(now[node.name])) - Counter(names_of(contents[node.name]))).total() for node in nodes
        ),
        binding=_binding(nodes, asked, amounts, catalog),
    )


def _binding(
    nodes: Sequence[Node], models: Mapping[str, FleetModel], amounts: Mapping[str, int], catalog: Catalog
) -> str:
    """What keeps demand from being served, one sentence with figures; empty when nothing does."""
    short = {name: model for name, model in models.items() if amounts[name] < model.demand}
    if not short:
        return ""
    if not nodes:
        return "there is no node"
    for name, model in sorted(short.items()):
        obstacles = [obstacle(model, kind, catalog) for kind in kinds_of(nodes)]
        if all(obstacles):
            return f"{name} runs on no node: {obstacles[0]}"
    alone = [name for name, model in sorted(short.items()) if model.survive and len(nodes) == 1]
    if alone:
        return f"{alone[0]} must survive the loss of a node, and there is only one"
    figures = ", ".join(f"{name} {amounts[name]:,} of {model.demand:,}" for name, model in sorted(short.items())[:4])
    more = f" and {len(short) - 4} more" if len(short) > 4 else ""
    return f"{len(nodes)} nodes are full and serve {figures}{more}"
