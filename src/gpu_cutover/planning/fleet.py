"""Which engines run on which of many nodes: served demand first, then few nodes, then few moves. Pure.

Equal nodes are not told apart, and neither are equal GPUs. A *block* is what an aligned group of 1, 2, 4, … GPUs of one
node carries, and the unknown is how many blocks of each sort there are: blocks of powers of two never waste a place.
Where all sorts of block can be listed, they are; where there are too many, they are found one at a time (column
generation, Gilmore and Gomory 1961): a linear program over the blocks known so far sets a price per replica, `shelf`
finds what one node should carry at these prices, and when none pays, the program's value is a bound that no placement
can beat. CP-SAT then chooses whole numbers of blocks, and the blocks are dealt to nodes so that no node takes much of a
model that must survive its loss. What fits on a GPU is decided by `fit`.

An engine over several GPUs sits on an aligned block (0-1 or 2-3): GPUs that share a socket or a switch. OR-Tools is
imported when a fleet is solved, not before: it takes most of a second.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ..catalog import Catalog, load_catalog
from .fit import GIB, STEPS, Fit, Instance, budget_bytes, fit, tensor_parallel_problem
from .shelf import Filling, Item, Shelf, sizes

SEED = 1
SHARES = 10_000  # a model's served demand is counted in this many parts
TIME = 1000  # a GPU's time is shared in this many parts
ROUNDS = 600
EFFORT = 10.0  # CP-SAT's deterministic seconds for one whole-number program
VARIATIONS = 100
SMALL = 4000  # nodes x sorts of block that are solved with the nodes' names
MOST_BLOCKS = 3000  # up to here all sorts of block are listed, beyond it only those that pay
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


class Kind(NamedTuple):
    """What makes nodes equal."""

    gpu: str
    gpus: int


class _Block(NamedTuple):
    """Engines on an aligned block of `size` GPUs, counted from the block's first GPU."""

    kind: Kind
    size: int
    engines: tuple[Engine, ...]

    def of(self, model: str) -> int:
        """Replicas of a model."""
        return _count(self.engines, model)


@dataclass(frozen=True)
class _Deadline:
    """Seconds left for the search."""

    seconds: float
    clock: Callable[[], float]
    began: float

    def left(self) -> float:
        return max(0.0, self.seconds - (self.clock() - self.began))


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
        model.name: replace(model, demand=_countable(model, nodes, catalog))
        for model in models
        if model.demand > 0 and _homes(model, nodes, catalog)
    }
    now = {node.name: tuple((current or {}).get(node.name, ())) for node in nodes}
    if not able:
        return _plan(nodes, names, {node.name: () for node in nodes}, now, 0.0, 0, catalog)
    search = _Search(nodes, able, now, workers, _Deadline(seconds, clock, clock()), catalog)
    contents, served_bound, bound = search.run()
    weight = sum(model.weight for model in models if model.demand > 0)
    part = sum(model.weight for model in able.values()) / weight
    return _plan(nodes, names, contents, now, served_bound * part, bound, catalog)


def served(contents: Contents, nodes: Sequence[Node], model: FleetModel, *, lost: str | None = None) -> int:
    """Units of a model's demand that these nodes answer; `lost` names a node that is gone."""
    return min(model.demand, sum(_capacity(contents, node, model) for node in nodes if node.name != lost))


def promised(contents: Contents, nodes: Sequence[Node], model: FleetModel) -> int:
    """Units answered with the worst node lost for a model that must survive one, with all nodes for the others."""
    capacities = [_capacity(contents, node, model) for node in nodes]
    lost = max(capacities, default=0) if model.survive else 0
    return min(model.demand, sum(capacities) - lost)


def _capacity(contents: Contents, node: Node, model: FleetModel) -> int:
    return model.rate.get(node.gpu, 0) * _count(contents.get(node.name, ()), model.name)


