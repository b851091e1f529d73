"""The best assignment of engines to the GPUs of one node, exactly: branch and bound over all legal ones. Pure.

An assignment gives each engine a set of GPUs, or none. `score` judges it as a tuple of levels, larger is better,
earlier levels first. `bound` judges an unfinished one: what is undecided counts as the best it could become. More
engines only take memory, so no completion scores higher, and a branch whose bound is below a finished one is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, permutations
from typing import Any

from ..catalog import Catalog, Gpu, Tier
from ..catalog.choices import Choices
from . import fit
from .demand import Demand
from .fit import Instance

Key = tuple[Any, ...]
LOST_RANK, STAND_IN_RANK = 99, 50  # behind every candidate of a route
OWN, STAND_IN = "own", "stand-in"  # a route nobody answers yet, but somebody still may


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

    `engines` with the smallest first; `routes` they are meant for, routes they could `stand_in` for. `needed`: each is
    meant for one, so that doing without costs worth. `asked`: units of demand of these routes. `least`: by number of
    GPUs the smallest need, in steps. `sharing`: every one of them takes its part of what a GPU has left. `rooms`
    remembers what `_room` found.
    """

    engines: tuple[Engine, ...]
    asked: int
    routes: frozenset[str]
    stand_in: frozenset[str]
    needed: bool
    least: Mapping[int, int]
    sharing: bool
    rooms: dict[tuple[tuple[int, int], ...], int | None] = field(default_factory=dict, compare=False)


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


# --- judging ---------------------------------------------------------------------------------------------------------


def loads(problem: Problem, seats: Seats) -> tuple[dict[int, int], dict[int, int]]:
    """Per GPU: steps that all its engines need at least, and how many of them share what is left."""
    used, takers = dict.fromkeys(problem.left, 0), dict.fromkeys(problem.left, 0)
    for seat in seats:
        for index in seat.gpus:
            used[index] += seat.engine.needs[len(seat.gpus)]
            takers[index] += seat.engine.takes_the_rest
    return used, takers


def shares(problem: Problem, seats: Seats) -> dict[str, int]:
    """Model → steps of each of its GPUs that it gets."""
    used, takers = loads(problem, seats)
    return {seat.engine.model: _steps(problem, seat, used, takers) for seat in seats}


