"""What an unfinished assignment can still become at best: what is undecided counts as the best it could get. Pure.

More engines only take memory, so no completion scores higher.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .judging import LOST_RANK, Hope, answers, cache_units, disturbed, judged, loads, shares, who
from .seating import Answers, Engine, Group, Key, Places, Problem, Seat, Seats


def grouped(problem: Problem, engines: tuple[Engine, ...]) -> Group:
    """What the bound must know of a group of the problem."""
    routes = frozenset(route for engine in engines for route in engine.routes)
    sizes = {size for engine in engines for size in engine.splits if size <= len(problem.left)}
    asked = sum(demand.total for demand in problem.demands if demand.route in routes)
    empty = tuple((problem.allowed, 0) for _ in problem.left)
    limits = {engine.number: _fresh_room(problem, engine, empty, (), asked) or 0 for engine in engines}
    return Group(
        engines=tuple(sorted(engines, key=lambda engine: (-limits[engine.number], engine.needs[1]))),
        limits=limits,
        by_quality=tuple(sorted(engines, key=lambda engine: engine.quality)),
        asked=asked,
        routes=routes,
        stand_in=frozenset(route for engine in engines for route in engine.stands_in),
        needed=all(set(engine.routes) & set(problem.routes) for engine in engines),
        least={size: min(e.needs[size] for e in engines if size in e.splits) for size in sorted(sizes)},
        sharing=all(engine.takes_the_rest for engine in engines),
    )


def bound(problem: Problem, seats: Seats, undecided: Sequence[Group], least: Key = ()) -> Key:
    """The best that an unfinished assignment can still become.

    Undecided engines answer their routes as well as the largest cache lets them that any could get now. Who is seated
    keeps its share, as far as worth goes; for the sessions that fit, the undecided that are needed must find a seat
    too: a finished assignment without one of them has less worth and never reaches that level. For the levels after
    the sessions only engines count that can carry them.
    """
    used, takers = loads(problem, seats)
    free = {index: problem.allowed - used[index] for index in problem.left}
    places = tuple(sorted((free[index], takers[index]) for index in problem.left))
    open_groups = [group for group in undecided if _fits(problem, group, places)]
    rooms = _most(problem, open_groups, places)
    by = who(problem, seats, rooms, {route for group in open_groups for route in group.stand_in})
    sizes = shares(problem, seats)
    found = squeezed = answers(problem, seats, sizes, by, rooms)
    smaller = {
        seat.engine.model: min(sizes[seat.engine.model], _squeeze(problem, seat, free, takers, open_groups))
        for seat in seats
        if seat.engine.takes_the_rest
    }
    crowded = _most(problem, open_groups, places, crowd=open_groups)
    if crowded != rooms or any(size < sizes[model] for model, size in smaller.items()):
        squeezed = answers(problem, seats, {**sizes, **smaller}, by, crowded)

    def hope() -> Hope:
        carried = _carried(problem, squeezed)
        spared, cost = _undisturbed(problem, seats)
        quiet = tuple(sorted((free[index], takers[index]) for index in spared))
        return Hope(
            {route: rank for group in open_groups for route, rank in _best_ranks(problem, group, places, carried)},
            cost if any(_must_disturb(problem, group, quiet, carried) for group in open_groups) else 0,
        )

    return judged(problem, seats, sizes, found, squeezed, least, hope)


def _fits(problem: Problem, group: Group, places: Places) -> bool:
    rooms = _Rooms(problem, group, places)
    return any(rooms.of(engine) is not None for engine in group.engines)


def _most(problem: Problem, groups: Sequence[Group], places: Places, crowd: Sequence[Group] = ()) -> dict[str, int]:
    """Route → the most units of cache, up to those asked, that an undecided engine of these groups can get for it."""
    found: dict[str, int] = {}
    for group in groups:
        found |= dict.fromkeys(group.routes, _Rooms(problem, group, places, crowd).most())
    return found


class _Rooms:
    """Units of cache that the engines of a group can get on these places beside the others of a crowd; remembered."""

    def __init__(self, problem: Problem, group: Group, places: Places, crowd: Sequence[Group] = ()) -> None:
        self.problem, self.group, self.places = problem, group, places
        self.others = [other for other in crowd if other.needed and other is not group]
        key = places, tuple(other.engines[0].number for other in self.others)
        self.known = group.rooms.setdefault(key, {})

    def of(self, engine: Engine) -> int | None:
        """The most an engine gets, None where it does not fit."""
        if engine.number not in self.known:
            self.known[engine.number] = _fresh_room(self.problem, engine, self.places, self.others, self.group.asked)
        return self.known[engine.number]

    def most(self) -> int:
        """The most that any of them gets, up to what is asked."""
        if None not in self.known:
            most = 0
            for engine in self.group.engines:
                if most >= self.group.limits[engine.number]:
                    break
                most = max(most, self.of(engine) or 0)
            self.known[None] = most
        return self.known[None] or 0


def _fresh_room(problem: Problem, engine: Engine, places: Places, others: Sequence[Group], asked: int) -> int | None:
    most: int | None = None
    for split in engine.splits:
        size = _best_share(engine, split, places)
        if size is not None:
            size = min(size, _shared(engine, split, places, others))
            most = max(most or 0, cache_units(problem, engine, split, size))
            if most >= asked:
                break
    return most


def _shared(engine: Engine, split: int, places: Places, others: Sequence[Group]) -> int:
    """Steps that an engine gets at most when each of the others finds a seat, alone beside it."""
    need = engine.needs[split]
    if not engine.takes_the_rest:
        return need
    free = [steps for steps, _ in reversed(places)]
    outside = len(places) - split
    most = free[0]
    for group in others:
        if any(n <= outside and free[n - 1] >= least for n, least in group.least.items()):
            continue
        both = need + min(group.least.values())
        spare = [(steps - both) // (takers + 1 + group.sharing) for steps, takers in places if steps >= both]
        most = min(most, need + max(spare, default=0))
    return most


def _carried(problem: Problem, found: Answers) -> dict[str, int]:
    """Route → units of cache that the sessions granted there take."""
    carried = dict.fromkeys(problem.routes, 0)
    for demand in problem.demands:
        carried[demand.route] += found.granted[demand.name] * demand.tokens
    return carried


def _best(problem: Problem, group: Group, places: Places, route: str, units: int) -> Engine | None:
    """The best engine of a group that can carry so much of a route on these GPUs."""
    rooms = _Rooms(problem, group, places)
    for engine in group.by_quality:
        if route in engine.routes and group.limits[engine.number] >= units:
            room = rooms.of(engine)
            if room is not None and room >= units:
                return engine
    return None


def _best_ranks(
    problem: Problem, group: Group, places: Places, carried: Mapping[str, int]
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Each route of an undecided group with the best quality among those that can carry its sessions."""
    for route in group.routes & carried.keys():
        best = _best(problem, group, places, route, carried[route])
        yield route, best.quality if best else (LOST_RANK, 0, 0)


