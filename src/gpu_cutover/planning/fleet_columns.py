"""The sorts of block worth having in a fleet, and the linear program over them that bounds what any placement serves.

Where all sorts of block can be listed, they are; where there are too many, they are found one at a time (column
generation): the program sets a price per replica, `shelf` finds what one node should carry at these prices, and when
none pays, the program's value is a bound.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .fleet_parts import (
    SEED,
    TIME,
    TOLERANCE,
    Block,
    Engine,
    Fleet,
    FleetModel,
    Kind,
    Node,
    blocks,
    check,
    count,
    places,
    shelf,
    split,
    time_parts,
)
from .shelf import Filling

ROUNDS = 600
VARIATIONS = 100
MOST_BLOCKS = 3000  # up to here all sorts of block are listed, beyond it only those that pay


@dataclass(frozen=True)
class Line:
    """served <= offset + sum of slope(GPU) x replicas."""

    slopes: Mapping[str, float]
    offset: float

    def per_replica(self, gpu: str) -> float:
        return self.slopes.get(gpu, 0.0)


def limits(model: FleetModel, fleet: Fleet) -> list[Line]:
    """Straight lines above what a number of replicas can promise; whole replicas make the corners.

    With one node lost at least the share of an average node is lost, and at least one replica: so many promise
    the whole demand, one fewer only what that many at full rate give.
    """
    kept = 1 - 1 / len(fleet.nodes) if model.survive else 1.0
    fastest = max(model.rate.get(kind.gpu, 0) for kind in fleet.kinds)
    full = math.ceil(model.demand / fastest)
    corner, enough = full - 1 + model.survive, full + model.survive
    promise = fastest * (full - 1)
    lines = [Line({gpu: rate * kept for gpu, rate in model.rate.items()}, 0.0)]
    if promise * enough <= model.demand * corner:
        return [*lines, Line(dict.fromkeys(model.rate, model.demand / enough), 0.0)]
    last = float(model.demand - promise)
    lines.append(Line(dict.fromkeys(model.rate, promise / corner), 0.0))
    return [*lines, Line(dict.fromkeys(model.rate, last), model.demand - last * enough)]


class Columns:
    """The sorts of block found so far for one fleet; those that are `standing` there now are among them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.shelves = {kind: shelf(kind, fleet.models, fleet.catalog) for kind in fleet.kinds}
        self.blocks: dict[Block, None] = {}
        self.standing: Counter[Block] = Counter()
        self.complete = True  # every sort of block is known
        self._first_blocks()

    def _first_blocks(self) -> None:
        """Each model alone, as often as it fits, and what stands now."""
        for kind in sorted(self.fleet.kinds):
            for name in sorted(self.fleet.models):
                self._price(kind, {name: 1.0})
        for node in self.fleet.nodes:
            engines = tuple(sorted(engine for engine in self.fleet.now[node.name] if engine.model in self.fleet.models))
            if engines and self._legal(node, engines):
                self.standing.update(split(Kind(node.gpu, node.gpus), engines))
        self.blocks |= dict.fromkeys(self.standing)
        for kind, here in sorted(self.shelves.items()):
            fillings = here.all(MOST_BLOCKS)
            self.complete = self.complete and fillings is not None
            for size, filling in fillings or ():
                self.blocks[Block(kind, size, self._engines(filling))] = None

    def _legal(self, node: Node, engines: tuple[Engine, ...]) -> bool:
        time_of: Counter[int] = Counter()
        for engine in engines:
            model = self.fleet.models[engine.model]
            if engine.gpus not in blocks(node.gpus, model.gpus) or model.rate.get(node.gpu, 0) <= 0:
                return False
            time_of.update(dict.fromkeys(engine.gpus, time_parts(model)))
        return max(time_of.values()) <= TIME and check(node, engines, self.fleet.models, self.fleet.catalog).fits

    def _price(self, kind: Kind, prices: Mapping[str, float]) -> float:
        """Add the blocks worth most at these prices; returns what no node of this kind is worth more than."""
        bound, fillings = self.shelves[kind].best(prices)
        for size, filling in fillings:
            engines = self._engines(filling)
            self.blocks[Block(kind, size, engines)] = None
            self.blocks[Block(kind, size, self._thin(engines))] = None
        return bound

    def _engines(self, filling: Filling) -> tuple[Engine, ...]:
        engines = (Engine(name, tuple(range(at, at + self.fleet.models[name].gpus))) for name, at in filling.engines)
        return tuple(sorted(engines))

    def _thin(self, engines: Sequence[Engine]) -> tuple[Engine, ...]:
        """Of each surviving model one replica: so little is lost with the block."""
        kept: list[Engine] = []
        for engine in engines:
            if not (self.fleet.models[engine.model].survive and count(kept, engine.model)):
                kept.append(engine)
        return tuple(kept)

    def vary(self, parts: int | None) -> None:
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

    def generate(self, parts: int | None) -> float:
        """Find blocks until none pays; returns the bound: the served share, or (given parts to serve) minus the nodes.

        At any prices the program's value, plus what the best node of each kind would still earn, is a bound.
        """
        best = math.inf
        for _ in range(ROUNDS):
            value, prices, rents = self._linear(parts)
            known = len(self.blocks)
            missed = 0.0
            for kind, number in sorted(self.fleet.kinds.items()):
                paid = {name: price.get(kind.gpu, 0.0) for name, price in prices.items()}
                missed += number * max(0.0, self._price(kind, paid) - rents[kind])
            best = min(best, value + missed)
            if missed <= TOLERANCE or len(self.blocks) == known or not self.fleet.deadline.left():
                break
        return best

    def _linear(self, parts: int | None) -> tuple[float, dict[str, dict[str, float]], dict[Kind, float]]:
        """Fractions of blocks: the program's value, the price of a replica per model and GPU, the rent of a node.

        The value is the served share; given parts to serve, it is minus the number of nodes.
        """
        from ortools.linear_solver import pywraplp

        lp = pywraplp.Solver.CreateSolver("GLOP")
        numbers = {block: lp.NumVar(0, lp.infinity(), "") for block in self.blocks}
        used = {kind: lp.NumVar(0, lp.infinity(), "") for kind in self.fleet.kinds}
        shares = {name: lp.NumVar(0, 1, name) for name in self.fleet.models}
        room = {kind: lp.Add(used[kind] <= count) for kind, count in self.fleet.kinds.items()}
        for kind, size in self.fleet.levels():
            lp.Add(places(numbers, kind, size) <= used[kind] * (kind.gpus // size))
        rows = []
        for name, model in self.fleet.models.items():
            for line in limits(model, self.fleet):
                promise = sum(line.per_replica(b.kind.gpu) * b.of(name) * number for b, number in numbers.items())
                rows.append((name, line, lp.Add(model.demand * shares[name] - promise <= line.offset)))
        total = sum(self.fleet.models[name].weight / self.fleet.weight * share for name, share in shares.items())
        slack = lp.NumVar(0, 1, "")
        if parts is None:
            lp.Maximize(total)
        else:
            lp.Add(total + slack >= parts / self.fleet.everything)
            lp.Maximize(-sum(used.values()) - 2 * len(self.fleet.nodes) * self.fleet.weight * slack)
        if lp.Solve() != pywraplp.Solver.OPTIMAL:
            raise RuntimeError("the linear program of the fleet has no answer although empty nodes are one")
        prices: dict[str, dict[str, float]] = {name: {} for name in self.fleet.models}
        for name, line, row in rows:
            for gpu in sorted({kind.gpu for kind in self.fleet.kinds}):
                more = row.dual_value() * line.per_replica(gpu)
                prices[name][gpu] = prices[name].get(gpu, 0.0) + more
        cost = 0.0 if parts is None else 1.0
        return lp.Objective().Value(), prices, {kind: row.dual_value() + cost for kind, row in room.items()}
