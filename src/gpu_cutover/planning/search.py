"""The best assignment of engines to the GPUs of one node, exactly: branch and bound over all legal ones. Pure.

An assignment gives each engine a set of GPUs, or none. `judging.score` judges it, `bounding.bound` an unfinished one; a
branch whose bound is below a finished one is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, permutations

from .bounding import bound, grouped
from .judging import loads, score
from .seating import Engine, Key, Problem, Seat, Seats


def solve(problem: Problem, known: Seats = ()) -> Seats:
    """The assignment with the highest score; among equals that with the lowest GPU numbers, routes in their order.

    `known` is a legal assignment to improve on: the better it is, the sooner the search ends.
    """
    groups = _in_deciding_order(problem)
    undecided = [grouped(problem, group) for group in groups]
    best: tuple[Key, Key, Seats] = (score(problem, known), numbers(problem, known), known)

    def descend(seats: Seats, depth: int) -> None:
        nonlocal best
        last = depth + 1 == len(groups)
        rest, least = undecided[depth + 1 :], best[0][:2]
        judged_children = [
            (score(problem, child, least) if last else bound(problem, child, rest, least), child)
            for child in _children(problem, seats, groups[depth])
        ]
        for key, child in sorted(judged_children, key=lambda item: item[0], reverse=True):
            if key < best[0]:
                return
            if not last:
                descend(child, depth + 1)
                continue
            placed = renumbered(problem, child)
            found = (key, numbers(problem, placed), placed)
            if found[:2] > best[:2]:
                best = found

    if groups:
        descend((), 0)
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


def _children(problem: Problem, seats: Seats, group: tuple[Engine, ...]) -> Iterator[Seats]:
    """Every legal seat for one engine of the group, and none; of equal ones the one with the lowest numbers."""
    used, _ = loads(problem, seats)
    running = {seat.engine.model for seat in seats}
    for engine in group:
        if engine.model in running:
            continue
        for size in engine.splits:
            need = engine.needs[size]
            free = [index for index in problem.left if used[index] + need <= problem.allowed]
            for gpus in _different(problem, used, combinations(free, size)):
                yield (*seats, Seat(engine, gpus))
    yield seats


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
