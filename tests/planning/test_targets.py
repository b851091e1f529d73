"""Each target against arithmetic: whole notes, first tokens, sessions, recordings, a year's availability."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog import load_catalog
from gpu_cutover.catalog.outages import load_outages
from gpu_cutover.planning import availability
from gpu_cutover.planning.targets import Estimate, Load, Setting, estimates, setting_of, verdict
from gpu_cutover.site.load import load_site

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog()
SETTINGS = {
    tier: setting_of(load_site(ROOT / "inventory" / f"example-{tier}", "site"), CATALOG) for tier in ("l40s", "h100")
}
COUNTS = st.integers(1, 500)


def judged(setting: Setting) -> dict[str, str]:
    found = estimates(setting, CATALOG)
    return {name: verdict(target.better, target.plan, found[name]) for name, target in CATALOG.targets.items()}


def loaded(tier: str, soap: int = 12, chat: int = 30, recordings: int = 2) -> Setting:
    return replace(SETTINGS[tier], load=Load(soap, chat, recordings))


def test_the_budget_tier_writes_no_note_in_two_seconds_and_transcribes_one_recording_in_time() -> None:
    assert judged(SETTINGS["l40s"]) == {
        "whisper_p95_s": "at risk",
        "soap_p95_s": "impossible",
        "soap_first_token_p95_s": "met",
        "concurrent_soap": "met",
        "concurrent_chat": "met",
        "retrieval_p95_s": "met",
        "availability": "at risk",
    }
    assert judged(loaded("l40s", recordings=1))["whisper_p95_s"] == "met"


def test_the_premium_tier_meets_all_but_the_whole_note_and_the_year() -> None:
    found = judged(SETTINGS["h100"])
    assert {name for name, word in found.items() if word != "met"} == {"soap_p95_s", "availability"}
    assert found["soap_p95_s"] == "impossible"


@pytest.mark.parametrize(("tier", "seconds"), [("l40s", 8.7), ("h100", 4.2)])
def test_the_floor_of_a_whole_note(tier: str, seconds: float) -> None:
    assert estimates(SETTINGS[tier], CATALOG)["soap_p95_s"].floor == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(("tier", "tokens", "notes", "chats"), [("l40s", 280_000, 19, 44), ("h100", 245_000, 14, 35)])
def test_sessions_are_what_the_cache_holds_beside_the_others(tier: str, tokens: int, notes: int, chats: int) -> None:
    found = estimates(SETTINGS[tier], CATALOG)
    assert SETTINGS[tier].answerers["chat"].kv_tokens == pytest.approx(tokens, rel=0.02)
    assert (found["concurrent_soap"].expected, found["concurrent_chat"].expected) == (notes, chats)


def test_more_notes_than_all_memory_holds_are_impossible_and_a_few_more_are_at_risk() -> None:
    found = estimates(SETTINGS["l40s"], CATALOG)["concurrent_soap"]
    assert verdict("higher", 20, found) == "at risk"
    assert verdict("higher", 1_000_000, found) == "impossible"


def test_a_prompt_waits_for_another_only_when_the_doctors_are_many() -> None:
    alone = estimates(loaded("l40s", soap=1), CATALOG)["soap_first_token_p95_s"].expected
    assert estimates(loaded("l40s"), CATALOG)["soap_first_token_p95_s"].expected == alone
    assert estimates(loaded("l40s", soap=24), CATALOG)["soap_first_token_p95_s"].expected == 2 * alone
    assert estimates(loaded("l40s", soap=400), CATALOG)["soap_first_token_p95_s"].expected == pytest.approx(400 * alone)


@pytest.mark.parametrize("soap", [380, 385, 386, 387, 388, 400])
def test_no_more_prompts_can_be_ahead_than_there_are_other_doctors(soap: int) -> None:
    alone = estimates(loaded("l40s", soap=1), CATALOG)["soap_first_token_p95_s"].expected
    assert estimates(loaded("l40s", soap=soap), CATALOG)["soap_first_token_p95_s"].expected <= soap * alone * 1.000001


@pytest.mark.parametrize("tier", sorted(SETTINGS))
@given(soap=COUNTS, chat=COUNTS, more=COUNTS)
def test_more_load_is_never_faster_and_leaves_never_more_room(tier: str, soap: int, chat: int, more: int) -> None:
    less, heavier = (estimates(loaded(tier, count, chat, count), CATALOG) for count in (soap, soap + more))
    for name in ("soap_p95_s", "soap_first_token_p95_s", "whisper_p95_s"):
        assert heavier[name].expected >= less[name].expected
    assert heavier["concurrent_chat"].expected <= less["concurrent_chat"].expected


@pytest.mark.parametrize("tier", sorted(SETTINGS))
@given(soap=COUNTS, chat=COUNTS, recordings=st.integers(1, 40))
def test_nothing_is_expected_beyond_its_limit(tier: str, soap: int, chat: int, recordings: int) -> None:
    found = estimates(loaded(tier, soap, chat, recordings), CATALOG)
    for name, estimate in found.items():
        assert estimate.floor is not None
        if CATALOG.targets[name].better == "lower":
            assert estimate.floor <= estimate.expected, name
        else:
            assert estimate.floor >= estimate.expected, name


@pytest.mark.parametrize(
    ("better", "accepted", "estimate", "word"),
    [
        ("lower", 2.0, Estimate(4.0, 8.0, ""), "impossible"),
        ("lower", 4.0, Estimate(4.0, 8.0, ""), "at risk"),
        ("lower", 8.0, Estimate(4.0, 8.0, ""), "met"),
        ("higher", 12, Estimate(83, 19, ""), "met"),
        ("higher", 19, Estimate(83, 19, ""), "met"),
        ("higher", 20, Estimate(83, 19, ""), "at risk"),
        ("higher", 84, Estimate(83, 19, ""), "impossible"),
        ("higher", 84, Estimate(None, 19, ""), "at risk"),
        ("lower", 2.0, None, "measured"),
    ],
)
def test_the_words_of_a_verdict(better: str, accepted: float, estimate: Estimate | None, word: str) -> None:
    assert verdict(better, accepted, estimate) == word


def test_one_host_may_be_down_for_8_76_hours_and_one_repair_takes_24() -> None:
    year = availability.assess(0.999, 100_000_000_000, 600.0, 1, load_outages())
    assert year.allowed == pytest.approx(8.76)
    assert year.reboot == pytest.approx((600 + 100e9 / 6e9 + 120) / 3600)
    assert year.quiet > 0.999 > year.expected
    assert year.expected == pytest.approx(1 - (24 + 4 * year.reboot + 600 / 3600) / 8760)


def test_a_second_host_keeps_the_promise() -> None:
    assert availability.assess(0.999, 100_000_000_000, 600.0, 2, load_outages()).expected > 0.9999


def test_notes_that_do_not_fit_the_cache_wait_their_turn() -> None:
    fitting, waiting = (estimates(loaded("l40s", soap=soap), CATALOG)["soap_p95_s"] for soap in (12, 60))
    assert "turns" not in fitting.how
    assert "turns" in waiting.how
    assert waiting.expected > 2 * fitting.expected
