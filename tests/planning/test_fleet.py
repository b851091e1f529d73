"""Fleets: nothing exceeds a GPU, small ones equal brute force, bounds are bounds, and no demand is a crash."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning.fit import Instance
from gpu_cutover.planning.fleet import FleetPlan, place
from gpu_cutover.planning.fleet_parts import SHARES, Engine, FleetModel, Node, blocks, check, promised, served
from gpu_cutover.planning.shelf import Item, Shelf

CATALOG = load_catalog()
SECONDS = 60.0


def bench_fleet() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "fleet.py"
    spec = importlib.util.spec_from_file_location("bench_fleet", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def model(
    name: str,
    of: str = "llama-3.1-8b-instruct",
    weights: str = "bf16",
    gpus: int = 1,
    rate: int = 10,
    demand: int = 10,
    survive: bool = False,
    kv_gib: float = 4.0,
    gpu_time: float = 1.0,
) -> FleetModel:
    instance = Instance(CATALOG.models[of], CATALOG.formats[weights], "vllm", kv_gib=kv_gib)
    return FleetModel(name, instance, gpus, {"l40s": rate, "h100-sxm-80": 3 * rate}, demand, survive, 1, gpu_time)


def fleet(*sizes: int, gpu: str = "l40s") -> list[Node]:
    return [Node(f"n{number}", gpu, gpus) for number, gpus in enumerate(sizes)]


def solved(nodes: Sequence[Node], models: Sequence[FleetModel], **kwargs: object) -> FleetPlan:
    plan = place(nodes, models, SECONDS, 1, **kwargs)  # type: ignore[arg-type]
    assert_legal(plan, nodes, models)
    return plan


def assert_legal(plan: FleetPlan, nodes: Sequence[Node], models: Sequence[FleetModel]) -> None:
    """Judged by `fit` and by counting, not by the solver's figures."""
    by_name = {one.name: one for one in models}
    for node in nodes:
        engines = plan.nodes[node.name]
        assert legal(node, engines, by_name)
    for one in models:
        assert plan.served[one.name] == promised(plan.nodes, nodes, one)
    assert plan.nodes_used == sum(bool(engines) for engines in plan.nodes.values())
    assert plan.bound <= plan.nodes_used
    assert plan.served_share <= plan.served_bound + 1e-9
    assert (plan.status == "optimal") == (plan.gap == 0)
    assert bool(plan.binding) == any(plan.served[one.name] < one.demand for one in models)


def legal(node: Node, engines: Sequence[Engine], models: dict[str, FleetModel]) -> bool:
    time: Counter[int] = Counter()
    for engine in engines:
        assert engine.gpus in blocks(node.gpus, models[engine.model].gpus)
        for gpu in engine.gpus:
            time[gpu] += round(1000 * models[engine.model].gpu_time)
    return check(node, engines, models, CATALOG).fits and max(time.values(), default=0) <= 1000


def fillings(node: Node, models: Sequence[FleetModel]) -> Iterator[tuple[Engine, ...]]:
    """Everything one node may carry, by trying."""
    by_name = {one.name: one for one in models}
    seats = [Engine(one.name, block) for one in models for block in blocks(node.gpus, one.gpus)]

    def grow(engines: tuple[Engine, ...], start: int) -> Iterator[tuple[Engine, ...]]:
        yield engines
        for index in range(start, len(seats)):
            more = (*engines, seats[index])
            if legal(node, more, by_name):
                yield from grow(more, index)

    return grow((), 0)


def brute_force(nodes: Sequence[Node], models: Sequence[FleetModel]) -> tuple[float, int]:
    """The largest share that can be served, and the fewest nodes it takes."""
    options = []
    for node in nodes:
        counts = {
            tuple(Counter(e.model for e in engines)[m.name] for m in models) for engines in fillings(node, models)
        }
        options.append(counts)
    best = (-1.0, 0)
    for choice in itertools.product(*options):
        contents = {
            node.name: tuple(Engine(m.name, (0,)) for m, n in zip(models, counts, strict=True) for _ in range(n))
            for node, counts in zip(nodes, choice, strict=True)
        }
        share = sum(promised(contents, nodes, m) / m.demand for m in models) / len(models)
        best = max(best, (share, -sum(bool(engines) for engines in contents.values())))
    return best[0], -best[1]


FORMS = (
    ("llama-3.1-8b-instruct", "bf16", 4.0),
    ("llama-3.1-8b-instruct", "awq-int4", 2.0),
    ("qwen2.5-32b-instruct", "awq-int4", 6.0),
    ("llama-3.1-70b-instruct", "awq-int4", 20.0),
)


