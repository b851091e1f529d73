"""Which engine on which GPUs: the best placement of a node, healthy and with each GPU lost. Pure.

Exact (search.py, by the levels of judging.py). Memory and legality are fit.py's, the same that `site check` refuses
by; what counts how much is catalog/choices.yml. Bytes are shown in GiB.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..catalog import Catalog, Gpu, Tier, lookup
from ..catalog.choices import Candidate, load_choices
from ..site import rules
from ..site.model import Site
from . import fit, judging, search, seating
from .demand import Demand
from .demand import demands as demands_of
from .fit import GIB, Instance
from .flags import vllm_flags
from .seating import Answers, Before, Engine, Problem, Seat, Seats

HEALTHY = rules.HEALTHY
TEXT_ROUTES = (
    "chat",
    "reason",
)  # what any language model can answer, if less well; nothing can stand in for the others
CACHE_STEP_GIB = 0.5  # a fixed cache is declared in such steps


@dataclass(frozen=True)
class Wish:
    """One engine that may run: the routes it is meant for and may stand in for, its model and how it is stored.

    `quality` ranks it among the candidates of its routes: model, weight format, cache format; 0 is best. `on_disk`: its
    files lie on the host even when it does not run while all is well.
    """

    routes: tuple[str, ...]
    stands_in: tuple[str, ...]
    model: str
    format: str
    kv_cache_dtype: str
    engine: str
    max_model_len: int
    kv_gib: float | None
    quality: tuple[int, int, int] = (0, 0, 0)
    on_disk: bool = False

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"{self.engine}@{self.model}.service"


@dataclass(frozen=True)
class Placed:
    """An engine with its GPUs, its cache in tokens and the vLLM arguments that matter (none for Triton)."""

    model: str
    gpus: tuple[int, ...]
    format: str
    kv_cache_dtype: str
    kv_tokens: int
    fraction: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """What runs where, and what it can do.

    `answers`: route → model (None: nobody). Each route is in one of `served` (by its own model, the whole demand),
    `degraded` (by a stand-in, or a part of the demand) and `off`. `capacity`: demand → sessions that fit, at most those
    asked. `keeps` to `stops` are units compared with the healthy placement; `binding` says what limits it.
    """

    name: str
    lost: int | None
    models: tuple[Placed, ...]
    answers: Mapping[str, str | None]
    served: tuple[str, ...]
    degraded: Mapping[str, str]
    off: Mapping[str, str]
    keeps: tuple[str, ...]
    starts: tuple[str, ...]
    restarts: tuple[str, ...]
    stops: tuple[str, ...]
    binding: str
    capacity: Mapping[str, int]

    def gpus(self) -> dict[str, list[int]]:
        """Model → GPUs, as a site declares it."""
        return {placed.model: list(placed.gpus) for placed in self.models}


# --- what may run ----------------------------------------------------------------------------------------------------


def _stands_in(kind: str, own: Iterable[str], routes: Iterable[str], text: bool) -> tuple[str, ...]:
    """Routes of text that a language model meant for text may answer instead of their own model."""
    able = kind == "decoder" and text
    return tuple(route for route in routes if able and route in TEXT_ROUTES and route not in own)


def declared_wishes(site: Site, catalog: Catalog) -> tuple[Wish, ...]:
    """The models a site declares, each as declared."""
    spec = site.spec
    wishes = []
    for name, model in spec.models.items():
        own = tuple(route for route, declared in spec.routes.items() if declared.model == name)
        known = catalog.models[name]
        text = known.architecture.vision is None
        wishes.append(
            Wish(
                routes=own,
                stands_in=_stands_in(known.kind, own, spec.routes, text),
                model=name,
                format=model.format,
                kv_cache_dtype=model.kv_cache_dtype,
                engine=model.engine,
                max_model_len=model.max_model_len,
                kv_gib=model.kv_gib,
                on_disk=True,
            )
        )
    return tuple(wishes)


def chosen_wishes(site: Site, catalog: Catalog, asked: Mapping[str, int] | None = None) -> tuple[Wish, ...]:
    """Every model and format that `choices.yml` allows for the site's routes, whatever the site declares.

    Raises InputError for a name of choices.yml that the catalog does not have.
    """
    choices = load_choices()
    wanted = demands_of(site, catalog, asked)
    return tuple(
        wish
        for route in site.spec.routes
        for rank, candidate in enumerate(choices.candidates[route])
        for wish in _variants(route, rank, candidate, tuple(site.spec.routes), wanted, catalog)
    )


def _variants(
    route: str, rank: int, candidate: Candidate, routes: tuple[str, ...], wanted: Sequence[Demand], catalog: Catalog
) -> list[Wish]:
    """A candidate in each of its formats, with a 16-bit cache and, where it takes what memory is left, smaller ones."""
    model = lookup("model", candidate.model, catalog)
    takes_the_rest = model.kind == "decoder" and route in TEXT_ROUTES
    caches = sorted(catalog.kv_formats, key=lambda name: -catalog.kv_formats[name].bits)
    wishes = []
    for format_rank, name in enumerate(candidate.formats):
        lookup("format", name, catalog)
        for cache_rank, cache in enumerate(caches if takes_the_rest else caches[:1]):
            wish = Wish(
                routes=(route,),
                stands_in=_stands_in(model.kind, (route,), routes, takes_the_rest),
                model=candidate.model,
                format=name,
                kv_cache_dtype=cache,
                engine=candidate.engine,
                max_model_len=candidate.max_model_len,
                kv_gib=None,
                quality=(rank, format_rank, cache_rank),
            )
            wishes.append(wish if takes_the_rest else replace(wish, kv_gib=_cache_gib(wish, wanted, catalog)))
    return wishes


def _cache_gib(wish: Wish, wanted: Sequence[Demand], catalog: Catalog) -> float | None:
    """GiB of cache that the demand of its routes needs, in steps; None for a model that keeps none."""
    instance = _instance(wish, catalog)
    unit = _unit_bytes(instance)
    need = sum(demand.total for demand in wanted if demand.route in wish.routes) * unit
    return math.ceil(need / GIB / CACHE_STEP_GIB) * CACHE_STEP_GIB if need else None


def _unit_bytes(instance: Instance) -> int:
    """Bytes of cache of one unit of demand: a token, for speech a window."""
    if instance.model.kind == "speech":
        return instance.smallest_kv()
    return instance.model.kv_bytes_per_token(instance.kv_bytes)


def _instance(wish: Wish, catalog: Catalog) -> Instance:
    return Instance(
        model=lookup("model", wish.model, catalog),
        weights=lookup("format", wish.format, catalog),
        engine=wish.engine,
        kv_bytes=catalog.kv_formats[wish.kv_cache_dtype].bytes_per_number(),
        max_model_len=wish.max_model_len,
        kv_gib=wish.kv_gib,
    )


# --- the best placement ----------------------------------------------------------------------------------------------


def best(
    wishes: Sequence[Wish],
    routes: Sequence[str],
    demands: Sequence[Demand],
    tier: Tier,
    catalog: Catalog,
    healthy: Placement | None = None,
    lost: int | None = None,
) -> Placement:
    """The best legal placement of a tier's GPUs, without `lost`; `healthy` is what runs before the loss.

    Never refuses: what does not fit is degraded or off, and `binding` says what is short.
    """
    case = Case(tuple(wishes), tuple(routes), tuple(demands), tier, catalog, healthy, lost)
    return case.placement(search.solve(case.problem))


def all_placements(
    wishes: Sequence[Wish], routes: Sequence[str], demands: Sequence[Demand], tier: Tier, catalog: Catalog
) -> dict[str, Placement]:
    """The healthy placement and, from its models as they then lie on disk, one for each lost GPU."""
    healthy = best(wishes, routes, demands, tier, catalog)
    kept = _kept(wishes, healthy)
    without = {
        f"without-gpu{lost}": best(kept, routes, demands, tier, catalog, healthy, lost)
        for lost in range(tier.gpu_count)
    }
    return {HEALTHY: healthy, **without}


def _kept(wishes: Sequence[Wish], healthy: Placement) -> list[Wish]:
    """What can run when a GPU is lost: whose files lie on the host, in the format they have there."""
    placed = {(p.model, p.format, p.kv_cache_dtype) for p in healthy.models}
    return [wish for wish in wishes if wish.on_disk or (wish.model, wish.format, wish.kv_cache_dtype) in placed]


@dataclass(frozen=True)
class Case:
    """One question to the search, and its answer told."""

    wishes: tuple[Wish, ...]
    routes: tuple[str, ...]
    demands: tuple[Demand, ...]
    tier: Tier
    catalog: Catalog
    healthy: Placement | None
    lost: int | None

    @property
    def gpu(self) -> Gpu:
        return self.catalog.gpus[self.tier.gpu]

    @cached_property
    def problem(self) -> Problem:
        """What the search is asked."""
        numbers = sorted(range(len(self.wishes)), key=lambda number: _rank(self.wishes[number]))
        engines = [self.engine(number) for number in numbers if self._runs_here(self.wishes[number])]
        return Problem(
            groups=_groups(engines),
            routes=self.routes,
            demands=self.demands,
            tier=self.tier,
            gpu=self.gpu,
            left=tuple(index for index in range(self.tier.gpu_count) if index != self.lost),
            allowed=fit.allowed_steps(self.catalog),
            choices=load_choices(),
            healthy=None if self.healthy is None else _before(self.healthy),
        )

    def instance(self, engine: Engine) -> Instance:
        """An engine of the search as the memory rule sees it."""
        return _instance(self.wishes[engine.number], self.catalog)

    def _runs_here(self, wish: Wish) -> bool:
        """Whether the GPU has kernels for its formats and the engine can load such files."""
        weights = lookup("format", wish.format, self.catalog)
        cache = self.catalog.kv_formats[wish.kv_cache_dtype]
        return weights.runs_on(self.gpu) and cache.runs_on(self.gpu) and wish.engine in weights.engines

    def engine(self, number: int) -> Engine:
        """A wish as the search sees it."""
        wish = self.wishes[number]
        return seating.engine(
            number,
            wish.model,
            _instance(wish, self.catalog),
            wish.routes,
            wish.stands_in,
            wish.quality,
            self.gpu,
            self.tier.gpu_count,
            self.catalog,
        )

    def placement(self, seats: Seats, by: Mapping[str, Seat | str | None] | None = None) -> Placement:
        """An assignment told; `by` says who answers where that is declared and not to be found."""
        sizes = judging.shares(self.problem, seats)
        found = judging.answers(self.problem, seats, sizes, by or judging.who(self.problem, seats))
        models = self._placed(seats)
        answers = {route: _model(found.by[route]) for route in self.routes}
        degraded, off = self._short(found)
        before = {placed.model: placed for placed in self.healthy.models} if self.healthy else {}
        after = {placed.model: placed for placed in models}
        same = {name for name in after if name in before and after[name] == before[name]}
        return Placement(
            name=HEALTHY if self.lost is None else f"without-gpu{self.lost}",
            lost=self.lost,
            models=models,
            answers=answers,
            served=tuple(route for route in self.routes if route not in degraded and route not in off),
            degraded=degraded,
            off=off,
            keeps=self._units(same),
            starts=self._units(set(after) - set(before)) if self.healthy else (),
            restarts=self._units(set(after) & set(before) - same),
            stops=self._units(set(before) - set(after)),
            binding=self._binding(seats, found),
            capacity=found.granted,
        )

    def _placed(self, seats: Seats) -> tuple[Placed, ...]:
        """The engines with the shares of the memory rule: what derive.py writes and `site check` judges."""
        wishes = [self.wishes[seat.engine.number] for seat in _by_name(seats)]
        gpus = {seat.engine.model: seat.gpus for seat in seats}
        instances = {wish.model: _instance(wish, self.catalog) for wish in wishes}
        found = fit.fit(instances, gpus, self.gpu, self.tier.gpu_count, self.catalog)
        return tuple(
            Placed(
                model=wish.model,
                gpus=gpus[wish.model],
                format=wish.format,
                kv_cache_dtype=wish.kv_cache_dtype,
                kv_tokens=found.kv_tokens[wish.model],
                fraction=found.fractions[wish.model],
                flags=self._flags(wish, len(gpus[wish.model]), found.fractions[wish.model]),
            )
            for wish in wishes
        )

    def _flags(self, wish: Wish, gpus: int, fraction: float) -> tuple[str, ...]:
        if wish.engine != "vllm":
            return ()
        kind = self.catalog.models[wish.model].kind
        return tuple(vllm_flags(kind, gpus, fraction, wish.max_model_len, wish.kv_cache_dtype))

    def _units(self, models: Collection[str]) -> tuple[str, ...]:
        units = {wish.model: wish.unit for wish in self.wishes}
        return tuple(units[name] for name in sorted(models))

    # --- what is short

    def _short(self, found: Answers) -> tuple[dict[str, str], dict[str, str]]:
        """Routes that are degraded and that are off, each with why."""
        degraded: dict[str, str] = {}
        off: dict[str, str] = {}
        for route in self.routes:
            seat = found.by[route]
            meant = sorted((wish for wish in self.wishes if route in wish.routes), key=_rank)
            own = " or ".join(dict.fromkeys(wish.model for wish in meant))
            missing = f"{own} has no GPU left" if own else "no model for it"
            part = [
                f"{found.granted[d.name]} of {d.sessions} {d.name}"
                for d in self.demands
                if d.route == route and found.granted[d.name] < d.sessions
            ]
            if not isinstance(seat, Seat):
                off[route] = missing
                continue
            told = [] if route in seat.engine.routes else [f"{missing}; {seat.engine.model} answers"]
            told += [", ".join(part) + " sessions fit"] if part else []
            if told:
                degraded[route] = "; ".join(told)
        return degraded, off

    def _binding(self, seats: Seats, found: Answers) -> str:
        """What limits this placement: demand that does not fit, models without room, or else the tightest cache."""
        told = [
            self._cache_text(seat, found)
            for seat in _by_name(seats)
            if seat.engine.model
            in {_model(found.by[d.route]) for d in self.demands if found.granted[d.name] < d.sessions}
        ]
        absent = [route for route in self.routes if route not in _owned(found)]
        told += [self._room_text(route, seats, found) for route in absent]
        if told:
            return "; ".join(told)
        tight = [seat for seat in seats if found.charged[seat.engine.model]]
        if not tight:
            return "nothing: no demand on any cache"
        units, charged = found.units, found.charged
        return self._cache_text(min(tight, key=lambda s: units[s.engine.model] / charged[s.engine.model]), found)

    def _cache_text(self, seat: Seat, found: Answers) -> str:
        model = seat.engine.model
        has, asked = found.units[model], found.charged[model]
        what = "windows of 30 s" if self.catalog.models[model].kind == "speech" else "tokens"
        text = f"{model} on {on_gpus(seat.gpus)} has a cache of {has:,} {what} ({has * seat.engine.unit / GIB:.1f} GiB)"
        text += f" and is asked for {asked:,}"
        if asked > has:
            return f"{text}: {asked - has:,} ({(asked - has) * seat.engine.unit / GIB:.1f} GiB) short"
        long = [d for d in self.demands if 0 < seat.engine.longest < d.tokens and _model(found.by[d.route]) == model]
        if long:
            return (
                f"{text}; {long[0].name} needs {long[0].tokens:,} tokens and max_model_len is {seat.engine.longest:,}"
            )
        return text

    def _room_text(self, route: str, seats: Seats, found: Answers) -> str:
        engines = [e for group in self.problem.groups for e in group if route in e.routes]
        if not engines:
            return f"{route}: no model for it can run on this GPU"
        least = min(engines, key=lambda e: (e.needs[1], e.model))
        need = least.needs[1] * self.problem.memory / fit.STEPS / GIB
        free = (
            max(self._free(index, seats, found) for index in self.problem.left) * self.problem.memory / fit.STEPS / GIB
        )
        return (
            f"{route}: {least.model} needs {need:.1f} GiB of one GPU; beside what the others need"
            f" the freest of {len(self.problem.left)} has {free:.1f} GiB"
        )

    def _free(self, index: int, seats: Seats, found: Answers) -> int:
        """Steps of a GPU that are left when every engine there has just the cache it is asked for."""
        taken = 0
        for seat in seats:
            if index in seat.gpus:
                split = len(seat.gpus)
                cache = found.charged[seat.engine.model] * seat.engine.unit / split
                asked = math.ceil((seat.engine.fixed[split] + cache) * fit.STEPS / self.problem.memory)
                taken += max(seat.engine.needs[split], asked)
        return max(0, self.problem.allowed - taken)


def _rank(wish: Wish) -> tuple[object, ...]:
    """An order that does not depend on the order of the question: it decides between what is equally good."""
    return wish.quality, wish.routes, wish.model, wish.format, wish.kv_cache_dtype, wish.kv_gib or 0.0


def _groups(engines: Sequence[Engine]) -> tuple[tuple[Engine, ...], ...]:
    """Engines meant for a common route exclude each other: one of them is enough."""
    groups: list[list[Engine]] = []
    for engine in engines:
        joined = [group for group in groups if any(set(engine.routes) & set(other.routes) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(other for group in joined for other in group), engine])
    return tuple(tuple(group) for group in groups)


def _by_name(seats: Seats) -> list[Seat]:
    return sorted(seats, key=lambda seat: seat.engine.model)


def _model(seat: Seat | str | None) -> str | None:
    return seat.engine.model if isinstance(seat, Seat) else None


def _owned(found: Answers) -> set[str]:
    """Routes answered by their own model."""
    return {route for route, seat in found.by.items() if isinstance(seat, Seat) and route in seat.engine.routes}


def on_gpus(gpus: Sequence[int]) -> str:
    """`GPU 1`, `GPUs 2+3`."""
    return f"GPU {gpus[0]}" if len(gpus) == 1 else "GPUs " + "+".join(str(index) for index in gpus)


def _before(healthy: Placement) -> dict[str, Before]:
    """The healthy placement as the search compares with it."""
    return {
        placed.model: Before(
            placed.gpus,
            round(placed.fraction * fit.STEPS),
            tuple(route for route, model in healthy.answers.items() if model == placed.model),
        )
        for placed in healthy.models
    }


# --- what a site declares --------------------------------------------------------------------------------------------


def _declared_case(
    site: Site, name: str, catalog: Catalog, wanted: tuple[Demand, ...], healthy: Placement | None
) -> Case:
    tier = catalog.tiers[site.spec.tier]
    wishes = declared_wishes(site, catalog)
    return Case(wishes, tuple(site.spec.routes), wanted, tier, catalog, healthy, rules.lost_gpu(name))


def _declared_seats(case: Case, site: Site, name: str) -> Seats:
    engines = {wish.model: case.engine(number) for number, wish in enumerate(case.wishes)}
    running = site.spec.placements[name]
    return tuple(Seat(engines[model], tuple(sorted(gpus))) for model, gpus in running.items())


def _declared_answers(site: Site, name: str, seats: Seats) -> dict[str, Seat | str | None]:
    running = {seat.engine.model: seat for seat in seats}
    aliases = site.spec.aliases.get(name, {})
    return {
        route: running.get(declared.model) or running.get(aliases.get(route, ""))
        for route, declared in site.spec.routes.items()
    }


def declared_placements(site: Site, catalog: Catalog, asked: Mapping[str, int] | None = None) -> dict[str, Placement]:
    """The placements a site declares, told as the planner tells its own. The site must have passed `site check`."""
    wanted = demands_of(site, catalog, asked)
    found: dict[str, Placement] = {}
    for name in rules.placement_names(site.spec, catalog):
        case = _declared_case(site, name, catalog, wanted, found.get(HEALTHY))
        seats = _declared_seats(case, site, name)
        found[name] = case.placement(seats, _declared_answers(site, name, seats))
    return found


def better(site: Site, catalog: Catalog) -> dict[str, str]:
    """Declared placements that are worse than what the planner finds for the same models: name → the difference."""
    wanted = demands_of(site, catalog)
    declared = declared_placements(site, catalog)
    remarks = {}
    for name, placement in declared.items():
        healthy = declared[HEALTHY] if name != HEALTHY else None
        case = _declared_case(site, name, catalog, wanted, healthy)
        seats = _declared_seats(case, site, name)
        sizes = judging.shares(case.problem, seats)
        answers = judging.answers(case.problem, seats, sizes, _declared_answers(site, name, seats))
        optimum = search.solve(case.problem, seats)
        mine = judging.judged(case.problem, seats, sizes, answers, answers)
        if mine < judging.score(case.problem, optimum):
            remarks[name] = difference(placement, case.placement(optimum))
    return remarks


def difference(declared: Placement, found: Placement) -> str:
    """What the second placement does better or otherwise, in one line."""
    moved = [f"{p.model} on {on_gpus(p.gpus)}" for p in found.models if declared.gpus().get(p.model) != list(p.gpus)]
    gone = [f"{model} nowhere" for model in declared.gpus() if model not in found.gpus()]
    gains = []
    if set(declared.off) - set(found.off):
        gains.append(f"{', '.join(sorted(set(declared.off) - set(found.off)))} not off")
    if declared.capacity != found.capacity:
        changed = [n for n in found.capacity if found.capacity[n] != declared.capacity[n]]
        gains.append(", ".join(f"{n} {found.capacity[n]} instead of {declared.capacity[n]}" for n in changed))
    if len(found.restarts) != len(declared.restarts):
        gains.append(f"{len(found.restarts)} restarts instead of {len(declared.restarts)}")
    told = f" ({'; '.join(gains)})" if gains else ""
    return f"{', '.join(moved + gone) or 'another model answers'}{told}"


def as_json(placement: Placement) -> dict[str, Any]:
    """Plain data: `models`, `served`, `degraded` and `off` as lists, and what limits and changes."""
    return {
        "lost": placement.lost,
        "models": [
            {
                "model": placed.model,
                "gpus": list(placed.gpus),
                "format": placed.format,
                "kv_cache_dtype": placed.kv_cache_dtype,
                "kv_tokens": placed.kv_tokens,
                "fraction": placed.fraction,
                "flags": list(placed.flags),
            }
            for placed in placement.models
        ],
        "answers": dict(placement.answers),
        "served": list(placement.served),
        "degraded": [
            {"route": route, "model": placement.answers[route], "reason": reason}
            for route, reason in placement.degraded.items()
        ],
        "off": [{"route": route, "reason": reason} for route, reason in placement.off.items()],
        "keeps": list(placement.keeps),
        "starts": list(placement.starts),
        "restarts": list(placement.restarts),
        "stops": list(placement.stops),
        "capacity": dict(placement.capacity),
        "binding": placement.binding,
    }
