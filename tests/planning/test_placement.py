"""The best placement: what the facts say of one lost GPU, what the sites declare, and what must hold of any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_cutover.catalog import Catalog, Tier, load_catalog
from gpu_cutover.catalog.choices import load_choices
from gpu_cutover.guard.placement import difference, parse_plan, render, wanted_digests
from gpu_cutover.planning import bounding, fit, judging, search
from gpu_cutover.planning.demand import Demand, demands
from gpu_cutover.planning.derive import derive
from gpu_cutover.planning.placement import (
    HEALTHY,
    Case,
    Placement,
    Wish,
    all_placements,
    as_json,
    best,
    better,
    chosen_wishes,
    declared_placements,
    declared_wishes,
)
from gpu_cutover.planning.seating import Key, Seat, Seats
from gpu_cutover.site import Site, load_site

CATALOG = load_catalog()
CHOICES = load_choices()
INVENTORY = Path(__file__).parents[2] / "inventory"
SITES = ["example-l40s", "example-h100", "twin"]
LLAMA, QWEN72, QWEN32 = "llama-3.1-70b-instruct", "qwen2.5-72b-instruct", "qwen2.5-32b-instruct"
LLAVA, WHISPER, BGE, COLBERT = "llava-1.6-mistral-7b", "whisper-large-v3", "bge-m3", "colbertv2"
SMALL = (WHISPER, BGE, COLBERT, LLAVA)


def site_of(name: str) -> Site:
    return load_site(INVENTORY / name, "site")


def tier_of(site: Site) -> Tier:
    return CATALOG.tiers[site.spec.tier]


def planned(name: str, *, free: bool = False, asked: dict[str, int] | None = None) -> dict[str, Placement]:
    site = site_of(name)
    wishes = chosen_wishes(site, CATALOG, asked) if free else declared_wishes(site, CATALOG)
    return all_placements(wishes, tuple(site.spec.routes), demands(site, CATALOG, asked), tier_of(site), CATALOG)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Placement]]:
    """The planner's placements of each site's own models."""
    return {name: planned(name) for name in SITES}


@pytest.fixture(scope="module")
def chosen() -> dict[str, dict[str, Placement]]:
    """The planner's placements with the free choice of models and formats."""
    return {name: planned(name, free=True) for name in SITES[:2]}


def legal(placement: Placement, tier: Tier, catalog: Catalog, wishes: Sequence[Wish]) -> None:
    """Every split is legal, no GPU is over its budget, none is lost, and what is granted fits the caches."""
    by_model = {wish.model: wish for wish in wishes}
    instances = {}
    for placed in placement.models:
        wish = by_model[placed.model]
        kv_bytes = catalog.kv_formats[placed.kv_cache_dtype].bytes_per_number()
        instance = fit.Instance(
            catalog.models[placed.model],
            catalog.formats[placed.format],
            wish.engine,
            kv_bytes,
            wish.max_model_len,
            wish.kv_gib,
        )
        assert fit.tensor_parallel_problem(instance, len(placed.gpus)) is None
        assert len(placed.gpus) != 3
        assert len(set(placed.gpus)) == len(placed.gpus)
        assert placement.lost not in placed.gpus
        assert set(placed.gpus) <= set(range(tier.gpu_count))
        instances[placed.model] = instance
    verdict = fit.fit(instances, placement.gpus(), catalog.gpus[tier.gpu], tier.gpu_count, catalog)
    assert verdict.fits
    for placed in placement.models:
        assert placed.fraction == verdict.fractions[placed.model]
        assert placed.kv_tokens == verdict.kv_tokens[placed.model]
    for index in range(tier.gpu_count):
        shares = sum(placed.fraction for placed in placement.models if index in placed.gpus)
        assert shares <= catalog.vllm.gpu_memory_utilization + 1e-9


def granted_fits(placement: Placement, wanted: Sequence[Demand], catalog: Catalog) -> None:
    for placed in placement.models:
        if catalog.models[placed.model].kind == "decoder":
            answered = [d for d in wanted if placement.answers[d.route] == placed.model]
            assert sum(placement.capacity[d.name] * d.tokens for d in answered) <= placed.kv_tokens


