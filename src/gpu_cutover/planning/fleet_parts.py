"""What a fleet is made of: nodes, models, engines, blocks of GPUs, and what fits where. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from ..catalog import Catalog
from .fit import GIB, STEPS, Fit, Instance, budget_bytes, fit, tensor_parallel_problem
from .shelf import Item, Shelf, sizes

SEED = 1
SHARES = 10_000  # a model's served demand is counted in this many parts
TIME = 1000  # a GPU's time is shared in this many parts
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Node:
    """A server: `gpu` is a name of the catalog."""

    name: str
    gpu: str
    gpus: int


@dataclass(frozen=True)
class FleetModel:
    """One model that many may ask.

    Each replica is an engine over `gpus` GPUs with the cache that `instance.kv_gib` declares (at least one request of
    full length); it answers `rate[GPU]` of the whole units (tokens/s, sessions, users) in which `demand` is counted,
    and takes `gpu_time` of each of its GPUs then. `survive`: only what is still answered with any one node lost counts.
    """

    name: str
    instance: Instance
    gpus: int
    rate: Mapping[str, int]
    demand: int
    survive: bool = False
    weight: int = 1
    gpu_time: float = 1.0


class Engine(NamedTuple):
    """A replica of a model on the GPUs of its node."""

    model: str
    gpus: tuple[int, ...]


Contents = Mapping[str, tuple[Engine, ...]]


class Kind(NamedTuple):
    """What makes nodes equal."""

    gpu: str
    gpus: int


class Block(NamedTuple):
    """Engines on an aligned block of `size` GPUs, counted from the block's first GPU."""

    kind: Kind
    size: int
    engines: tuple[Engine, ...]

    def of(self, model: str) -> int:
        """Replicas of a model."""
        return count(self.engines, model)


@dataclass(frozen=True)
class Deadline:
    """Seconds left for the search."""

    seconds: float
    clock: Callable[[], float]
    began: float

    def left(self) -> float:
        """Seconds, 0 when it is over."""
        return max(0.0, self.seconds - (self.clock() - self.began))


@dataclass(frozen=True)
class Fleet:
    """One question: nodes, the models that can run on them, what runs `now`, and what the search may use."""

    nodes: Sequence[Node]
    models: Mapping[str, FleetModel]
    now: Contents
    workers: int
    deadline: Deadline
    catalog: Catalog

    @cached_property
    def kinds(self) -> Counter[Kind]:
        """How many nodes of each kind there are."""
        return Counter(Kind(node.gpu, node.gpus) for node in self.nodes)

    @cached_property
    def weight(self) -> int:
        """Of all models together."""
        return sum(model.weight for model in self.models.values())

    @cached_property
    def everything(self) -> int:
        """Weighted parts of all demand."""
        return SHARES * self.weight

    def levels(self) -> list[tuple[Kind, int]]:
        """Each kind with each size of its blocks."""
        return [(kind, size) for kind in self.kinds for size in sizes(kind.gpus)]


def served(contents: Contents, nodes: Sequence[Node], model: FleetModel, *, lost: str | None = None) -> int:
    """Units of a model's demand that these nodes answer; `lost` names a node that is gone."""
    return min(model.demand, sum(_capacity(contents, node, model) for node in nodes if node.name != lost))


def promised(contents: Contents, nodes: Sequence[Node], model: FleetModel) -> int:
    """Units answered with the worst node lost for a model that must survive one, with all nodes for the others."""
    capacities = [_capacity(contents, node, model) for node in nodes]
    lost = max(capacities, default=0) if model.survive else 0
    return min(model.demand, sum(capacities) - lost)


def _capacity(contents: Contents, node: Node, model: FleetModel) -> int:
    return model.rate.get(node.gpu, 0) * count(contents.get(node.name, ()), model.name)


def check(node: Node, engines: Sequence[Engine], models: Mapping[str, FleetModel], catalog: Catalog) -> Fit:
    """What `fit` says of one node's engines."""
    names = [f"{engine.model}#{number}" for number, engine in enumerate(engines)]
    instances = {name: fixed(models[engine.model]) for name, engine in zip(names, engines, strict=True)}
    placement = {name: engine.gpus for name, engine in zip(names, engines, strict=True)}
    return fit(instances, placement, catalog.gpus[node.gpu], node.gpus, catalog)


def blocks(gpus: int, size: int) -> list[tuple[int, ...]]:
    """Aligned blocks of `size` GPUs on a node."""
    return [tuple(range(first, first + size)) for first in range(0, gpus - size + 1, size)]


def steps_needed(model: FleetModel, gpu: str, catalog: Catalog) -> int:
    """Steps of the memory fraction that one replica takes of each of its GPUs, by `fit`."""
    alone = fit({"": fixed(model)}, {"": range(model.gpus)}, catalog.gpus[gpu], model.gpus, catalog)
    return round(alone.fractions[""] * STEPS)


