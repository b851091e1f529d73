"""The scaling framework beside arithmetic: figures recomputed, directions kept, bad input told, text that fits."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_cutover.catalog import load_catalog
from gpu_cutover.catalog.scaling import load_scaling
from gpu_cutover.errors import EXIT_DONE, EXIT_FAIL, InputError
from gpu_cutover.planning import scale_command, training
from gpu_cutover.planning.queueing import Batcher, most_users, waiting
from gpu_cutover.planning.scale_engine import SCENARIOS, Question, carried, chat_engine, month, per_million

CATALOG, DATA = load_catalog(), load_scaling()
L40S = CATALOG.gpus["l40s"]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    scale_command.add_arguments(parser)
    return parser.parse_args(words)


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = scale_command.run(parsed(*words))
    return code, capsys.readouterr().out


def plain(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(asked(capsys, *words, "--json")[1])
    return made


def question(model: str = "qwen2.5-32b-instruct", weights: str = "awq-int4", gpu: str = "l40s") -> Question:
    return Question(50, CATALOG.models[model], CATALOG.formats[weights], gpu, CATALOG.gpus[gpu])


# --- the queue -------------------------------------------------------------------------------------------------------

engines = st.builds(
    Batcher,
    st.floats(0.01, 1.0),
    st.floats(0.002, 0.1),
    st.floats(0.0, 0.1),
    st.integers(10, 1000),
    st.integers(1, 200),
    st.floats(1.0, 100.0),
)


def test_one_user_waits_for_nobody() -> None:
    engine = Batcher(0.2, 0.03, 0.045, 300, 40, 30.0)
    alone = waiting(engine, 1)
    assert alone.first_token_p95_s == pytest.approx(0.23)
    assert alone.answer_p95_s == pytest.approx(0.2 + 300 * 0.03)
    assert alone.answers_s == pytest.approx(1 / (30.0 + 9.2))
    assert alone.queued == 0


def test_the_queue_is_the_textbooks_where_the_engine_takes_one_at_a_time() -> None:
    """Machine repair with one repairman: Erlang's formula for N = 4, service 1 s, thinking 4 s."""
    engine = Batcher(0.0, 0.01, 0.0, 100, 1, 4.0)
    states = [math.factorial(4) / math.factorial(4 - n) * 0.25**n for n in range(5)]
    assert waiting(engine, 4).answers_s == pytest.approx(1 - states[0] / sum(states))
    assert waiting(engine, 4).queued == pytest.approx(
        sum(max(0, n - 1) * s for n, s in enumerate(states)) / sum(states)
    )


@settings(max_examples=60, deadline=None)
@given(engines, st.integers(1, 300))
def test_more_users_never_wait_less_and_little_s_law_holds(engine: Batcher, users: int) -> None:
    here, more = waiting(engine, users), waiting(engine, users + 20)
    assert more.first_token_p95_s >= here.first_token_p95_s * (1 - 1e-9)
    assert more.answer_p95_s >= here.answer_p95_s * (1 - 1e-9)
    assert here.first_token_p50_s <= here.first_token_p95_s
    assert here.answers_s <= users / (engine.think_s + engine.answer_s(1)) * (1 + 1e-9)
    assert 0 < here.busy <= 1 + 1e-9


def test_beyond_the_exact_chain_the_queue_goes_on_smoothly() -> None:
    engine = Batcher(0.2, 0.03, 0.045, 300, 40, 30.0)
    exact, mean = waiting(engine, 5000), waiting(engine, 5001)
    assert mean.first_token_p95_s == pytest.approx(exact.first_token_p95_s, rel=0.05)
    assert mean.answers_s == pytest.approx(exact.answers_s, rel=0.01)


def test_an_engine_without_cache_answers_nobody() -> None:
    engine = Batcher(0.2, 0.03, 0.045, 300, 0, 30.0)
    assert math.isinf(waiting(engine, 1).first_token_p95_s)
    assert most_users(engine, 1.0, 0.1) == 0