# --- the facts -------------------------------------------------------------------------------------------------------

LOST = [
    ("example-h100", 0, (1, 2), 3),
    ("example-h100", 1, (2, 3), 0),
    ("example-h100", 2, (1, 3), 0),
    ("example-h100", 3, (1, 2), 0),
    ("example-l40s", 0, (2, 3), 1),
    ("example-l40s", 1, (2, 3), 0),
    ("example-l40s", 2, (1, 3), 0),
    ("example-l40s", 3, (1, 2), 0),
]


@pytest.mark.parametrize("free", [False, True], ids=["declared", "chosen"])
@pytest.mark.parametrize(("name", "lost", "pair", "third"), LOST)
def test_one_gpu_lost(
    found: dict[str, dict[str, Placement]],
    chosen: dict[str, dict[str, Placement]],
    free: bool,
    name: str,
    lost: int,
    pair: tuple[int, int],
    third: int,
) -> None:
    """The 70B on two survivors carries notes and chats, everything small shares the third, the other large one goes."""
    placement = (chosen if free else found)[name][f"without-gpu{lost}"]
    gpus = {placed.model: placed.gpus for placed in placement.models}
    assert gpus == {LLAMA: pair, **dict.fromkeys(SMALL, (third,))}
    assert placement.answers["reason"] == LLAMA
    assert set(placement.degraded) == {"reason"}
    assert placement.off == {}
    assert (placement.capacity["soap"], placement.capacity["chat"]) == (12, 30)


@pytest.mark.parametrize(
    ("name", "lost", "restarts"),
    [
        ("example-h100", 0, {WHISPER, BGE, COLBERT}),
        ("example-h100", 1, {LLAMA, LLAVA}),
        ("example-h100", 2, {LLAMA, LLAVA}),
        ("example-h100", 3, {LLAVA}),
        ("example-l40s", 0, {WHISPER, BGE, COLBERT}),
        ("example-l40s", 1, {LLAVA}),
        ("example-l40s", 2, {LLAMA, LLAVA}),
        ("example-l40s", 3, {LLAMA, LLAVA}),
    ],
)
def test_what_must_restart(found: dict[str, dict[str, Placement]], name: str, lost: int, restarts: set[str]) -> None:
    placement = found[name][f"without-gpu{lost}"]
    assert {unit.split("@")[1].removesuffix(".service") for unit in placement.restarts} == restarts
    assert len(placement.stops) == 1
    assert placement.starts == ()
    assert len(placement.keeps) + len(placement.restarts) == 5


def test_the_plans_layout_where_it_can_be(chosen: dict[str, dict[str, Placement]]) -> None:
    """H100: Whisper and embedding on 0, the 70B as FP8 on 1+2, the 72B as AWQ with LLaVA-7B on 3."""
    healthy = chosen["example-h100"][HEALTHY]
    assert {placed.model: (placed.gpus, placed.format) for placed in healthy.models} == {
        WHISPER: ((0,), "bf16"),
        BGE: ((0,), "bf16"),
        COLBERT: ((0,), "bf16"),
        LLAMA: ((1, 2), "fp8"),
        QWEN72: ((3,), "awq-int4"),
        LLAVA: ((3,), "bf16"),
    }
    assert set(healthy.served) == set(CHOICES.weights)


def test_what_fits_of_it_on_48_gb(chosen: dict[str, dict[str, Placement]]) -> None:
    """L40S: the 70B as AWQ with an fp8 cache inside one socket, the 32B in place of the 72B beside LLaVA-7B."""
    healthy = chosen["example-l40s"][HEALTHY]
    placed = {one.model: one for one in healthy.models}
    assert (placed[LLAMA].format, placed[LLAMA].kv_cache_dtype, placed[LLAMA].gpus) == ("awq-int4", "fp8", (2, 3))
    assert placed[LLAMA].kv_tokens == pytest.approx(280_000, rel=0.02)
    assert (placed[QWEN32].format, placed[QWEN32].gpus, placed[LLAVA].gpus) == ("awq-int4", (1,), (1,))
    assert set(healthy.served) == set(CHOICES.weights)