def _steps(problem: Problem, seat: Seat, used: Mapping[int, int], takers: Mapping[int, int]) -> int:
    """What an engine needs, and its equal part of the rest where it takes that."""
    size = seat.engine.needs[len(seat.gpus)]
    if not seat.engine.takes_the_rest:
        return size
    return size + min((problem.allowed - used[index]) // takers[index] for index in seat.gpus)


def _units(problem: Problem, seat: Seat, size: int) -> int:
    """Tokens (for speech: windows) of cache that so many steps give an engine."""
    split = len(seat.gpus)
    cache = size * problem.memory // fit.STEPS - seat.engine.fixed[split]
    return cache * split // seat.engine.unit if seat.engine.unit else 0


def who(
    problem: Problem, seats: Seats, own: Collection[str] = (), stand_in: Collection[str] = ()
) -> dict[str, Seat | str | None]:
    """Who answers each route: its own model, else the largest other one that is able to.

    `own` and `stand_in` are routes that an engine without a seat yet could still answer.
    """
    owners = {route: seat for seat in seats for route in seat.engine.routes}
    found: dict[str, Seat | str | None] = {}
    for route in problem.routes:
        if route in own:
            found[route] = OWN
        elif route in owners:
            found[route] = owners[route]
        elif route in stand_in:
            found[route] = STAND_IN
        else:
            able = [seat for seat in seats if route in seat.engine.stands_in]
            found[route] = min(able, key=lambda seat: (-seat.engine.parameters, seat.engine.model), default=None)
    return found


def answers(
    problem: Problem,
    seats: Seats,
    sizes: Mapping[str, int],
    by: Mapping[str, Seat | str | None],
    rooms: Mapping[str, int] | None = None,
) -> Answers:
    """Share each engine's cache among the demands of the routes it answers, the most important first.

    What does not fit whole takes the rest: so a larger cache never grants less of anything. `rooms`: the largest cache
    that a route without an engine yet could get, in units of demand.
    """
    units = {seat.engine.model: _units(problem, seat, sizes[seat.engine.model]) for seat in seats}
    left: dict[str, int] = {**units, **(rooms or {})}
    charged: dict[str, int] = dict.fromkeys(units, 0)
    granted: dict[str, int] = {}
    for demand in problem.demands:
        seat = by[demand.route]
        if seat is None or seat == STAND_IN:
            granted[demand.name] = demand.sessions if seat else 0
            continue
        cache = demand.route
        if isinstance(seat, Seat):
            if 0 < seat.engine.longest < demand.tokens:
                granted[demand.name] = 0
                continue
            cache = seat.engine.model
            charged[cache] += demand.total
        granted[demand.name] = min(demand.sessions, left[cache] // demand.tokens)
        left[cache] = left[cache] - demand.total if granted[demand.name] == demand.sessions else 0
    return Answers(by, granted, units, charged)


def score(problem: Problem, seats: Seats, least: Key = ()) -> Key:
    """The levels of a finished assignment; see `judged` for what they are."""
    sizes = shares(problem, seats)
    found = answers(problem, seats, sizes, who(problem, seats))
    return judged(problem, seats, sizes, found, found, least)


def judged(
    problem: Problem,
    seats: Seats,
    sizes: Mapping[str, int],
    found: Answers,
    squeezed: Answers,
    least: Key = (),
    *,
    final: bool = True,
) -> Key:
    """Levels of an assignment whose routes are answered as found, larger is better, earlier ones first.

    Worth of what is answered, less what is interrupted; sessions that fit; few timed engines disturbed; quality; few
    restarts, few starts; no pair across sockets; few GPUs per engine (each is one more that can take it down); the
    tightest cache as large as can be. `squeezed` is what is left when all that is undecided gets a seat: another than
    `found` only for a bound. What is worse than `least` in the first levels is not judged further.
    """
    restarts, starts, interrupted = _changes(problem, seats, sizes, final)
    worth = _worth(problem, found) - interrupted
    sessions = tuple(squeezed.granted[demand.name] for demand in problem.demands)
    if (worth, sessions) < least:
        return worth, sessions
    crossing = sum(not (problem.tier.same_socket(seat.gpus) or problem.gpu.joined(seat.gpus)) for seat in seats)
    return (
        worth,
        sessions,
        -restarts,
        -starts,
        -_disturbed(seats),
        _quality(problem, found),
        -crossing,
        -sum(len(seat.gpus) for seat in seats),
        _tightest(seats, squeezed),
    )


def _worth(problem: Problem, found: Answers) -> int:
    """Weight x (whole or part) x (own model or stand-in) of all routes, in thousandths so that sums are exact."""
    choices = problem.choices
    part = {demand.route for demand in problem.demands if found.granted[demand.name] < demand.sessions}
    total = 0
    for route, seat in found.by.items():
        if seat is None:
            continue
        own = seat == OWN or (isinstance(seat, Seat) and route in seat.engine.routes)
        grade = (choices.worth.part if route in part else 1.0) * (1.0 if own else choices.worth.stand_in)
        total += round(1000 * choices.weights[route] * grade)
    return total


def _disturbed(seats: Seats) -> int:
    """Engines whose answer time is a target (speech, retrieval) that share a GPU with a language model.

    Both run at half speed then: on the L40S a recording alone takes 1.9 of the 2.5 s promised.
    """
    busy = {index for seat in seats if seat.engine.decoder for index in seat.gpus}
    return sum(not seat.engine.decoder and not busy.isdisjoint(seat.gpus) for seat in seats)


def _quality(problem: Problem, found: Answers) -> Key:
    """Ranks of models, then of weight formats, then of cache formats, each for the most important route first."""
    ranks = []
    for route in problem.by_importance:
        seat = found.by[route]
        if isinstance(seat, Seat):
            ranks.append(seat.engine.quality if route in seat.engine.routes else (STAND_IN_RANK, 0, 0))
        else:
            ranks.append((0 if seat == OWN else STAND_IN_RANK if seat else LOST_RANK, 0, 0))
    return tuple(tuple(-rank[level] for rank in ranks) for level in range(3))


def _changes(problem: Problem, seats: Seats, sizes: Mapping[str, int], final: bool) -> tuple[int, int, int]:
    """Engines that ran and must be restarted; engines that did not run; thousandths of worth that restarts interrupt.

    An engine is kept on the same GPUs with the same share of their memory; until all are seated a share may yet shrink.
    Only an engine that lost no GPU is interrupted: the others are down whatever is decided.
    """
    if problem.healthy is None:
        return 0, 0, 0
    restarts = starts = interrupted = 0
    for seat in seats:
        before = problem.healthy.get(seat.engine.model)
        if before is None:
            starts += 1
            continue
        share = sizes[seat.engine.model]
        if before.gpus == seat.gpus and (share == before.steps or (share > before.steps and not final)):
            continue
        restarts += 1
        if set(before.gpus) <= set(problem.left):
            weight = sum(problem.choices.weights[route] for route in before.routes)
            interrupted += round(1000 * weight * problem.choices.worth.interrupted)
    return restarts, starts, interrupted


def _tightest(seats: Seats, found: Answers) -> int:
    """Cache of the engine with the least of it for what it must carry, in thousandths of that."""
    shares = [
        found.units[seat.engine.model] * 1000 // found.charged[seat.engine.model]
        for seat in seats
        if found.charged[seat.engine.model]
    ]
    return min(shares, default=1_000_000)


# --- bounding --------------------------------------------------------------------------------------------------------


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
                best = max(best or 0, _units(problem, Seat(engine, tuple(range(split))), size))
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


# --- searching -------------------------------------------------------------------------------------------------------


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
