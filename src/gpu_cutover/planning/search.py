"""The best assignment of engines to the GPUs of one node, exactly: branch and bound over all legal ones. Pure.

An assignment gives each engine a set of GPUs, or none. `judging.score` judges it, `bounding.bound` an unfinished one; a
branch whose bound is below a finished one is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import combinations, permutations

from .bounding import bound, grouped
from .judging import loads, score
from .seating import Engine, Key, Problem, Seat, Seats


@dataclass(frozen=True)
class _Begun:
    """An unfinished assignment: its bound, seats of the first `depth` groups, perhaps an engine of the next one.

    The one that promises most is smallest, then the one decided furthest.
    """

    promise: Key
    depth: int
    seats: Seats
    engine: Engine | None = None

    def __lt__(self, other: _Begun) -> bool:
        return (self.promise, self.depth) > (other.promise, other.depth)


def solve(problem: Problem, known: Seats = ()) -> Seats:
    """The assignment with the highest score; among equals that with the lowest GPU numbers, routes in their order.

    `known` is a legal assignment to improve on. Of each group first the engine is decided, then its GPUs, and what
    promises most is decided further first: so nothing is looked into that promises less than the best there is.
    """
    groups = _in_deciding_order(problem)
    undecided = [grouped(problem, group) for group in groups]
    alone = {engine.number: grouped(problem, (engine,)) for group in groups for engine in group}
    best: tuple[Key, Key, Seats] = (score(problem, known), numbers(problem, known), known)
    begun = [_Begun((), 0, ())] if groups else []
    while begun and (not begun[0].promise or begun[0].promise >= best[0]):
        parent = heappop(begun)
        for child in _children(problem, parent, groups):
            least = best[0][:2]
            if child.depth < len(groups):
                chosen = [] if child.engine is None else [alone[child.engine.number]]
                rest = undecided[child.depth + len(chosen) :]
                promise = bound(problem, child.seats, [*chosen, *rest], least)
                if promise >= best[0]:
                    heappush(begun, replace(child, promise=promise))
                continue
            key = score(problem, child.seats, least)
            if key >= best[0]:
                placed = renumbered(problem, child.seats)
                best = max(best, (key, numbers(problem, placed), placed), key=lambda found: found[:2])
    return best[2]


def _in_deciding_order(problem: Problem) -> list[tuple[Engine, ...]]:
    """Timed engines first, then language models by the importance of their routes.

    Any order finds the same; this one soon tells a good branch from a bad one, because where timed engines sit decides
    who may sit undisturbed, and the most important route decides most of the worth and of the quality.
    """
    places = {route: place for place, route in enumerate(problem.by_importance)}

    def place(group: tuple[Engine, ...]) -> int:
        return min((places[route] for route in group[0].routes if route in places), default=len(places))

    return sorted(problem.groups, key=lambda group: (group[0].decoder, not group[0].takes_the_rest, place(group)))


def _children(problem: Problem, parent: _Begun, groups: Sequence[tuple[Engine, ...]]) -> Iterator[_Begun]:
    """Every engine of the next group, and none; then every legal seat for it, of equal ones that of lowest numbers."""
    seats, depth = parent.seats, parent.depth
    if parent.engine is not None:
        yield from (_Begun((), depth + 1, (*seats, seat)) for seat in _places(problem, seats, parent.engine))
        return
    running = {seat.engine.model for seat in seats}
    yield from (_Begun((), depth, seats, engine) for engine in groups[depth] if engine.model not in running)
    yield _Begun((), depth + 1, seats)


def _places(problem: Problem, seats: Seats, engine: Engine) -> Iterator[Seat]:
    used, _ = loads(problem, seats)
    for size in engine.splits:
        free = [index for index in problem.left if used[index] + engine.needs[size] <= problem.allowed]
        for gpus in _different(problem, used, combinations(free, size)):
            yield Seat(engine, gpus)


def _different(
    problem: Problem, used: Mapping[int, int], options: Iterable[tuple[int, ...]]
) -> Iterator[tuple[int, ...]]:
    """One of each kind of option: GPUs nobody uses yet are alike within a domain, and so are domains nobody uses."""
    domain_of = {index: number for number, domain in enumerate(problem.domains) for index in domain}
    if not domain_of:
        yield from options
        return
    sizes = [len(domain) for domain in problem.domains]
    touched = {domain_of[index] for index in problem.left if used[index]}
    seen: set[Key] = set()
    for option in options:
        fresh: dict[int, int] = {}
        for index in option:
            if not used[index]:
                fresh[domain_of[index]] = fresh.get(domain_of[index], 0) + 1
        pattern = (
            tuple(index for index in option if used[index]),
            tuple(sorted((domain if domain in touched else -sizes[domain], n) for domain, n in fresh.items())),
        )
        if pattern not in seen:
            seen.add(pattern)
            yield option


def _in_order(problem: Problem, seats: Seats) -> list[Seat]:
    """Seats in the order of the routes they are for, then by name."""

    def place(seat: Seat) -> tuple[int, str]:
        return min(
            (problem.routes.index(r) for r in seat.engine.routes), default=len(problem.routes)
        ), seat.engine.model

    return sorted(seats, key=place)


def numbers(problem: Problem, seats: Seats) -> Key:
    """Decides between equals: the lower the GPU numbers, the larger; the first routes count first."""
    return tuple(tuple(-index for index in seat.gpus) for seat in _in_order(problem, seats))


def renumbered(problem: Problem, seats: Seats) -> Seats:
    """The same assignment on the lowest numbers that are alike: within a domain, and between equally large ones."""
    domains = problem.domains
    if not domains:
        return seats
    ordered = _in_order(problem, seats)

    def hosts(index: int) -> tuple[bool, ...]:
        return tuple(index not in seat.gpus for seat in ordered)

    filled = [sorted(domain, key=hosts) for domain in domains]
    found = []
    for shuffled in permutations(filled):
        if [len(domain) for domain in shuffled] == [len(domain) for domain in domains]:
            pairs = zip(shuffled, domains, strict=True)
            renamed = {old: new for olds, news in pairs for old, new in zip(olds, news, strict=True)}
            found.append(tuple(Seat(s.engine, tuple(sorted(renamed[index] for index in s.gpus))) for s in seats))
    return max(found, key=lambda option: numbers(problem, option))
