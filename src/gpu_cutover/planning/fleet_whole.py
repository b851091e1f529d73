"""Whole numbers of blocks, by CP-SAT: which sorts, how many of each, whatever node they will stand on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fleet_columns import Columns, limits
from .fleet_parts import SEED, SHARES, Block, FleetModel, Kind, places
from .shelf import sizes

EFFORT = 10.0  # CP-SAT's deterministic seconds for one whole-number program


@dataclass(frozen=True)
class Chosen:
    """How many blocks of each sort, the weighted parts of the demand they serve, and what no choice of them beats."""

    numbers: Mapping[Block, int]
    parts: int
    bound: float


def nodes_needed(chosen: Chosen) -> int:
    """Nodes that so many blocks take."""
    kinds = {block.kind for block in chosen.numbers}
    return sum(
        max(math.ceil(places(chosen.numbers, kind, size) / (kind.gpus // size)) for size in sizes(kind.gpus))
        for kind in kinds
    )


def solver_for(workers: int, seconds: float) -> Any:
    """A CP-SAT solver that gives the same answer every time: fixed seed, workers in step, effort before wall time."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.random_seed = SEED
    solver.parameters.num_workers = workers
    solver.parameters.interleave_search = workers > 1
    solver.parameters.max_deterministic_time = EFFORT
    solver.parameters.max_time_in_seconds = max(1.0, seconds)
    return solver


class Whole:
    """The whole-number programs over the sorts of block of one fleet."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.fleet = columns, columns.fleet

    def choose(self, goal: str, parts: int, before: Chosen, least: int = 0) -> Chosen:
        """Whole numbers of blocks that serve so many parts: most `parts`, fewest `nodes` or fewest `moves`."""
        from ortools.sat.python import cp_model

        cp = cp_model.CpModel()
        numbers = {
            block: cp.new_int_var(0, self.fleet.kinds[block.kind] * (block.kind.gpus // block.size), "")
            for block in self.columns.blocks
        }
        used = {kind: cp.new_int_var(0, count, "") for kind, count in self.fleet.kinds.items()}
        for kind, size in self.fleet.levels():
            cp.add(places(numbers, kind, size) <= used[kind] * (kind.gpus // size))
        for kind in self.fleet.kinds:
            cp.add(used[kind] <= sum(number for block, number in numbers.items() if block.kind == kind))
        total = sum(model.weight * self._part(cp, model, numbers, used) for model in self.fleet.models.values())
        cp.add(total >= parts)
        cp.add(sum(used.values()) >= least)
        for block, number in numbers.items() if before.numbers else ():
            cp.add_hint(number, before.numbers.get(block, 0))
        if goal == "parts":
            cp.maximize(total)
        elif goal == "nodes":
            cp.minimize(sum(used.values()))
        else:
            cp.add(sum(used.values()) <= nodes_needed(before))
            cp.minimize(self._strangers(cp, numbers))
        solver = solver_for(self.fleet.workers, self.fleet.deadline.left() / 2)
        if solver.solve(cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return before if before.numbers or goal == "parts" else self.choose("parts", 0, before)
        return Chosen(
            {block: solver.value(number) for block, number in numbers.items() if solver.value(number)},
            solver.value(total),
            solver.best_objective_bound,
        )

    def _part(self, cp: Any, model: FleetModel, numbers: Mapping[Block, Any], used: Mapping[Kind, Any]) -> Any:
        """Parts of a model's demand served."""
        part = cp.new_int_var(0, SHARES, "")
        capacity = {
            kind: sum(
                model.rate.get(kind.gpu, 0) * block.of(model.name) * number
                for block, number in numbers.items()
                if block.kind == kind
            )
            for kind in self.fleet.kinds
        }
        whole = self._kept(cp, model, numbers, used, capacity) if model.survive else sum(capacity.values())
        cp.add(model.demand * part <= SHARES * whole)
        for line in limits(model, self.fleet):  # follows from the above; without it the solver's own bound is weak
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
        numbers: Mapping[Block, Any],
        used: Mapping[Kind, Any],
        capacity: Mapping[Kind, Any],
    ) -> Any:
        """What is left of a capacity with the worst node lost: no node counts for more than that one's loss.

        Capacity beyond twice the demand need not be counted.
        """
        most = model.demand + max(model.rate.get(kind.gpu, 0) for kind in self.fleet.kinds)
        lost = cp.new_int_var(0, most, "")
        parts = []
        for kind, there in capacity.items():
            counted, spread = cp.new_int_var(0, 2 * most, ""), cp.new_int_var(0, most * self.fleet.kinds[kind], "")
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
                cp.add(number <= self.fleet.kinds[block.kind] * block.kind.gpus * stands)
                cp.add(lost >= model.rate[block.kind.gpu] * block.of(model.name) * stands)
        return sum(parts) - lost

    def _strangers(self, cp: Any, numbers: Mapping[Block, Any]) -> Any:
        """Engines in blocks that stand nowhere now."""
        new = []
        for block, number in numbers.items():
            more = cp.new_int_var(0, self.fleet.kinds[block.kind] * block.kind.gpus, "")
            cp.add(more >= number - self.columns.standing[block])
            new.append(len(block.engines) * more)
        return sum(new)