# --- training --------------------------------------------------------------------------------------------------------


def test_full_training_of_seven_billion_takes_112_gb() -> None:
    assert training.states_bytes(7e9, "full", DATA) == pytest.approx(112e9)
    assert training.states_bytes(7e9, "full", DATA) > training.usable_bytes(L40S, DATA)


def test_seven_billion_fit_one_card_only_with_adapters() -> None:
    model = CATALOG.models["qwen2.5-7b-instruct"]
    needs = {method: training.need(model, method, L40S, DATA).gpus for method in DATA.methods}
    assert needs == {"full": 4, "full-8bit": 2, "lora": 1, "qlora": 1}


def test_adapters_of_llama_8b_are_the_published_42_million() -> None:
    """LoRA of rank 16 on all linear layers of Llama-3.1-8B: 41,943,040 trainable parameters."""
    assert training.adapter_parameters(CATALOG.models["llama-3.1-8b-instruct"], 16) == 41_943_040


@pytest.mark.parametrize("name", [name for name, model in CATALOG.models.items() if model.kind == "decoder"])
def test_lighter_methods_and_more_gpus_never_need_more(name: str) -> None:
    needs = [
        training.need(CATALOG.models[name], method, L40S, DATA) for method in ("full", "full-8bit", "lora", "qlora")
    ]
    assert [need.states for need in needs] == sorted((need.states for need in needs), reverse=True)
    for need in needs:
        assert need.per_gpu[64] < need.per_gpu[8] < need.per_gpu[2]
        assert need.gpus is None or need.per_gpu[need.gpus] <= training.usable_bytes(L40S, DATA)


# --- the answer ------------------------------------------------------------------------------------------------------


def test_everything_is_there_and_every_assumption_has_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    made = plain(capsys)
    assert made["verdict"] == "possible"
    assert {"chat", "nodes", "batch", "training", "tree", "matrix", "phases", "rules", "findings"} <= set(made)
    assert all(entry["source"] for entry in made["assumptions"].values())
    assert [row["users"] for row in made["chat"]["rows"]] == [10, 50, 100]
    assert made["chat"]["rows"][2]["framework"] == [None, 8.2, 1.5]


def test_the_frameworks_mistakes_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["id"]: one for one in plain(capsys)["findings"]}
    assert set(found) >= {
        "l40s-no-nvlink",
        "gpu-memory-rule-always-true",
        "p95-two-seconds-never-clears",
        "nodes-shorten-the-queue-only",
        "cost-per-token-is-no-token",
        "full-fine-tune-7b",
    }
    assert "112 GB" in found["full-fine-tune-7b"]["text"]
    assert "432,000 USD a day" in found["cost-per-token-is-no-token"]["text"]
    assert "92%" in found["gpu-memory-rule-always-true"]["text"]