def check(node: Node, engines: Sequence[Engine], models: Mapping[str, FleetModel], catalog: Catalog) -> Fit:
    """What `fit` says of one node's engines."""
    names = [f"{engine.model}#{number}" for number, engine in enumerate(engines)]
    instances = {name: _fixed(models[engine.model]) for name, engine in zip(names, engines, strict=True)}
    placement = {name: engine.gpus for name, engine in zip(names, engines, strict=True)}
    return fit(instances, placement, catalog.gpus[node.gpu], node.gpus, catalog)


def blocks(gpus: int, size: int) -> list[tuple[int, ...]]:
    """Aligned blocks of `size` GPUs on a node."""
    return [tuple(range(first, first + size)) for first in range(0, gpus - size + 1, size)]


def steps_needed(model: FleetModel, gpu: str, catalog: Catalog) -> int:
    """Steps of the memory fraction that one replica takes of each of its GPUs, by `fit`."""
    alone = fit({"": _fixed(model)}, {"": range(model.gpus)}, catalog.gpus[gpu], model.gpus, catalog)
    return round(alone.fractions[""] * STEPS)


def shelf(kind: Kind, models: Mapping[str, FleetModel], catalog: Catalog) -> Shelf:
    """One node of a kind, with what each replica takes of it."""
    return Shelf(
        kind.gpus,
        _allowed(catalog),
        TIME,
        [
            Item(name, model.gpus, steps_needed(model, kind.gpu, catalog), _time(model))
            for name, model in sorted(models.items())
            if model.gpus <= kind.gpus and _obstacle(model, kind, catalog) is None
        ],
    )


def _allowed(catalog: Catalog) -> int:
    return math.floor(catalog.vllm.gpu_memory_utilization * STEPS)


def _time(model: FleetModel) -> int:
    return math.ceil(model.gpu_time * TIME - TOLERANCE)


def _count(engines: Iterable[Engine], name: str) -> int:
    return sum(engine.model == name for engine in engines)


def _fixed(model: FleetModel) -> Instance:
    """The replica with its cache as declared, or one request's: a fleet's engines never take what is left."""
    return replace(model.instance, kv_gib=model.instance.kv_gib or 0.0)


def _homes(model: FleetModel, nodes: Sequence[Node], catalog: Catalog) -> bool:
    return any(_obstacle(model, kind, catalog) is None for kind in _kinds(nodes))


def _countable(model: FleetModel, nodes: Sequence[Node], catalog: Catalog) -> int:
    """The demand, at most a hundred times what these nodes could answer if they did nothing else."""
    alone = 0
    for kind, count in Counter(Kind(node.gpu, node.gpus) for node in nodes).items():
        replicas, _ = shelf(kind, {model.name: model}, catalog).best({model.name: 1.0})
        alone += count * round(replicas) * model.rate.get(kind.gpu, 0)
    return min(model.demand, max(1, 100 * alone))


def _kinds(nodes: Sequence[Node]) -> list[Kind]:
    return sorted({Kind(node.gpu, node.gpus) for node in nodes})


def _obstacle(model: FleetModel, kind: Kind, catalog: Catalog) -> str | None:
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
    alone = fit({"": _fixed(model)}, {"": range(model.gpus)}, gpu, model.gpus, catalog)
    if alone.fits and steps_needed(model, kind.gpu, catalog) <= math.floor(catalog.vllm.gpu_memory_utilization * STEPS):
        return None
    need, budget = alone.gpus[0].used / GIB, budget_bytes(gpu, catalog) / GIB
    return f"it needs {need:.1f} GiB on each of {model.gpus} GPUs, {kind.gpu} gives engines {budget:.1f} GiB"


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """served <= offset + sum of slope(GPU) x replicas."""

    slopes: Mapping[str, float]
    offset: float

    def per_replica(self, gpu: str) -> float:
        return self.slopes.get(gpu, 0.0)


@dataclass(frozen=True)
class _Chosen:
    """How many blocks of each sort, the weighted parts of the demand they serve, and what no choice of them beats."""

    numbers: Mapping[_Block, int]
    parts: int
    bound: float


