"""What would make a target hold: every change is legal, its figure is the planner's own, the nearest is enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning.changes import Change, Wanted, changes, options
from gpu_cutover.planning.fit import Instance, budget_bytes, tensor_parallel_problem
from gpu_cutover.planning.targets import setting_of
from gpu_cutover.site.load import load_site

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog()
SETTINGS = {
    tier: setting_of(load_site(ROOT / "inventory" / f"example-{tier}", "site"), CATALOG) for tier in ("l40s", "h100")
}


def found(tier: str, name: str, figure: float | None = None) -> tuple[Change, ...]:
    target = CATALOG.targets[name]
    return changes([Wanted(name, figure or target.plan, target.better)], SETTINGS[tier], CATALOG)


@pytest.mark.parametrize("tier", sorted(SETTINGS))
def test_the_nearest_change_for_a_whole_note_is_to_promise_its_first_token(tier: str) -> None:
    nearest, *others = found(tier, "soap_p95_s")
    assert nearest.nearest and nearest.verdict == "met" and "first token" in nearest.what
    assert not any(change.nearest for change in others)


def test_a_whole_note_in_two_seconds_needs_a_much_smaller_model_on_the_premium_tier() -> None:
    enough = [change for change in found("h100", "soap_p95_s")[1:] if change.verdict == "met"]
    assert [change.what.split(" ")[0] for change in enough] == ["llama-3.1-8b-instruct"]


def test_four_gpus_and_other_weights_do_not_bring_the_70b_under_two_seconds() -> None:
    words = {change.what: change for change in found("h100", "soap_p95_s")}
    assert words["on 4 GPUs"].floor == pytest.approx(2.1, rel=0.02)
    assert words["the same model as awq-int4"].floor == pytest.approx(2.25, rel=0.02)
    assert {words["on 4 GPUs"].verdict, words["the same model as awq-int4"].verdict} == {"impossible"}


def test_speculative_decoding_on_the_premium_pair_only_removes_the_impossible() -> None:
    words = {change.what: change for change in found("h100", "soap_p95_s")}
    assert words["speculative decoding"].verdict == "at risk"


def test_a_recording_is_in_time_while_it_is_streamed_on_a_second_gpu_or_with_the_small_decoder() -> None:
    told = {change.what: change.verdict for change in found("l40s", "whisper_p95_s")}
    assert told["a second Whisper on another GPU"] == told["whisper-large-v3-turbo"] == "met"
    assert found("l40s", "whisper_p95_s")[0].what.startswith("transcribe during the consultation")


def test_more_sessions_than_one_host_holds_need_more_hosts() -> None:
    wanted = found("l40s", "concurrent_soap", 150)
    enough = [change for change in wanted if change.verdict == "met"]
    assert enough and all(change.expected >= 150 for change in enough)
    assert any("hosts" in change.what for change in wanted)


def test_a_year_with_a_repair_needs_a_second_host_or_a_spare() -> None:
    assert [change.verdict for change in found("l40s", "availability")] == ["met", "met"]


def test_what_no_change_is_known_for_has_none() -> None:
    assert found("l40s", "retrieval_p95_s", 0.001) == ()


@pytest.mark.parametrize("tier", sorted(SETTINGS))
def test_every_option_loads_and_splits_evenly(tier: str) -> None:
    checked = 0
    for option in options(SETTINGS[tier], CATALOG, speculation=True):
        who, gpu = option.setting.answerers["chat"], option.setting.gpu
        assert tensor_parallel_problem(Instance(who.model, who.weights, "vllm"), who.gpus) is None
        assert who.model.weight_bytes(who.weights) < who.gpus * budget_bytes(gpu, CATALOG)
        assert who.weights.runs_on(gpu) and who.gpus <= SETTINGS[tier].gpu_count
        checked += 1
    assert checked > 50
