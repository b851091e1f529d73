"""Blocks given to named nodes: little of a surviving model on any one, few engines that must start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .fleet_columns import Columns
from .fleet_parts import (
    SHARES,
    Block,
    Contents,
    Engine,
    FleetModel,
    Kind,
    Node,
    count,
    joined,
    names_of,
    nodes_used,
    places,
    promised,
)
from .fleet_whole import Chosen, nodes_needed, solver_for
from .shelf import sizes

SMALL = 4000  # nodes x sorts of block that are solved with the nodes' names


class Deal:
    """Ways to give blocks to the nodes of one fleet; `proven`: what was found for named nodes is the best there is."""

    def __init__(self, columns: Columns) -> None:
        self.columns, self.fleet = columns, columns.fleet
        self.proven = False

    def pack(self, chosen: Chosen) -> dict[str, tuple[Engine, ...]]:
        """Give the blocks to nodes: little of a surviving model on any one, then few engines that must start."""
        dealt = self.dealt(chosen)
        contents = self.contents(dealt)
        if not self.columns.standing and self._reaches(contents, chosen):
            return contents
        small = len(self.fleet.nodes) * len(self.columns.blocks) <= SMALL
        return self._packed(list(self.columns.blocks) if small else sorted(chosen.numbers), dealt)

    def _reaches(self, contents: Contents, chosen: Chosen) -> bool:
        return self.parts(contents) >= chosen.parts and nodes_used(contents) <= nodes_needed(chosen)

    def parts(self, contents: Contents) -> int:
        return sum(
            model.weight * (SHARES * promised(contents, self.fleet.nodes, model) // model.demand)
            for model in self.fleet.models.values()
        )

    def contents(self, homes: Mapping[tuple[str, Block], int]) -> dict[str, tuple[Engine, ...]]:
        sorts: dict[str, list[Block]] = {node.name: [] for node in self.fleet.nodes}
        for (name, block), number in homes.items():
            sorts[name] += [block] * number
        return {name: joined(self.fleet.now[name], here) for name, here in sorts.items()}

    def _packed(self, sorts: Sequence[Block], dealt: Counter[tuple[str, Block]]) -> dict[str, tuple[Engine, ...]]:
        """The best that CP-SAT makes of these sorts of block on named nodes, starting from a deal."""
        from ortools.sat.python import cp_model

        cp = cp_model.CpModel()
        homes = {
            (node.name, block): cp.new_int_var(0, node.gpus // block.size, "")
            for node in self.fleet.nodes
            for block in sorts
            if block.kind == Kind(node.gpu, node.gpus)
        }
        used = []
        here = {
            node.name: {block: home for (name, block), home in homes.items() if name == node.name}
            for node in self.fleet.nodes
        }
        for node in self.fleet.nodes:
            used.append(cp.new_bool_var(""))
            for size in sizes(node.gpus):
                room = (node.gpus // size) * used[-1]
                cp.add(places(here[node.name], Kind(node.gpu, node.gpus), size) <= room)
        parts = sum(model.weight * self._named_part(cp, model, here) for model in self.fleet.models.values())
        starts = [self._new_engines(cp, node, here[node.name]) for node in self.fleet.nodes if self.columns.standing]
        most_starts = 1000 * len(self.fleet.nodes) * len(self.fleet.models) + 1
        cp.maximize(most_starts * ((len(self.fleet.nodes) + 1) * parts - sum(used)) - sum(starts))
        for key, home in homes.items():
            cp.add_hint(home, dealt[key])
        solver = solver_for(self.fleet.workers, self.fleet.deadline.left())
        status = solver.solve(cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return self.contents(dealt)
        self.proven = self.columns.complete and len(sorts) == len(self.columns.blocks) and status == cp_model.OPTIMAL
        return self.contents({key: solver.value(home) for key, home in homes.items()})

    def _named_part(self, cp: Any, model: FleetModel, here: Mapping[str, Mapping[Block, Any]]) -> Any:
        """Parts of a model's demand served by named nodes, with the worst of them lost where it must survive that."""
        part = cp.new_int_var(0, SHARES, "")
        most = 2 * model.demand + 2 * max(model.rate.get(kind.gpu, 0) for kind in self.fleet.kinds)
        lost = cp.new_int_var(0, most, "") if model.survive else 0
        counted = []
        for node in self.fleet.nodes:
            rate = model.rate.get(node.gpu, 0)
            counted.append(cp.new_int_var(0, most, ""))
            cp.add(counted[-1] <= sum(rate * block.of(model.name) * home for block, home in here[node.name].items()))
            if model.survive:
                cp.add(counted[-1] <= lost)
        cp.add(model.demand * part <= SHARES * (sum(counted) - lost))
        return part

    def _new_engines(self, cp: Any, node: Node, here: Mapping[Block, Any]) -> Any:
        """Engines that do not run on a node now."""
        new = []
        for name in self.fleet.models:
            more = cp.new_int_var(0, 1000, "")
            wanted = sum(block.of(name) * home for block, home in here.items())
            cp.add(more >= wanted - count(self.fleet.now[node.name], name))
            new.append(more)
        return sum(new)

    def dealt(self, chosen: Chosen) -> Counter[tuple[str, Block]]:
        """A first deal: each block, large ones first, to the node with room that has least of the same models."""
        room = {
            node.name: node.gpus
            for node in sorted(self.fleet.nodes, key=lambda node: (not self.fleet.now[node.name], node.name))
        }
        room = dict(list(room.items())[: nodes_needed(chosen)]) if len(self.fleet.kinds) == 1 else room
        kinds = {node.name: Kind(node.gpu, node.gpus) for node in self.fleet.nodes}
        load: Counter[tuple[str, str]] = Counter()
        dealt: Counter[tuple[str, Block]] = Counter()
        waiting = [block for block, number in sorted(chosen.numbers.items()) for _ in range(number)]
        for block in sorted(waiting, key=lambda block: (-block.size, -len(block.engines), block)):
            names = {engine.model for engine in block.engines if self.fleet.models[engine.model].survive}
            fitting = [name for name, left in room.items() if left >= block.size and kinds[name] == block.kind]
            if not fitting:
                continue
            here = Counter(engine.model for engine in block.engines)
            best = min(
                fitting,
                key=lambda node: (
                    sum(load[node, name] for name in names),
                    -(here & Counter(names_of(self.fleet.now[node]))).total(),
                    -room[node],
                ),
            )
            room[best] -= block.size
            dealt[best, block] += 1
            load.update((best, name) for name in names)
        return dealt

    def lean(self, contents: dict[str, tuple[Engine, ...]]) -> Contents:
        """Without the replicas that add nothing, those first that would have to start."""
        for name, model in sorted(self.fleet.models.items()):
            for node in sorted(self.fleet.nodes, key=lambda node: (count(self.fleet.now[node.name], name), node.name)):
                while count(contents[node.name], name):
                    engines = list(contents[node.name])
                    engines.remove(next(engine for engine in reversed(engines) if engine.model == name))
                    fewer = {**contents, node.name: tuple(engines)}
                    if promised(fewer, self.fleet.nodes, model) < promised(contents, self.fleet.nodes, model):
                        break
                    contents = fewer
        return contents