def _undisturbed(problem: Problem, seats: Seats) -> tuple[list[int], int]:
    """GPUs where a further language model disturbs no engine that is not disturbed yet; how many it does elsewhere."""
    already = disturbed(seats)
    waiting = [seat for seat in seats if not seat.engine.decoder and seat not in already]
    each = {index: sum(index in seat.gpus for seat in waiting) for index in problem.left}
    return [index for index in problem.left if not each[index]], min((n for n in each.values() if n), default=0)


def _must_disturb(problem: Problem, group: Group, quiet: Places, carried: Mapping[str, int]) -> bool:
    """Whether a needed language model cannot carry its sessions on these GPUs alone."""
    return (
        group.needed
        and all(engine.decoder for engine in group.engines)
        and any(_best(problem, group, quiet, route, carried[route]) is None for route in group.routes & carried.keys())
    )


def _best_share(engine: Engine, split: int, places: Places) -> int | None:
    """Steps that an engine gets on the best `split` of these GPUs; None when it does not fit on so many."""
    need = engine.needs[split]
    if not engine.takes_the_rest:
        return need if sum(free >= need for free, _ in places) >= split else None
    sizes = sorted((need + (free - need) // (others + 1) for free, others in places if free >= need), reverse=True)
    return sizes[split - 1] if len(sizes) >= split else None


def _squeeze(
    problem: Problem, seat: Seat, free: Mapping[int, int], takers: Mapping[int, int], groups: Sequence[Group]
) -> int:
    """Steps that an engine can keep at most when each of the groups finds a seat, alone beside those seated now."""
    need = seat.engine.needs[len(seat.gpus)]
    kept = problem.allowed
    outside = sorted((free[index] for index in problem.left if index not in seat.gpus), reverse=True)
    for group in groups:
        if not group.needed or any(n <= len(outside) and outside[n - 1] >= least for n, least in group.least.items()):
            continue
        least = min(group.least.values())
        spare = [
            (free[index] - least) // (takers[index] + group.sharing) for index in seat.gpus if free[index] >= least
        ]
        kept = min(kept, need + max(spare, default=0))
    return kept