@st.composite
def small_models(draw: st.DrawFn) -> list[FleetModel]:
    count = draw(st.integers(1, 3))
    return [
        model(
            f"m{number}",
            form[0],
            form[1],
            2 if "70b" in form[0] else 1,
            rate=draw(st.integers(3, 9)),
            demand=draw(st.integers(1, 30)),
            survive=draw(st.booleans()),
            kv_gib=form[2],
            gpu_time=draw(st.sampled_from([0.4, 0.5, 0.7, 1.0])),
        )
        for number, form in enumerate(draw(st.lists(st.sampled_from(FORMS), min_size=count, max_size=count)))
    ]


@settings(max_examples=40, deadline=None)
@given(small_models(), st.sampled_from([(1,), (2,), (2, 2), (2, 1), (1, 1, 1)]))
def test_a_small_fleet_is_as_good_as_brute_force(models: list[FleetModel], sizes: tuple[int, ...]) -> None:
    nodes = fleet(*sizes)
    plan = solved(nodes, models)
    share, used = brute_force(nodes, models)
    assert plan.served_bound >= share - 1e-9, "the bound is one"
    assert plan.served_share == pytest.approx(share, abs=1 / SHARES)
    if plan.served_share >= share - 1e-9:
        assert plan.nodes_used == used
        assert plan.bound <= used


@settings(max_examples=15, deadline=None)
@given(small_models(), st.integers(2, 4))
def test_losing_a_node_never_serves_more(models: list[FleetModel], count: int) -> None:
    nodes = fleet(*[2] * count)
    plan = solved(nodes, models)
    for one in models:
        for node in nodes:
            left = served(plan.nodes, nodes, one, lost=node.name)
            assert left <= served(plan.nodes, nodes, one)
            assert not one.survive or left >= plan.served[one.name]
    assert solved(nodes[1:], models).served_share <= plan.served_bound + 1e-9


def test_sixty_four_nodes_and_twenty_models_are_solved_to_a_proven_bound() -> None:
    bench = bench_fleet()
    nodes, models = bench.nodes(64), bench.models(64, 0.9)
    plan = place(nodes, models, 30.0, 1)
    assert_legal(plan, nodes, models)
    assert plan.binding == ""
    assert plan.gap <= 0.05
    assert plan.bound >= 50


def test_where_blocks_are_too_many_to_list_those_that_pay_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_cutover.planning.fleet_columns.MOST_BLOCKS", 0)
    bench = bench_fleet()
    nodes, models = bench.nodes(32), bench.models(32, 0.9)
    plan = place(nodes, models, 30.0, 1)
    assert_legal(plan, nodes, models)
    assert plan.binding == ""
    assert plan.gap <= 0.07


def test_more_than_a_fleet_can_serve_is_served_in_part_and_says_so() -> None:
    bench = bench_fleet()
    nodes, models = bench.nodes(8), bench.models(16)
    plan = place(nodes, models, 30.0, 1)
    assert_legal(plan, nodes, models)
    assert 0 < plan.served_share < 1
    assert "8 nodes are full and serve" in plan.binding


def test_the_same_fleet_gets_the_same_answer() -> None:
    models = [model("a", demand=35, survive=True), model("b", "qwen2.5-32b-instruct", "awq-int4", demand=25)]
    assert solved(fleet(2, 2, 2, 2), models) == solved(fleet(2, 2, 2, 2), models)


def test_two_engines_that_would_share_a_node_are_put_on_two() -> None:
    plan = solved(fleet(2, 2), [model("must", rate=75, demand=50, survive=True)])
    assert (plan.served["must"], plan.nodes_used, plan.status) == (50, 2, "optimal")


def test_nodes_of_two_sizes_have_one_price_for_a_replica() -> None:
    wide = model("wide", "qwen2.5-32b-instruct", "awq-int4", 2, rate=178, demand=300, survive=True)
    plan = solved(fleet(1, 1, 1, 2, 2), [wide])
    assert (plan.served["wide"], plan.status) == (178, "optimal")


def test_a_surviving_model_is_spread_and_another_is_not() -> None:
    plan = solved(fleet(2, 2, 2), [model("must", demand=20, survive=True), model("may", demand=20)])
    assert plan.status == "optimal"
    assert plan.nodes_used == 3
    assert max(sum(e.model == "must" for e in engines) for engines in plan.nodes.values()) == 1
    alone = solved(fleet(2, 2, 2), [model("may", demand=20)])
    assert alone.nodes_used == 1


