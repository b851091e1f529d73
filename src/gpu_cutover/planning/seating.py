"""What the placement search is asked and answers: engines, seats on GPUs, groups, the problem. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..catalog import Catalog, Gpu, Tier
from ..catalog.choices import Choices
from . import fit
from .demand import Demand
from .fit import Instance

Key = tuple[Any, ...]
Places = tuple[tuple[int, int], ...]  # of GPUs the steps that are free, and how many engines share them; sorted


@dataclass(frozen=True)
class Engine:
    """A wish (its `number`) as the search needs it: bytes of a unit of demand, and by number of GPUs what it takes.

    `needs` has steps of each GPU's memory (fit.STEPS), `fixed` the bytes of them that are no cache, for every legal
    split; `splits` are those worth a look.
    """

    number: int
    model: str
    routes: tuple[str, ...]
    stands_in: tuple[str, ...]
    quality: tuple[int, int, int]
    parameters: int
    decoder: bool
    takes_the_rest: bool
    unit: int
    longest: int
    needs: Mapping[int, int]
    fixed: Mapping[int, int]
    splits: tuple[int, ...]


@dataclass(frozen=True)
class Seat:
    """An engine and its GPUs, ascending."""

    engine: Engine
    gpus: tuple[int, ...]


Seats = tuple[Seat, ...]


@dataclass(frozen=True)
class Before:
    """An engine while all GPUs are well: its GPUs, its steps of each one's memory, the routes it answers."""

    gpus: tuple[int, ...]
    steps: int
    routes: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Engines of which at most one runs, and what the bound must know of them.

    `engines` with the largest cache first; `limits` by number the units of it, up to those asked, on empty GPUs.
    `routes` they are meant for, routes they could `stand_in` for. `needed`: each is meant for one, so that doing
    without costs worth. `asked`: units of demand of these routes. `least`: by number of GPUs the smallest need, in
    steps. `sharing`: every one of them takes its part of what a GPU has left. `rooms` remembers for places and other
    groups the units of cache that each engine (None: any) gets at best.
    """

    engines: tuple[Engine, ...]
    by_quality: tuple[Engine, ...]
    limits: Mapping[int, int]
    asked: int
    routes: frozenset[str]
    stand_in: frozenset[str]
    needed: bool
    least: Mapping[int, int]
    sharing: bool
    rooms: dict[tuple[Places, tuple[int, ...]], dict[int | None, int | None]] = field(
        default_factory=dict, compare=False
    )


def engine(
    number: int,
    model: str,
    instance: Instance,
    routes: tuple[str, ...],
    stands_in: tuple[str, ...],
    quality: tuple[int, int, int],
    gpu: Gpu,
    count: int,
    catalog: Catalog,
) -> Engine:
    """What the search must know of an engine on GPUs of this kind, for every legal split over up to `count` of them.

    Only language models are split: a speech or embedding model fits every GPU of the catalog, and on two it would be
    no faster and lost with either.
    """
    decoder = instance.model.kind == "decoder"
    shares = {
        size: fit.need(model, instance, size, gpu, catalog)
        for size in range(1, count + 1)
        if fit.tensor_parallel_problem(instance, size) is None
    }
    speech = instance.model.kind == "speech"
    return Engine(
        number=number,
        model=model,
        routes=routes,
        stands_in=stands_in,
        quality=quality,
        parameters=instance.model.parameters(),
        decoder=decoder,
        takes_the_rest=instance.takes_the_rest,
        unit=instance.smallest_kv() if speech else instance.model.kv_bytes_per_token(instance.kv_bytes),
        longest=0 if speech else instance.max_model_len,
        needs={size: round(share.fraction * fit.STEPS) for size, share in shares.items()},
        fixed={size: share.weights + share.activations for size, share in shares.items()},
        splits=tuple(shares) if decoder else (1,),
    )


@dataclass(frozen=True)
class Answers:
    """Who answers each route (a seat, or `own` or `stand-in` while undecided, or nobody), and what fits of the demand.

    `granted`: demand → sessions; per model `units` of cache (tokens, windows) it has and `charged` it is asked for;
    sessions longer than it takes are not.
    """

    by: Mapping[str, Seat | str | None]
    granted: Mapping[str, int]
    units: Mapping[str, int]
    charged: Mapping[str, int]


@dataclass(frozen=True)
class Problem:
    """What to place: groups of engines of which at most one runs, on the GPUs that are left of a tier.

    No two groups are meant for the same route.

    `healthy` (model → what it was) is what runs while all GPUs are well, None when that is what is asked for.
    `demands` are in order of importance, `routes` in the site's order.
    """

    groups: tuple[tuple[Engine, ...], ...]
    routes: tuple[str, ...]
    demands: tuple[Demand, ...]
    tier: Tier
    gpu: Gpu
    left: tuple[int, ...]
    allowed: int
    choices: Choices
    healthy: Mapping[str, Before] | None = None

    @cached_property
    def memory(self) -> int:
        """Bytes of one GPU."""
        return self.gpu.memory_mib * fit.MIB

    @cached_property
    def by_importance(self) -> tuple[str, ...]:
        """The routes, the heaviest first."""
        return tuple(sorted(self.routes, key=lambda route: -self.choices.weights[route]))

    @cached_property
    def domains(self) -> list[tuple[int, ...]]:
        """GPUs that are alike to each other, in groups that are alike when equally large; empty when none are alike."""
        gpu, tier = self.gpu, self.tier
        if self.healthy is not None:
            return []
        if gpu.joined(self.left):
            return [self.left]
        if gpu.nvlink_gpus in (0, tier.gpus_per_socket):
            sockets = sorted({tier.socket_of(index) for index in self.left})
            return [tuple(i for i in self.left if tier.socket_of(i) == socket) for socket in sockets]
        return []