def shelf(kind: Kind, models: Mapping[str, FleetModel], catalog: Catalog) -> Shelf:
    """One node of a kind, with what each replica takes of it."""
    return Shelf(
        kind.gpus,
        allowed_steps(catalog),
        TIME,
        [
            Item(name, model.gpus, steps_needed(model, kind.gpu, catalog), time_parts(model))
            for name, model in sorted(models.items())
            if model.gpus <= kind.gpus and obstacle(model, kind, catalog) is None
        ],
    )


def allowed_steps(catalog: Catalog) -> int:
    """Steps of a GPU's memory that engines may take."""
    return math.floor(catalog.vllm.gpu_memory_utilization * STEPS)


def time_parts(model: FleetModel) -> int:
    """Parts of a GPU's time that one replica takes."""
    return math.ceil(model.gpu_time * TIME - TOLERANCE)


def count(engines: Iterable[Engine], name: str) -> int:
    """Engines of a model."""
    return sum(engine.model == name for engine in engines)


def fixed(model: FleetModel) -> Instance:
    """The replica with its cache as declared, or one request's: a fleet's engines never take what is left."""
    return replace(model.instance, kv_gib=model.instance.kv_gib or 0.0)


def has_home(model: FleetModel, nodes: Sequence[Node], catalog: Catalog) -> bool:
    """Whether a replica runs on some of these nodes."""
    return any(obstacle(model, kind, catalog) is None for kind in kinds_of(nodes))


def countable(model: FleetModel, nodes: Sequence[Node], catalog: Catalog) -> int:
    """The demand, at most a hundred times what these nodes could answer if they did nothing else."""
    alone = 0
    for kind, count in Counter(Kind(node.gpu, node.gpus) for node in nodes).items():
        replicas, _ = shelf(kind, {model.name: model}, catalog).best({model.name: 1.0})
        alone += count * round(replicas) * model.rate.get(kind.gpu, 0)
    return min(model.demand, max(1, 100 * alone))


def kinds_of(nodes: Sequence[Node]) -> list[Kind]:
    """The kinds among these nodes."""
    return sorted({Kind(node.gpu, node.gpus) for node in nodes})


def obstacle(model: FleetModel, kind: Kind, catalog: Catalog) -> str | None:
    """Why one replica cannot run on an empty node of this kind, or None."""
    problem = tensor_parallel_problem(model.instance, model.gpus)
    if problem:
        return problem
    if model.rate.get(kind.gpu, 0) <= 0:
        return f"no speed is known for it on {kind.gpu}"
    if model.gpus.bit_count() != 1:
        return f"a fleet places engines over 1, 2, 4, ... GPUs, not over {model.gpus}"
    if model.gpus > kind.gpus:
        return f"it needs {model.gpus} GPUs in one node, a node has {kind.gpus} x {kind.gpu}"
    gpu = catalog.gpus[kind.gpu]
    alone = fit({"": fixed(model)}, {"": range(model.gpus)}, gpu, model.gpus, catalog)
    if alone.fits and steps_needed(model, kind.gpu, catalog) <= math.floor(catalog.vllm.gpu_memory_utilization * STEPS):
        return None
    need, budget = alone.gpus[0].used / GIB, budget_bytes(gpu, catalog) / GIB
    return f"it needs {need:.1f} GiB on each of {model.gpus} GPUs, {kind.gpu} gives engines {budget:.1f} GiB"


def names_of(engines: Iterable[Engine]) -> list[str]:
    """The model of each engine."""
    return [engine.model for engine in engines]


def nodes_used(contents: Contents) -> int:
    """Nodes that carry something."""
    return sum(bool(engines) for engines in contents.values())


def places(numbers: Mapping[Block, Any], kind: Kind, size: int) -> Any:
    """Blocks of this size that larger and equal ones take: aligned blocks of powers of two never waste a place."""
    return sum(
        block.size // size * number for block, number in numbers.items() if block.kind == kind and block.size >= size
    )


def split(kind: Kind, engines: Sequence[Engine]) -> list[Block]:
    """The smallest aligned blocks that share no engine."""
    found = []
    for size in reversed(sizes(kind.gpus)):
        for block in blocks(kind.gpus, size):
            inside = [engine for engine in engines if set(engine.gpus) <= set(block)]
            if size == 1 or any(len(engine.gpus) == size for engine in inside):
                engines = [engine for engine in engines if engine not in inside]
                shifted = [Engine(e.model, tuple(gpu - block[0] for gpu in e.gpus)) for e in inside]
                if inside:
                    found.append(Block(kind, size, tuple(sorted(shifted))))
    return found


def joined(now: Sequence[Engine], sorts: Sequence[Block]) -> tuple[Engine, ...]:
    """Blocks side by side on a node, the largest first; as they stand now where the engines are the same."""
    engines: list[Engine] = []
    first = 0
    for block in sorted(sorts, key=lambda block: (-block.size, block)):
        engines += [Engine(e.model, tuple(gpu + first for gpu in e.gpus)) for e in block.engines]
        first += block.size
    return tuple(now) if Counter(names_of(now)) == Counter(names_of(engines)) else tuple(engines)