@pytest.mark.parametrize("name", SITES[:2])
@pytest.mark.parametrize("asked", [{}, {"soap": 1_000_000}, {"soap": 1000, "chat": 1000}, {"reason": 100_000}])
def test_the_search_looks_at_few_of_all_placements(
    name: str, asked: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tenths of a second for all five, also where nothing is enough: 4,500 assignments of millions legal."""
    looked = 0

    def counting(function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            nonlocal looked
            looked += 1
            return function(*arguments)

        return counted

    monkeypatch.setattr(search, "score", counting(judging.score))
    monkeypatch.setattr(search, "bound", counting(bounding.bound))
    planned(name, free=True, asked=asked)
    assert 0 < looked < 4500


# --- the sites -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SITES)
def test_a_site_declares_what_the_planner_finds(found: dict[str, dict[str, Placement]], name: str) -> None:
    spec = site_of(name).spec
    own = {str(route): declared.model for route, declared in spec.routes.items()}
    assert set(spec.placements) == set(found[name])
    for placement, planner in found[name].items():
        assert spec.placements[placement] == planner.gpus()
        others = {route: m for route, m in planner.answers.items() if m and m != own[route]}
        assert spec.aliases.get(placement, {}) == others


@pytest.mark.parametrize("name", SITES)
def test_what_is_declared_is_told_as_what_is_found(found: dict[str, dict[str, Placement]], name: str) -> None:
    assert declared_placements(site_of(name), CATALOG) == found[name]


@pytest.mark.parametrize("name", SITES)
def test_flags_are_those_of_the_unit(found: dict[str, dict[str, Placement]], name: str) -> None:
    plan = derive(site_of(name))
    for placement, planner in found[name].items():
        for placed in planner.models:
            env = plan["placements"][placement]["engines"][placed.model]["env"]
            assert env.get("VLLM_ARGS", "").endswith(" ".join(placed.flags))
            assert bool(placed.flags) == ("VLLM_ARGS" in env)
            assert env["CUDA_VISIBLE_DEVICES"] == ",".join(str(gpu) for gpu in placed.gpus)


@pytest.mark.parametrize("name", SITES)
def test_what_restarts_is_what_the_guard_restarts(found: dict[str, dict[str, Placement]], name: str) -> None:
    plan = derive(site_of(name))
    placements = parse_plan(render(plan["placements"], plan["engines"], "10.0.0.1")["plan.json"])
    running: dict[str, str | None] = dict(wanted_digests(placements[HEALTHY]))
    for placement, planner in found[name].items():
        change = difference(wanted_digests(placements[placement]), running)
        if planner.lost is not None:
            assert set(planner.keeps) == set(change.keep)
            assert set(planner.restarts) == set(change.restart)
            assert set(planner.starts) == set(change.start)
            assert set(planner.stops) == set(change.stop)


@pytest.mark.parametrize("name", SITES)
def test_there_is_nothing_better_than_what_is_declared(name: str) -> None:
    assert better(site_of(name), CATALOG) == {}


def changed(name: str, placement: str, engines: dict[str, list[int]], aliases: dict[str, str] | None = None) -> Site:
    site = site_of(name)
    spec = site.spec.model_copy(
        update={
            "placements": {**site.spec.placements, placement: engines},
            "aliases": {**site.spec.aliases, placement: site.spec.aliases[placement] if aliases is None else aliases},
        }
    )
    return Site(**{**site.__dict__, "spec": spec})


def test_a_worse_placement_is_told_in_one_line() -> None:
    small = {model: [3] for model in SMALL}
    remarks = better(changed("example-l40s", "without-gpu2", {LLAMA: [0, 1], **small}), CATALOG)
    assert set(remarks) == {"without-gpu2"}
    assert f"{LLAMA} on GPUs 1+3" in remarks["without-gpu2"]
    assert "2 restarts instead of 5" in remarks["without-gpu2"]
    assert "\n" not in remarks["without-gpu2"]


def test_a_model_that_is_split_though_it_need_not_be_is_told() -> None:
    spec = site_of("example-l40s").spec
    remarks = better(
        changed("example-l40s", "without-gpu1", {**spec.placements["without-gpu1"], WHISPER: [0, 2]}), CATALOG
    )
    assert f"{WHISPER} on GPU 0" in remarks["without-gpu1"]


def test_a_missing_stand_in_is_told() -> None:
    spec = site_of("example-l40s").spec
    remarks = better(changed("example-l40s", "without-gpu1", dict(spec.placements["without-gpu1"]), {}), CATALOG)
    assert "reason not off" in remarks["without-gpu1"]


def test_a_placement_is_plain_data(found: dict[str, dict[str, Placement]]) -> None:
    data = as_json(found["example-l40s"]["without-gpu1"])
    assert data["served"] == ["audio", "chat", "embed", "rerank", "vision"]
    assert [entry["route"] for entry in data["degraded"]] == ["reason"]
    assert data["off"] == []
    llama = next(model for model in data["models"] if model["model"] == LLAMA)
    assert llama["flags"][:2] == ["--tensor-parallel-size", "2"]
    assert {"model", "gpus", "format", "kv_tokens", "flags"} <= set(llama)


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_too_many_notes_are_told_with_what_is_short(found: dict[str, dict[str, Placement]]) -> None:
    healthy = planned("example-l40s", asked={"soap": 100})[HEALTHY]
    assert healthy.capacity["soap"] < 100
    assert "soap" in healthy.degraded["chat"]
    assert LLAMA in healthy.binding and "GiB) short" in healthy.binding
    assert healthy.capacity["soap"] >= found["example-l40s"][HEALTHY].capacity["soap"]


def test_a_gpu_too_small_for_anything_leaves_everything_off() -> None:
    site = site_of("example-l40s")
    tier = tier_of(site)
    catalog = with_memory(CATALOG, tier.gpu, 1000)
    placements = all_placements(
        chosen_wishes(site, catalog), tuple(site.spec.routes), demands(site, catalog), tier, catalog
    )
    for placement in placements.values():
        assert placement.models == ()
        assert set(placement.off) == set(site.spec.routes)
        assert placement.binding
    assert f"{LLAVA} needs" in placements[HEALTHY].binding


def test_a_route_nobody_may_answer_is_off_and_says_so() -> None:
    placement = best((), ("chat",), (Demand("chat", "chat", 1, 4096),), CATALOG.tiers["l40s-4"], CATALOG)
    assert placement.off == {"chat": "no model for it"}
    assert placement.capacity == {"chat": 0}
    assert placement.binding


def test_a_model_is_split_over_no_more_gpus_than_it_needs() -> None:
    """Each GPU more is one more that can take it down."""
    wish = Wish(("chat",), (), "llama-3.1-8b-instruct", "bf16", "auto", "vllm", 8192, None)
    wanted = (Demand("chat", "chat", 10, 4096),)
    placement = best((wish,), ("chat",), wanted, CATALOG.tiers["h100-sxm-4"], CATALOG)
    assert [placed.gpus for placed in placement.models] == [(0,)]


def test_a_session_longer_than_a_model_takes_is_not_granted() -> None:
    wish = Wish(("chat",), (), LLAMA, "fp8", "auto", "vllm", 4096, None)
    wanted = (Demand("soap", "chat", 1, 8192), Demand("chat", "chat", 1, 4096))
    placement = best((wish,), ("chat",), wanted, CATALOG.tiers["h100-sxm-4"], CATALOG)
    assert placement.capacity == {"soap": 0, "chat": 1}
    assert "max_model_len" in placement.binding


def test_a_format_without_a_kernel_on_the_gpu_is_not_chosen() -> None:
    site = site_of("example-h100")
    tier = replace(tier_of(site), gpu="a100-sxm-80")
    healthy = best(chosen_wishes(site, CATALOG), tuple(site.spec.routes), demands(site, CATALOG), tier, CATALOG)
    for placed in healthy.models:
        assert CATALOG.formats[placed.format].runs_on(CATALOG.gpus[tier.gpu])
        assert CATALOG.kv_formats[placed.kv_cache_dtype].runs_on(CATALOG.gpus[tier.gpu])


# --- any placement ---------------------------------------------------------------------------------------------------

ROUTES = ("audio", "chat", "reason", "embed", "vision")


def with_memory(catalog: Catalog, gpu: str, mib: int) -> Catalog:
    return replace(catalog, gpus={**catalog.gpus, gpu: replace(catalog.gpus[gpu], memory_mib=mib)})


@dataclass(frozen=True)
class Setup:
    """A question small enough to be printed."""

    wishes: tuple[Wish, ...]
    wanted: tuple[Demand, ...]
    tier_name: str
    gpus: int
    mib: int

    @property
    def tier(self) -> Tier:
        return CATALOG.tiers[self.tier_name].with_gpus(self.gpus)

    @property
    def catalog(self) -> Catalog:
        return with_memory(CATALOG, self.tier.gpu, self.mib)

    def best(self, healthy: Placement | None = None, lost: int | None = None) -> Placement:
        return best(self.wishes, ROUTES, self.wanted, self.tier, self.catalog, healthy, lost)

    def all(self) -> dict[str, Placement]:
        return all_placements(self.wishes, ROUTES, self.wanted, self.tier, self.catalog)

    def case(self, healthy: Placement | None, lost: int | None) -> Case:
        return Case(self.wishes, ROUTES, self.wanted, self.tier, self.catalog, healthy, lost)


@st.composite
def setups(draw: st.DrawFn, wishes: int = 3) -> Setup:
    """A few engines that compete for two or three GPUs of any size, under any demand."""
    pool = [
        Wish(("chat",), ("reason",), LLAMA, "fp8", "auto", "vllm", 8192, None, (0, 1, 0)),
        Wish(("chat",), ("reason",), LLAMA, "awq-int4", "fp8", "vllm", 8192, None, (0, 2, 1)),
        Wish(("reason",), ("chat",), QWEN32, "awq-int4", "auto", "vllm", 8192, None),
        Wish(("reason",), ("chat",), QWEN72, "awq-int4", "fp8", "vllm", 8192, draw(st.sampled_from([None, 4.0]))),
        Wish(("vision",), (), LLAVA, "bf16", "auto", "vllm", 4096, 1.0),
        Wish(("audio",), (), WHISPER, "bf16", "auto", "vllm", 448, draw(st.sampled_from([2.0, 6.0]))),
        Wish(("embed",), (), BGE, "bf16", "auto", "triton", 8192, None),
        Wish((), ("chat", "reason"), "llama-3.1-8b-instruct", "bf16", "auto", "vllm", 8192, None, on_disk=True),
    ]
    picked = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=wishes, unique=True))
    impossible = st.just(1_000_000)
    wanted = (
        Demand("soap", "chat", draw(st.integers(0, 60) | impossible), 8192),
        Demand("chat", "chat", draw(st.integers(0, 60) | impossible), 4096),
        Demand("audio", "audio", draw(st.integers(0, 2)), 20),
        Demand("vision", "vision", draw(st.integers(0, 3)), 4096),
        Demand("reason", "reason", draw(st.integers(0, 30) | impossible), 8192),
    )
    name = draw(st.sampled_from(["h100-sxm-4", "l40s-4"]))
    return Setup(tuple(picked), wanted, name, draw(st.integers(2, 3)), draw(st.integers(8_000, 160_000)))


quick = settings(max_examples=60, deadline=None)


def every_assignment(case: Case) -> Iterator[Seats]:
    """All legal ones, without any cleverness."""
    engines = [engine for group in case.problem.groups for engine in group]
    options: list[list[Seat | None]] = [
        [None, *(Seat(engine, gpus) for size in engine.splits for gpus in combinations(case.problem.left, size))]
        for engine in engines
    ]
    for combination in product(*options):
        seats = tuple(seat for seat in combination if seat is not None)
        routes = [route for seat in seats for route in seat.engine.routes]
        models = [seat.engine.model for seat in seats]
        if len(set(routes)) < len(routes) or len(set(models)) < len(models):
            continue
        instances = {seat.engine.model: case.instance(seat.engine) for seat in seats}
        gpus = {seat.engine.model: seat.gpus for seat in seats}
        if fit.fit(instances, gpus, case.gpu, case.tier.gpu_count, case.catalog).fits:
            yield seats


@quick
@given(setups(), st.none() | st.integers(0, 1))
def test_nothing_is_better_than_the_best(setup: Setup, lost: int | None) -> None:
    case = setup.case(setup.best() if lost is not None else None, lost)
    keys = [
        (judging.score(case.problem, seats), search.numbers(case.problem, seats)) for seats in every_assignment(case)
    ]
    solved = search.solve(case.problem)
    score = judging.score(case.problem, solved)
    assert score == max(key[0] for key in keys)
    assert search.numbers(case.problem, solved) == max(key[1] for key in keys if key[0] == score)


@quick
@given(setups(), st.none() | st.integers(0, 1))
def test_no_bound_is_below_what_can_become_of_it(setup: Setup, lost: int | None) -> None:
    case = setup.case(setup.best() if lost is not None else None, lost)
    groups = [bounding.grouped(case.problem, group) for group in case.problem.groups]
    highest: dict[object, tuple[Key, Seats, int]] = {}
    for seats in every_assignment(case):
        score = judging.score(case.problem, seats)
        for decided in range(1, len(groups)):
            engines = [engine for group in groups[:decided] for engine in group.engines]
            begun = tuple(seat for seat in seats if seat.engine in engines)
            key = decided, tuple((seat.engine.number, seat.gpus) for seat in begun)
            if key not in highest or highest[key][0] < score:
                highest[key] = score, begun, decided
    for score, begun, decided in highest.values():
        assert bounding.bound(case.problem, begun, groups[decided:]) >= score


@quick
@given(setups(5))
def test_a_placement_is_legal_and_told_truly(setup: Setup) -> None:
    for name, placement in setup.all().items():
        placed = {(p.model, p.format, p.kv_cache_dtype) for p in placement.models}
        assert placement.name == name
        legal(
            placement,
            setup.tier,
            setup.catalog,
            [wish for wish in setup.wishes if (wish.model, wish.format, wish.kv_cache_dtype) in placed],
        )
        granted_fits(placement, setup.wanted, setup.catalog)
        assert sorted([*placement.served, *placement.degraded, *placement.off]) == sorted(ROUTES)
        assert placement.binding
        assert set(placement.capacity) == {demand.name for demand in setup.wanted}
        for demand in setup.wanted:
            assert 0 <= placement.capacity[demand.name] <= demand.sessions
            if demand.route in placement.served:
                assert placement.capacity[demand.name] == demand.sessions


def served(setup: Setup, placement: Placement) -> tuple[int, tuple[int, ...]]:
    """Worth and sessions, from what a placement tells."""
    worth = 0.0
    for route, model in placement.answers.items():
        if model is not None:
            own = any(wish.model == model and route in wish.routes for wish in setup.wishes)
            whole = all(placement.capacity[d.name] == d.sessions for d in setup.wanted if d.route == route)
            share = (1.0 if whole else CHOICES.worth.part) * (1.0 if own else CHOICES.worth.stand_in)
            worth += 1000 * CHOICES.weights[route] * share
    return round(worth), tuple(placement.capacity[d.name] for d in setup.wanted)


@quick
@given(setups(4), st.floats(1.05, 4.0))
def test_more_memory_never_serves_less(setup: Setup, factor: float) -> None:
    """Beyond the rounding of an engine's share to a thousandth."""
    larger = replace(setup, mib=round(setup.mib * factor))
    assert served(larger, larger.best()) >= served(setup, setup.best())


@quick
@given(setups(4))
def test_losing_a_gpu_never_serves_more(setup: Setup) -> None:
    placements = setup.all()
    whole = served(setup, placements[HEALTHY])
    for placement in placements.values():
        assert served(setup, placement) <= whole


@quick
@given(setups(4), st.randoms())
def test_the_order_of_wishes_changes_nothing(setup: Setup, random: Any) -> None:
    shuffled = list(setup.wishes)
    random.shuffle(shuffled)
    assert replace(setup, wishes=tuple(shuffled)).best() == setup.best()