class _Search:
    """The sorts of block found so far for one fleet, and the linear and whole-number programs over them."""

    def __init__(
        self,
        nodes: Sequence[Node],
        models: Mapping[str, FleetModel],
        now: Contents,
        workers: int,
        deadline: _Deadline,
        catalog: Catalog,
    ) -> None:
        self.nodes, self.models, self.now, self.workers = nodes, models, now, workers
        self.deadline, self.catalog = deadline, catalog
        self.kinds = Counter(Kind(node.gpu, node.gpus) for node in nodes)
        self.weight = sum(model.weight for model in models.values())
        self.everything = SHARES * self.weight
        self.shelves = {kind: shelf(kind, models, catalog) for kind in self.kinds}
        self.blocks: dict[_Block, None] = {}
        self.standing: Counter[_Block] = Counter()
        self.complete = True  # every sort of block is known
        self.proven = False  # what was found for named nodes is the best there is

    def run(self) -> tuple[Contents, float, int]:
        """What each node carries, the bound of the served share, the bound of the number of nodes."""
        self._first_blocks()
        most = min(1.0, self._generate(None))
        self._vary(None)
        chosen = _Chosen({}, self.everything, 0.0)
        if most < 1 - TOLERANCE:
            chosen = self._choose("parts", 0, chosen)
            most = min(most, (chosen.bound + self.weight) / self.everything) if self.complete else most
        least = math.ceil(-self._generate(chosen.parts) - 1e-4)
        self._vary(chosen.parts)
        chosen = self._choose("nodes", chosen.parts, chosen, least)
        least = max(least, math.ceil(chosen.bound - 1e-4)) if self.complete else least
        contents = self._lean(self._moved(chosen) if self.standing else self._pack(chosen))
        return (contents, 0.0, len(self.nodes)) if self.proven else (contents, most, least)

    def _moved(self, chosen: _Chosen) -> dict[str, tuple[Engine, ...]]:
        """The better of: blocks as they stand now where that is as good, and the first choice without such regard."""
        plain = self._contents(self._dealt(chosen))
        kept = self._pack(self._choose("moves", chosen.parts, chosen))
        return max(kept, plain, key=lambda contents: (self._parts(contents), -_used(contents)))

    # sorts of block ..................................................................................................

    def _first_blocks(self) -> None:
        """Each model alone, as often as it fits, and what stands now."""
        for kind in sorted(self.kinds):
            for name in sorted(self.models):
                self._price(kind, {name: 1.0})
        for node in self.nodes:
            engines = tuple(sorted(engine for engine in self.now[node.name] if engine.model in self.models))
            if engines and self._legal(node, engines):
                self.standing.update(_split(Kind(node.gpu, node.gpus), engines))
        self.blocks |= dict.fromkeys(self.standing)
        for kind, here in sorted(self.shelves.items()):
            fillings = here.all(MOST_BLOCKS)
            self.complete = self.complete and fillings is not None
            for size, filling in fillings or ():
                self.blocks[_Block(kind, size, self._engines(filling))] = None

    def _legal(self, node: Node, engines: tuple[Engine, ...]) -> bool:
        time_of: Counter[int] = Counter()
        for engine in engines:
            model = self.models[engine.model]
            if engine.gpus not in blocks(node.gpus, model.gpus) or model.rate.get(node.gpu, 0) <= 0:
                return False
            time_of.update(dict.fromkeys(engine.gpus, _time(model)))
        return max(time_of.values()) <= TIME and check(node, engines, self.models, self.catalog).fits

    def _price(self, kind: Kind, prices: Mapping[str, float]) -> float:
        """Add the blocks worth most at these prices; returns what no node of this kind is worth more than."""
        bound, fillings = self.shelves[kind].best(prices)
        for size, filling in fillings:
            engines = self._engines(filling)
            self.blocks[_Block(kind, size, engines)] = None
            self.blocks[_Block(kind, size, self._thin(engines))] = None
        return bound

    def _engines(self, filling: Filling) -> tuple[Engine, ...]:
        engines = (Engine(name, tuple(range(at, at + self.models[name].gpus))) for name, at in filling.engines)
        return tuple(sorted(engines))

    def _thin(self, engines: Sequence[Engine]) -> tuple[Engine, ...]:
        """Of each surviving model one replica: so little is lost with the block."""
        kept: list[Engine] = []
        for engine in engines:
            if not (self.models[engine.model].survive and _count(kept, engine.model)):
                kept.append(engine)
        return tuple(kept)

    def _vary(self, parts: int | None) -> None:
        """More blocks around the linear program's: whole numbers need more choice than fractions.

        Each replica is worth its price, at least its part of a GPU's rent, times a throw of the same dice every time.
        """
        if self.complete:
            return
        _, prices, rents = self._linear(parts)
        dice = random.Random(SEED)
        for kind, here in sorted(self.shelves.items()):
            rent = max(rents[kind], TOLERANCE) / kind.gpus
            fair = {item.name: max(prices[item.name][kind.gpu], rent * here.part(item)) for item in here.items}
            for _ in range(VARIATIONS):
                self._price(kind, {name: price * dice.uniform(0.2, 1.8) for name, price in fair.items()})

    # the linear program ..............................................................................................

    def _generate(self, parts: int | None) -> float:
        """Find blocks until none pays; returns the bound: the served share, or (given parts to serve) minus the nodes.

        At any prices the program's value, plus what the best node of each kind would still earn, is a bound.
        """
        best = math.inf
        for _ in range(ROUNDS):
            value, prices, rents = self._linear(parts)
            known = len(self.blocks)
            missed = 0.0
            for kind, number in sorted(self.kinds.items()):
                paid = {name: price.get(kind.gpu, 0.0) for name, price in prices.items()}
                missed += number * max(0.0, self._price(kind, paid) - rents[kind])
            best = min(best, value + missed)
            if missed <= TOLERANCE or len(self.blocks) == known or not self.deadline.left():
                break
        return best

    def _linear(self, parts: int | None) -> tuple[float, dict[str, dict[str, float]], dict[Kind, float]]:
        """Fractions of blocks: the program's value, the price of a replica per model and GPU, the rent of a node.

        The value is the served share; given parts to serve, it is minus the number of nodes.
        """
        from ortools.linear_solver import pywraplp

        lp = pywraplp.Solver.CreateSolver("GLOP")
        numbers = {block: lp.NumVar(0, lp.infinity(), "") for block in self.blocks}
        used = {kind: lp.NumVar(0, lp.infinity(), "") for kind in self.kinds}
        shares = {name: lp.NumVar(0, 1, name) for name in self.models}
        room = {kind: lp.Add(used[kind] <= count) for kind, count in self.kinds.items()}
        for kind, size in self._levels():
            lp.Add(_places(numbers, kind, size) <= used[kind] * (kind.gpus // size))
        rows = []
        for name, model in self.models.items():
            for line in self._limits(model):
                promise = sum(line.per_replica(b.kind.gpu) * b.of(name) * number for b, number in numbers.items())
                rows.append((name, line, lp.Add(model.demand * shares[name] - promise <= line.offset)))
        total = sum(self.models[name].weight / self.weight * share for name, share in shares.items())
        slack = lp.NumVar(0, 1, "")
        if parts is None:
            lp.Maximize(total)
        else:
            lp.Add(total + slack >= parts / self.everything)
            lp.Maximize(-sum(used.values()) - 2 * len(self.nodes) * self.weight * slack)
        if lp.Solve() != pywraplp.Solver.OPTIMAL:
            raise RuntimeError("the linear program of the fleet has no answer although empty nodes are one")
        prices: dict[str, dict[str, float]] = {name: {} for name in self.models}
        for name, line, row in rows:
            for gpu in sorted({kind.gpu for kind in self.kinds}):
                more = row.dual_value() * line.per_replica(gpu)
                prices[name][gpu] = prices[name].get(gpu, 0.0) + more
        cost = 0.0 if parts is None else 1.0
        return lp.Objective().Value(), prices, {kind: row.dual_value() + cost for kind, row in room.items()}

    def _levels(self) -> list[tuple[Kind, int]]:
        return [(kind, size) for kind in self.kinds for size in sizes(kind.gpus)]

    def _limits(self, model: FleetModel) -> list[_Line]:
        """Straight lines above what a number of replicas can promise; whole replicas make the corners.

        With one node lost at least the share of an average node is lost, and at least one replica: so many promise
        the whole demand, one fewer only what that many at full rate give.
        """
        kept = 1 - 1 / len(self.nodes) if model.survive else 1.0
        fastest = max(model.rate.get(kind.gpu, 0) for kind in self.kinds)
        full = math.ceil(model.demand / fastest)
        corner, enough = full - 1 + model.survive, full + model.survive
        promise = fastest * (full - 1)
        lines = [_Line({gpu: rate * kept for gpu, rate in model.rate.items()}, 0.0)]
        if promise * enough <= model.demand * corner:
            return [*lines, _Line(dict.fromkeys(model.rate, model.demand / enough), 0.0)]
        last = float(model.demand - promise)
        lines.append(_Line(dict.fromkeys(model.rate, promise / corner), 0.0))
        return [*lines, _Line(dict.fromkeys(model.rate, last), model.demand - last * enough)]

    # whole numbers ...................................................................................................

    def _choose(self, goal: str, parts: int, before: _Chosen, least: int = 0) -> _Chosen:
        """Whole numbers of blocks that serve so many parts: most `parts`, fewest `nodes` or fewest `moves`."""
        from ortools.sat.python import cp_model

        cp = cp_model.CpModel()
        numbers = {
            block: cp.new_int_var(0, self.kinds[block.kind] * (block.kind.gpus // block.size), "")
            for block in self.blocks
        }
        used = {kind: cp.new_int_var(0, count, "") for kind, count in self.kinds.items()}
        for kind, size in self._levels():
            cp.add(_places(numbers, kind, size) <= used[kind] * (kind.gpus // size))
        for kind in self.kinds:
            cp.add(used[kind] <= sum(number for block, number in numbers.items() if block.kind == kind))
        total = sum(model.weight * self._part(cp, model, numbers, used) for model in self.models.values())
        cp.add(total >= parts)
        cp.add(sum(used.values()) >= least)
        for block, number in numbers.items() if before.numbers else ():
            cp.add_hint(number, before.numbers.get(block, 0))
        if goal == "parts":
            cp.maximize(total)
        elif goal == "nodes":
            cp.minimize(sum(used.values()))
        else:
            cp.add(sum(used.values()) <= self._nodes_of(before))
            cp.minimize(self._strangers(cp, numbers))
        solver = _solver(self.workers, self.deadline.left() / 2)
        if solver.solve(cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return before if before.numbers or goal == "parts" else self._choose("parts", 0, before)
        return _Chosen(
            {block: solver.value(number) for block, number in numbers.items() if solver.value(number)},
            solver.value(total),
            solver.best_objective_bound,
        )

    def _part(self, cp: Any, model: FleetModel, numbers: Mapping[_Block, Any], used: Mapping[Kind, Any]) -> Any:
        """Parts of a model's demand served."""
        part = cp.new_int_var(0, SHARES, "")
        capacity = {
            kind: sum(
                model.rate.get(kind.gpu, 0) * block.of(model.name) * number
                for block, number in numbers.items()
                if block.kind == kind
            )
            for kind in self.kinds
        }
        whole = self._kept(cp, model, numbers, used, capacity) if model.survive else sum(capacity.values())
        cp.add(model.demand * part <= SHARES * whole)
        for line in self._limits(model):  # follows from the above; without it the solver's own bound is weak
            promise = sum(
                math.ceil(SHARES * line.per_replica(block.kind.gpu) * block.of(model.name)) * number
                for block, number in numbers.items()
            )
            cp.add(model.demand * part <= promise + math.ceil(SHARES * line.offset))
        return part

    def _kept(
        self,
        cp: Any,
        model: FleetModel,
        numbers: Mapping[_Block, Any],
        used: Mapping[Kind, Any],
        capacity: Mapping[Kind, Any],
    ) -> Any:
        """What is left of a capacity with the worst node lost: no node counts for more than that one's loss.

        Capacity beyond twice the demand need not be counted.
        """
        most = model.demand + max(model.rate.get(kind.gpu, 0) for kind in self.kinds)
        lost = cp.new_int_var(0, most, "")
        parts = []
        for kind, there in capacity.items():
            counted, spread = cp.new_int_var(0, 2 * most, ""), cp.new_int_var(0, most * self.kinds[kind], "")
            cp.add_multiplication_equality(spread, [lost, used[kind]])
            cp.add(counted <= there)
            cp.add(counted <= spread)
            active = cp.new_bool_var("")
            cp.add(counted <= 2 * most * active)
            cp.add(lost >= model.rate.get(kind.gpu, 0) * active)
            parts.append(counted)
        for block, number in numbers.items():
            if block.of(model.name) > 1:
                stands = cp.new_bool_var("")
                cp.add(number <= self.kinds[block.kind] * block.kind.gpus * stands)
                cp.add(lost >= model.rate[block.kind.gpu] * block.of(model.name) * stands)
        return sum(parts) - lost

    def _strangers(self, cp: Any, numbers: Mapping[_Block, Any]) -> Any:
        """Engines in blocks that stand nowhere now."""
        new = []
        for block, number in numbers.items():
            more = cp.new_int_var(0, self.kinds[block.kind] * block.kind.gpus, "")
            cp.add(more >= number - self.standing[block])
            new.append(len(block.engines) * more)
        return sum(new)

    @staticmethod
    def _nodes_of(chosen: _Chosen) -> int:
        kinds = {block.kind for block in chosen.numbers}
        return sum(
            max(math.ceil(_places(chosen.numbers, kind, size) / (kind.gpus // size)) for size in sizes(kind.gpus))
            for kind in kinds
        )

    # named nodes .....................................................................................................

    def _pack(self, chosen: _Chosen) -> dict[str, tuple[Engine, ...]]:
        """Give the blocks to nodes: little of a surviving model on any one, then few engines that must start."""
        dealt = self._dealt(chosen)
        contents = self._contents(dealt)
        if not self.standing and self._reaches(contents, chosen):
            return contents
        small = len(self.nodes) * len(self.blocks) <= SMALL
        return self._packed(list(self.blocks) if small else sorted(chosen.numbers), dealt)

    def _reaches(self, contents: Contents, chosen: _Chosen) -> bool:
        return self._parts(contents) >= chosen.parts and _used(contents) <= self._nodes_of(chosen)

    def _parts(self, contents: Contents) -> int:
        return sum(
            model.weight * (SHARES * promised(contents, self.nodes, model) // model.demand)
            for model in self.models.values()
        )

    def _contents(self, homes: Mapping[tuple[str, _Block], int]) -> dict[str, tuple[Engine, ...]]:
        sorts: dict[str, list[_Block]] = {node.name: [] for node in self.nodes}
        for (name, block), number in homes.items():
            sorts[name] += [block] * number
        return {name: _joined(self.now[name], here) for name, here in sorts.items()}

    def _packed(self, sorts: Sequence[_Block], dealt: Counter[tuple[str, _Block]]) -> dict[str, tuple[Engine, ...]]:
        """The best that CP-SAT makes of these sorts of block on named nodes, starting from a deal."""
        from ortools.sat.python import cp_model

        cp = cp_model.CpModel()
        homes = {
            (node.name, block): cp.new_int_var(0, node.gpus // block.size, "")
            for node in self.nodes
            for block in sorts
            if block.kind == Kind(node.gpu, node.gpus)
        }
        used = []
        here = {
            node.name: {block: home for (name, block), home in homes.items() if name == node.name}
            for node in self.nodes
        }
        for node in self.nodes:
            used.append(cp.new_bool_var(""))
            for size in sizes(node.gpus):
                room = (node.gpus // size) * used[-1]
                cp.add(_places(here[node.name], Kind(node.gpu, node.gpus), size) <= room)
        parts = sum(model.weight * self._named_part(cp, model, here) for model in self.models.values())
        starts = [self._new_engines(cp, node, here[node.name]) for node in self.nodes if self.standing]
        most_starts = 1000 * len(self.nodes) * len(self.models) + 1
        cp.maximize(most_starts * ((len(self.nodes) + 1) * parts - sum(used)) - sum(starts))
        for key, home in homes.items():
            cp.add_hint(home, dealt[key])
        solver = _solver(self.workers, self.deadline.left())
        status = solver.solve(cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return self._contents(dealt)
        self.proven = self.complete and len(sorts) == len(self.blocks) and status == cp_model.OPTIMAL
        return self._contents({key: solver.value(home) for key, home in homes.items()})

    def _named_part(self, cp: Any, model: FleetModel, here: Mapping[str, Mapping[_Block, Any]]) -> Any:
        """Parts of a model's demand served by named nodes, with the worst of them lost where it must survive that."""
        part = cp.new_int_var(0, SHARES, "")
        most = 2 * model.demand + 2 * max(model.rate.get(kind.gpu, 0) for kind in self.kinds)
        lost = cp.new_int_var(0, most, "") if model.survive else 0
        counted = []
        for node in self.nodes:
            rate = model.rate.get(node.gpu, 0)
            counted.append(cp.new_int_var(0, most, ""))
            cp.add(counted[-1] <= sum(rate * block.of(model.name) * home for block, home in here[node.name].items()))
            if model.survive:
                cp.add(counted[-1] <= lost)
        cp.add(model.demand * part <= SHARES * (sum(counted) - lost))
        return part

    def _new_engines(self, cp: Any, node: Node, here: Mapping[_Block, Any]) -> Any:
        """Engines that do not run on a node now."""
        new = []
        for name in self.models:
            more = cp.new_int_var(0, 1000, "")
            wanted = sum(block.of(name) * home for block, home in here.items())
            cp.add(more >= wanted - _count(self.now[node.name], name))
            new.append(more)
        return sum(new)

    def _dealt(self, chosen: _Chosen) -> Counter[tuple[str, _Block]]:
        """A first deal: each block, large ones first, to the node with room that has least of the same models."""
        room = {
            node.name: node.gpus for node in sorted(self.nodes, key=lambda node: (not self.now[node.name], node.name))
        }
        room = dict(list(room.items())[: self._nodes_of(chosen)]) if len(self.kinds) == 1 else room
        kinds = {node.name: Kind(node.gpu, node.gpus) for node in self.nodes}
        load: Counter[tuple[str, str]] = Counter()
        dealt: Counter[tuple[str, _Block]] = Counter()
        waiting = [block for block, number in sorted(chosen.numbers.items()) for _ in range(number)]
        for block in sorted(waiting, key=lambda block: (-block.size, -len(block.engines), block)):
            names = {engine.model for engine in block.engines if self.models[engine.model].survive}
            fitting = [name for name, left in room.items() if left >= block.size and kinds[name] == block.kind]
            if not fitting:
                continue
            here = Counter(engine.model for engine in block.engines)
            best = min(
                fitting,
                key=lambda node: (
                    sum(load[node, name] for name in names),
                    -(here & Counter(_names(self.now[node]))).total(),
                    -room[node],
                ),
            )
            room[best] -= block.size
            dealt[best, block] += 1
            load.update((best, name) for name in names)
        return dealt

    def _lean(self, contents: dict[str, tuple[Engine, ...]]) -> Contents:
        """Without the replicas that add nothing, those first that would have to start."""
        for name, model in sorted(self.models.items()):
            for node in sorted(self.nodes, key=lambda node: (_count(self.now[node.name], name), node.name)):
                while _count(contents[node.name], name):
                    engines = list(contents[node.name])
                    engines.remove(next(engine for engine in reversed(engines) if engine.model == name))
                    fewer = {**contents, node.name: tuple(engines)}
                    if promised(fewer, self.nodes, model) < promised(contents, self.nodes, model):
                        break
                    contents = fewer
        return contents


def _used(contents: Contents) -> int:
    return sum(bool(engines) for engines in contents.values())


def _places(numbers: Mapping[_Block, Any], kind: Kind, size: int) -> Any:
    """Blocks of this size that larger and equal ones take: aligned blocks of powers of two never waste a place."""
    return sum(
        block.size // size * number for block, number in numbers.items() if block.kind == kind and block.size >= size
    )


def _split(kind: Kind, engines: Sequence[Engine]) -> list[_Block]:
    """The smallest aligned blocks that share no engine."""
    found = []
    for size in reversed(sizes(kind.gpus)):
        for block in blocks(kind.gpus, size):
            inside = [engine for engine in engines if set(engine.gpus) <= set(block)]
            if size == 1 or any(len(engine.gpus) == size for engine in inside):
                engines = [engine for engine in engines if engine not in inside]
                shifted = [Engine(e.model, tuple(gpu - block[0] for gpu in e.gpus)) for e in inside]
                if inside:
                    found.append(_Block(kind, size, tuple(sorted(shifted))))
    return found


def _joined(now: Sequence[Engine], sorts: Sequence[_Block]) -> tuple[Engine, ...]:
    """Blocks side by side on a node, the largest first; as they stand now where the engines are the same."""
    engines: list[Engine] = []
    first = 0
    for block in sorted(sorts, key=lambda block: (-block.size, block)):
        engines += [Engine(e.model, tuple(gpu + first for gpu in e.gpus)) for e in block.engines]
        first += block.size
    return tuple(now) if Counter(_names(now)) == Counter(_names(engines)) else tuple(engines)


def _solver(workers: int, seconds: float) -> Any:
    """A CP-SAT solver that gives the same answer every time: fixed seed, workers in step, effort before wall time."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.random_seed = SEED
    solver.parameters.num_workers = workers
    solver.parameters.interleave_search = workers > 1
    solver.parameters.max_deterministic_time = EFFORT
    solver.parameters.max_time_in_seconds = max(1.0, seconds)
    return solver


# --- the answer ------------------------------------------------------------------------------------------------------


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
    parts = {name: amounts[name] / _countable(model, nodes, catalog) for name, model in asked.items()}
    share = sum(asked[name].weight * part for name, part in parts.items()) / weight if asked else 1.0
    served_bound = served_bound if served_bound > share + 1 / SHARES else share
    used = _used(contents)
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
        starts=sum((Counter(_names(contents[node.name])) - Counter(_names(now[node.name]))).total() for node in nodes),
        stops=sum((Counter(_names(now[node.name])) - Counter(_names(contents[node.name]))).total() for node in nodes),
        binding=_binding(nodes, asked, amounts, catalog),
    )


def _names(engines: Iterable[Engine]) -> list[str]:
    return [engine.model for engine in engines]


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
        obstacles = [_obstacle(model, kind, catalog) for kind in _kinds(nodes)]
        if all(obstacles):
            return f"{name} runs on no node: {obstacles[0]}"
    alone = [name for name, model in sorted(short.items()) if model.survive and len(nodes) == 1]
    if alone:
        return f"{alone[0]} must survive the loss of a node, and there is only one"
    figures = ", ".join(f"{name} {amounts[name]:,} of {model.demand:,}" for name, model in sorted(short.items())[:4])
    more = f" and {len(short) - 4} more" if len(short) > 4 else ""
    return f"{len(nodes)} nodes are full and serve {figures}{more}"