def test_findings_are_ordered_by_how_much_they_hurt(capsys: pytest.CaptureFixture[str]) -> None:
    order = ["blocker", "major", "minor", "note"]
    ranks = [order.index(one["severity"]) for one in plain(capsys)["findings"]]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_alone_says_nothing_of_the_others(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = plain(capsys, "--scenario", scenario)
    assert {name for name in SCENARIOS if name in made} == {scenario}
    assert "phases" not in made


def test_more_engines_carry_more_users_and_never_answer_slower(capsys: pytest.CaptureFixture[str]) -> None:
    chat = plain(capsys, "--scenario", "chat")["chat"]
    users = {layout["name"]: layout["users"] for layout in chat["layouts"]}
    assert users["two-engines"] == 2 * users["one-gpu"]
    assert users["four-servers"] == 4 * users["one-gpu"]
    for row in chat["rows"]:
        assert row["four-servers"]["answer_p95_s"] <= row["one-gpu"]["answer_p95_s"]
        assert row["four-servers"]["answer_p95_s"] >= chat_engine(question(), 1, CATALOG, DATA).answer_s(1) - 0.1


def test_two_servers_and_two_cards_give_the_same_tokens_at_different_prices(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in plain(capsys, "--scenario", "batch")["batch"]["rows"]}
    assert rows["two-servers"]["tokens_s"] == rows["two-engines"]["tokens_s"]
    assert rows["two-servers"]["per_million"] > rows["two-engines"]["per_million"]
    one = rows["one-gpu"]
    assert one["tokens_s"]["64"] > 5 * one["tokens_s"]["1"]


def test_cost_per_million_is_purchase_and_power_over_tokens() -> None:
    watts = DATA.host_w + L40S.power_max_w
    cost = 27_500 / 36 + watts / 1000 * 730 * DATA.pue * DATA.kwh
    assert month(question(), 1, 1, DATA) == pytest.approx(cost)
    assert per_million(cost, 100.0, 0.5) == pytest.approx(cost / (100 * 0.5 * 730 * 3600) * 1e6)


def test_servers_for_a_load_carry_it_with_one_lost(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = plain(capsys, "--scenario", "chat", "--users", "400")["nodes"]
    for option in nodes["options"]:
        each = carried(question(), option["gpus_per_engine"], CATALOG, DATA)
        lost = max(gpus for _, gpus in option["sizes"]) // option["gpus_per_engine"]
        assert option["served"] == 400
        assert (option["engines"] - lost) * each >= 400
        assert option["nodes"] == option["bound"]


@pytest.mark.parametrize(
    ("words", "binding"),
    [
        (["--users", "1000000000"], "fleets are planned up to 64"),
        (["--nodes", "1x2"], "must survive the loss of a node"),
        (["--nodes", "2x1", "--users", "100"], "2 servers carry 75 of 100 users with one server lost"),
        (["--model", "llama-3.1-70b-instruct", "--format", "bf16"], "141 GB of weights and needs 4 GPUs of l40s"),
        (["--model", "llama-3.1-70b-instruct", "--nodes", "8x1"], "in one server; a server has 1"),
        (["--gpu", "l4", "--format", "bf16"], "qwen2.5-32b-instruct has 66 GB of weights and needs 4 GPUs of l4"),
    ],
)
def test_a_load_that_cannot_be_carried_names_what_is_short(
    words: list[str], binding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = asked(capsys, *words)
    assert code == EXIT_FAIL
    assert "IMPOSSIBLE" in text
    assert binding in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--users", "0"], "'0' is not a number of people"),
        (["--users", "-3"], "is not a number of people"),
        (["--users", "1e3"], "is not a number of people"),
        (["--users", "1000000001"], "from 1 to 1,000,000,000"),
        (["--scenario", "chatt"], "did you mean chat?"),
        (["--gpu", "l40"], "did you mean l40s?"),
        (["--model", "llama-3.1-70b"], "did you mean llama-3.1-70b-instruct?"),
        (["--model", "bge-m3"], "use one of llama-3.1-70b-instruct"),
        (["--format", "fp9"], "did you mean fp8?"),
        (["--nodes", "3"], "write 3x1"),
        (["--nodes", "0x2"], "write 3x1"),
        (["--nodes", "40x1", "30x2"], "70 servers are more than the 64"),
    ],
)
def test_wrong_input_is_told_with_a_way_out(words: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        scale_command.run(parsed(*words))
    assert says in str(caught.value)


@pytest.mark.parametrize("gpu", sorted(CATALOG.gpus))
def test_every_gpu_of_the_catalog_has_an_answer_of_120_columns(gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = asked(capsys, "--gpu", gpu, "--users", "120")
    assert code in (EXIT_DONE, EXIT_FAIL)
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_model_without_a_format_gets_one_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain(capsys, "--model", "llama-3.1-8b-instruct", "--scenario", "batch")["format"] in ("bf16", "fp8")
    made = plain(capsys, "--model", "qwen2.5-72b-instruct", "--scenario", "batch")
    assert made["engine"]["gpus"] == 2
