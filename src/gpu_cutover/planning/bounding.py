"""What an unfinished assignment can still become at best: what is undecided counts as the best it could get. Pure.

More engines only take memory, so no completion scores higher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .judging import answers, cache_units, judged, loads, shares, who
from .seating import Engine, Group, Key, Problem, Seat, Seats


def grouped(problem: Problem, engines: tuple[Engine, ...]) -> Group:
    """What the bound must know of a group of the problem."""
    routes = frozenset(route for engine in engines for route in engine.routes)
    sizes = {size for engine in engines for size in engine.splits if size <= len(problem.left)}
    return Group(
        engines=tuple(sorted(engines, key=lambda engine: engine.needs[1])),
        asked=sum(demand.total for demand in problem.demands if demand.route in routes),
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
    too: a finished assignment without one of them has less worth and never reaches that level.
    """
    used, takers = loads(problem, seats)
    free = {index: problem.allowed - used[index] for index in problem.left}
    places = tuple(sorted((free[index], takers[index]) for index in problem.left))
    rooms: dict[str, int] = {}
    stand_in: set[str] = set()
    open_groups = []
    for group in undecided:
        room = _room(problem, group, places)
        if room is not None:
            open_groups.append(group)
            stand_in |= group.stand_in
            for route in group.routes:
                rooms[route] = max(room, rooms.get(route, 0))
    by = who(problem, seats, rooms, stand_in)
    sizes = shares(problem, seats)
    found = squeezed = answers(problem, seats, sizes, by, rooms)
    smaller = {
        seat.engine.model: min(sizes[seat.engine.model], _squeeze(problem, seat, free, takers, open_groups))
        for seat in seats
        if seat.engine.takes_the_rest
    }
    if any(size < sizes[model] for model, size in smaller.items()):
        squeezed = answers(problem, seats, {**sizes, **smaller}, by, rooms)
    return judged(problem, seats, sizes, found, squeezed, least, final=False)


def _room(problem: Problem, group: Group, places: tuple[tuple[int, int], ...]) -> int | None:
    """Units of cache, up to those asked, that some engine of a group can get; None: none of them has room.

    `places`: of each GPU the steps that are free, and how many engines share them.
    """
    if places not in group.rooms:
        group.rooms[places] = _fresh_room(problem, group, places)
    return group.rooms[places]


def _fresh_room(problem: Problem, group: Group, places: tuple[tuple[int, int], ...]) -> int | None:
    best: int | None = None
    for engine in group.engines:
        for split in engine.splits:
            size = _best_share(engine, split, places)
            if size is not None:
                best = max(best or 0, cache_units(problem, Seat(engine, tuple(range(split))), size))
                if best >= group.asked:
                    return best
    return best


def _best_share(engine: Engine, split: int, places: tuple[tuple[int, int], ...]) -> int | None:
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
