"""How good an assignment of engines to GPUs is: levels as a tuple, larger is better, earlier levels first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from . import fit
from .seating import Answers, Engine, Key, Problem, Seat, Seats

LOST_RANK, STAND_IN_RANK = 99, 50  # behind every candidate of a route
OWN, STAND_IN = "own", "stand-in"  # a route nobody answers yet, but somebody still may


@dataclass(frozen=True)
class Hope:
    """What to expect of undecided engines at best: ranks of quality by route, timed engines that they must disturb."""

    quality: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    disturbed: int = 0


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


def cache_units(problem: Problem, engine: Engine, split: int, size: int) -> int:
    """Tokens (for speech: windows) of cache that so many steps of each GPU give an engine."""
    cache = size * problem.memory // fit.STEPS - engine.fixed[split]
    return cache * split // engine.unit if engine.unit else 0


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
    units = {
        seat.engine.model: cache_units(problem, seat.engine, len(seat.gpus), sizes[seat.engine.model]) for seat in seats
    }
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
    hope: Callable[[], Hope] | None = None,
) -> Key:
    """Levels of an assignment whose routes are answered as found, larger is better, earlier ones first.

    Worth of what is answered, less what is interrupted; sessions that fit; few timed engines disturbed; quality; few
    restarts, few starts; no pair across sockets; few GPUs per engine (each is one more that can take it down); the
    tightest cache as large as can be. `squeezed` is what is left when all that is undecided gets a seat: another than
    `found` only for a bound, and only a bound has `hope`. What is worse than `least` in the first levels is not judged
    further.
    """
    restarts, starts, interrupted = _changes(problem, seats, sizes, hope is None)
    worth = _worth(problem, found) - interrupted
    sessions = tuple(squeezed.granted[demand.name] for demand in problem.demands)
    if (worth, sessions) < least:
        return worth, sessions
    hoped = hope() if hope else Hope()
    crossing = sum(not (problem.tier.same_socket(seat.gpus) or problem.gpu.joined(seat.gpus)) for seat in seats)
    return (
        worth,
        sessions,
        -restarts,
        -starts,
        -len(disturbed(seats)) - hoped.disturbed,
        _quality(problem, found, hoped),
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


def disturbed(seats: Seats) -> list[Seat]:
    """Engines whose answer time is a target (speech, retrieval) that share a GPU with a language model.

    Both run at half speed then: on the L40S a recording alone takes 1.9 of the 2.5 s promised.
    """
    busy = {index for seat in seats if seat.engine.decoder for index in seat.gpus}
    return [seat for seat in seats if not seat.engine.decoder and not busy.isdisjoint(seat.gpus)]


def _quality(problem: Problem, found: Answers, hoped: Hope) -> Key:
    """Ranks of models, then of weight formats, then of cache formats, each for the most important route first."""
    ranks = []
    for route in problem.by_importance:
        seat = found.by[route]
        if isinstance(seat, Seat):
            ranks.append(seat.engine.quality if route in seat.engine.routes else (STAND_IN_RANK, 0, 0))
        else:
            own = hoped.quality.get(route, (0, 0, 0))
            ranks.append(own if seat == OWN else (STAND_IN_RANK if seat else LOST_RANK, 0, 0))
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