def test_what_runs_already_stays_where_it_is() -> None:
    nodes = fleet(2, 2, 2, 2)
    models = [model("a", demand=40, survive=True), model("b", "llama-3.1-70b-instruct", "awq-int4", 2, demand=10)]
    first = solved(nodes, models)
    assert (first.starts, first.stops) == (sum(map(len, first.nodes.values())), 0)
    again = solved(nodes, models, current=first.nodes)
    assert (again.starts, again.stops) == (0, 0)
    assert again.nodes == first.nodes
    more = [model("a", demand=40, survive=True), model("b", "llama-3.1-70b-instruct", "awq-int4", 2, demand=5)]
    assert solved(nodes, more, current=first.nodes).starts == 0


def test_a_growing_demand_starts_only_what_is_new() -> None:
    nodes = fleet(2, 2, 2)
    before = solved(nodes, [model("a", demand=20), model("b", demand=10)])
    after = solved(nodes, [model("a", demand=30), model("b", demand=10)], current=before.nodes)
    assert (after.starts, after.stops) == (1, 0)


def test_unequal_nodes_are_used_for_what_they_can_carry() -> None:
    nodes = [Node("big", "h100-sxm-80", 2), Node("small-a", "l40s", 1), Node("small-b", "l40s", 1)]
    wide = model("wide", "llama-3.1-70b-instruct", "fp8", 2, rate=10, demand=30, kv_gib=20.0)
    plan = solved(nodes, [wide, model("little", demand=20)])
    assert plan.binding == ""
    assert [engine.model for engine in plan.nodes["big"]] == ["wide"]
    assert {engine.model for name in ("small-a", "small-b") for engine in plan.nodes[name]} == {"little"}


@pytest.mark.parametrize(
    ("wanted", "nodes", "says"),
    [
        (
            model("m", "llama-3.1-70b-instruct", "bf16"),
            fleet(4, 4),
            "GiB on each of 1 GPUs, l40s gives engines 41.4 GiB",
        ),
        (model("m", gpus=2), fleet(1, 1), "needs 2 GPUs in one node"),
        (model("m", gpus=3), fleet(4), "32 attention heads cannot be divided by 3"),
        (model("m"), fleet(4, gpu="a-gpu-without-a-speed")[:0], "there is no node"),
        (model("m", demand=5, survive=True), fleet(4), "must survive the loss of a node, and there is only one"),
        (model("m", demand=1000), fleet(2, 2), "2 nodes are full and serve m 40 of 1,000"),
        (model("m", demand=10**12), fleet(2, 2), "2 nodes are full and serve m 40 of 1,000,000,000,000"),
    ],
)
def test_a_demand_that_cannot_be_met_names_what_is_short(wanted: FleetModel, nodes: list[Node], says: str) -> None:
    plan = place(nodes, [wanted], SECONDS, 1)
    assert says in plan.binding
    assert plan.served["m"] < wanted.demand


def test_one_model_that_fits_nowhere_does_not_keep_the_others_from_being_served() -> None:
    huge = model("huge", "llama-3.1-70b-instruct", "bf16")
    plan = solved(fleet(2), [huge, model("fine")])
    assert plan.served == {"huge": 0, "fine": 10}
    assert plan.served_share == pytest.approx(0.5)
    assert "huge runs on no node" in plan.binding


def test_no_demand_needs_no_node() -> None:
    plan = solved(fleet(2), [model("m", demand=0)])
    assert (plan.nodes_used, plan.served_share, plan.status) == (0, 1.0, "optimal")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), st.integers(200, 900), st.integers(150, 1000), st.floats(0.1, 5)),
        min_size=1,
        max_size=4,
    )
)
def test_the_best_filling_of_a_node_is_the_best_of_all(entries: list[tuple[int, int, int, float]]) -> None:
    items = [Item(f"i{n}", gpus, memory, time) for n, (gpus, memory, time, _) in enumerate(entries)]
    prices = {f"i{n}": entry[3] for n, entry in enumerate(entries)}
    here = Shelf(2, 920, 1000, items)
    listed = here.all(100_000)
    assert listed is not None
    worth = dict.fromkeys((1, 2), 0.0)
    for size, filling in listed:
        worth[size] = max(worth[size], sum(prices[name] for name, _ in filling.engines))
    bound, _ = here.best(prices)
    assert bound == pytest.approx(max(worth[2], 2 * worth[1]))


def test_the_solver_is_not_imported_before_a_fleet_is_solved() -> None:
    import subprocess

    script = "import sys, gpu_cutover.planning.fleet; sys.exit('ortools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
