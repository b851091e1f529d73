"""The guard's decisions: tables for single rules, thousands of random histories for what must never happen."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_cutover.guard import decide
from gpu_cutover.guard.decide import Policy
from gpu_cutover.probes import xid

from .histories import live

POLICY = Policy(act_after_s=10, critical_after_s=4, relax_after_s=40, blind_after_s=8, cool_down_s=10, probation_s=10)


def gpu(index: int, margin: object = 30, **other: Any) -> dict[str, Any]:
    base = {"power_w": 300.0, "limit_w": 350.0, "limit_min_w": 100.0, "clocks_event_bits": 4, "lost": False}
    return {"index": index, "margin_celsius": margin, **base, **other}


def sample(margins: Sequence[object], xids: Sequence[dict[str, int]] = (), **of: dict[str, Any]) -> dict[str, Any]:
    gpus = [gpu(i, margin, **of.get(f"gpu{i}", {})) for i, margin in enumerate(margins)]
    return {"t": 0.0, "gpus": gpus, "xids": list(xids)}


@dataclass
class Run:
    """Drives `decide` second by second, on boards that keep the limit they are given while `obedient`."""

    policy: Policy = POLICY
    now: float = 1000.0
    actions: list[tuple[float, decide.Action]] = field(default_factory=list)
    state: decide.State = field(default_factory=lambda: decide.begin(4, 1000.0))
    limits: dict[int, float] = field(default_factory=dict)
    obedient: bool = True

    def _obeyed(self, what: dict[str, Any]) -> dict[str, Any]:
        gpus = what.get("gpus")
        if not self.limits or not isinstance(gpus, list):
            return what
        return {
            **what,
            "gpus": [
                {**g, "limit_w": self.limits.get(g["index"], g["limit_w"])} if isinstance(g, dict) else g for g in gpus
            ],
        }

    def feed(self, seconds: int, make: dict[str, Any] | Callable[[int], dict[str, Any]]) -> None:
        for second in range(seconds):
            self.now += 1
            what = make(second) if callable(make) else make
            self.state, actions = decide.decide(self.state, self._obeyed(what), self.policy, self.now)
            if self.obedient:
                self.limits |= {a.gpu: a.watts for a in actions if a.watts is not None and a.gpu is not None}
            self.actions += [(self.now, action) for action in actions]

    def kinds(self, gpu: int | None = None) -> list[str]:
        return [a.kind for _, a in self.actions if a.kind not in ("level", "unpage") and (gpu is None or a.gpu == gpu)]


COOL = sample([30, 30, 30, 30])


def test_cool_gpus_cause_nothing() -> None:
    run = Run()
    run.feed(500, COOL)
    assert run.actions == []


@pytest.mark.parametrize("spike", [-20, -1, 0, 3, math.nan, None, "hot", True])
def test_a_single_bad_sample_does_nothing(spike: object) -> None:
    run = Run()
    run.feed(20, COOL)
    run.feed(1, sample([30, 30, spike, 30]))
    run.feed(60, COOL)
    assert run.kinds() == []


def test_sustained_heat_caps_in_steps_and_then_derates() -> None:
    run = Run()
    run.feed(60, sample([30, 30, 2, 30]))
    assert run.kinds() == ["cap", "cap", "derate"]
    watts = [a.watts for _, a in run.actions if a.kind == "cap"]
    assert watts == [pytest.approx(297.5), pytest.approx(245.0)]
    assert run.state.derated == 2
    assert run.state.gpus[2].level == "derated"


def test_the_thermal_bits_count_as_heat_even_with_a_wide_margin() -> None:
    run = Run()
    run.feed(11, sample([30, 30, 30, 30], gpu1={"clocks_event_bits": 0x40}))
    assert run.kinds(1) == ["cap"]


def test_the_normal_power_cap_bit_is_no_heat() -> None:
    run = Run()
    run.feed(300, sample([30, 30, 30, 30], gpu1={"clocks_event_bits": 0x4}))
    assert run.kinds() == []


def test_the_maximum_operating_temperature_derates_without_waiting_for_caps() -> None:
    run = Run()
    run.feed(5, sample([30, 30, -1, 30]))
    assert run.kinds() == ["derate"]


def test_heat_that_flickers_is_not_forgotten() -> None:
    run = Run()
    run.feed(40, lambda second: sample([30, 30, 2 if second % 4 else 8, 30]))
    assert "cap" in run.kinds(2)


def test_a_capped_gpu_returns_only_after_a_long_cool_time() -> None:
    run = Run()
    run.feed(11, sample([30, 30, 2, 30]))
    run.feed(100, sample([30, 30, 12, 30]))  # better, but inside the hysteresis
    assert run.state.gpus[2].level == "capped"
    run.feed(39, COOL)
    assert run.state.gpus[2].level == "capped"
    run.feed(2, COOL)
    assert run.state.gpus[2].level == "normal"
    assert run.kinds() == ["cap", "uncap"]


@pytest.mark.parametrize("code", [79, 95, 48, 119, 9999])
def test_a_hardware_xid_derates_at_once(code: int) -> None:
    run = Run()
    run.feed(1, sample([30] * 4, xids=[{"gpu": 1, "xid": code}]))
    assert run.kinds() == ["derate"]
    assert str(code) in run.state.cause


@pytest.mark.parametrize("code", [13, 31, 38, 43, 44, 45])
def test_an_application_xid_does_nothing(code: int) -> None:
    run = Run()
    run.feed(10, sample([30] * 4, xids=[{"gpu": 1, "xid": code}]))
    assert run.kinds() == []


@pytest.mark.parametrize("code", [63, 92, 94, 157])
def test_an_xid_that_lets_the_gpu_go_on_calls_a_person_for_a_day(code: int) -> None:
    run = Run(replace(POLICY, contained_errors=True, note_s=50))
    run.feed(1, sample([30] * 4, xids=[{"gpu": 1, "xid": code}]))
    run.feed(48, COOL)
    assert (run.kinds(), set(run.state.pages)) == (["page"], {"GPU 1 note"})
    assert str(code) in run.actions[0][1].reason
    run.feed(2, COOL)
    assert run.state.pages == {}


def test_a_contained_error_is_not_contained_where_the_board_cannot() -> None:
    run = Run()
    run.feed(1, sample([30] * 4, xids=[{"gpu": 1, "xid": 94}]))
    assert run.kinds() == ["derate"]


@pytest.mark.parametrize(
    ("told", "kinds"), [(0, []), (1, ["derate"]), (2, ["derate"]), (3, ["page"]), (4, ["derate"]), (None, ["page"])]
)
def test_xid_154_does_what_nvml_then_says(told: int | None, kinds: list[str]) -> None:
    run = Run()
    run.feed(1, sample([30] * 4, xids=[{"gpu": 1, "xid": 154}], gpu1={"recovery_action": told}))
    assert run.kinds() == kinds


def test_a_hardware_xid_of_nobody_calls_and_takes_nobody_out() -> None:
    run = Run()
    run.feed(1, sample([30] * 4, xids=[{"gpu": None, "xid": 79}]))  # type: ignore[dict-item]
    run.feed(10, COOL)
    assert (run.kinds(), set(run.state.pages)) == (["page"], {"xid"})


# NVIDIA's Xid catalogue as the fact table has it: what each code asks for at once.
LEAVES = [46, 48, 54, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 156, 158, 171, 172]
STAYS = [13, 31, 38, 43, 44, 45, 63, 92, 154, 157]


def test_every_xid_of_the_catalogue_is_known_and_does_what_it_asks_for() -> None:
    assert {code for code in xid.ACTION if xid.is_hardware(code)} == set(LEAVES)
    assert set(STAYS) <= {code for code in xid.ACTION if not xid.is_hardware(code)}


@pytest.mark.parametrize("other", [{"recovery_action": 1}, {"recovery_action": 2}, {"remap_failure": 1}])
def test_what_nvml_says_about_recovery_derates(other: dict[str, Any]) -> None:
    run = Run()
    run.feed(2, sample([30] * 4, gpu3=other))
    assert (run.kinds(), run.state.derated) == (["derate"], 3)


def test_a_lost_gpu_is_believed_at_the_second_sample() -> None:
    run = Run()
    run.feed(1, sample([30, 30, None, 30], gpu2={"lost": True}))
    assert run.kinds() == []
    run.feed(1, sample([30, 30, None, 30], gpu2={"lost": True}))
    assert run.kinds() == ["derate"]


def test_all_gpus_hot_is_the_chassis_and_never_a_derate() -> None:
    run = Run()
    run.feed(200, sample([1, 4, -1, 2]))
    assert "derate" not in run.kinds()
    assert "page" in run.kinds()
    assert "chassis" in run.state.pages


def test_two_hot_gpus_hold_and_page() -> None:
    run = Run()
    run.feed(60, sample([30, 2, 2, 30]))
    assert "derate" not in run.kinds()
    assert "two GPUs" in run.state.pages


def test_a_second_hot_gpu_after_a_derate_holds_and_pages() -> None:
    run = Run()
    run.feed(5, sample([30, 30, -1, 30]))
    run.feed(60, sample([30, -1, 30, 30]))
    assert run.kinds().count("derate") == 1
    assert "two GPUs" in run.state.pages


def test_a_page_goes_when_its_reason_goes() -> None:
    run = Run()
    run.feed(30, sample([1, 2, 1, 2]))
    assert "chassis" in run.state.pages
    run.feed(30, COOL)
    assert run.state.pages == {}


@pytest.mark.parametrize("margin", [None, math.nan, "x"])
def test_a_blind_sensor_caps_and_calls(margin: object) -> None:
    run = Run()
    run.feed(60, sample([30, 30, margin, 30]))
    assert run.kinds(2) == ["cap"]
    assert "blind GPU 2" in run.state.pages
    assert run.state.derated is None


@pytest.mark.parametrize("reading", [{"error": "NVML did not answer within 3 s"}, {}, {"gpus": None}, {"gpus": []}])
def test_nvml_hanging_keeps_the_placement_and_calls(reading: dict[str, Any]) -> None:
    run = Run()
    run.feed(60, reading)
    assert run.kinds() == ["page"] * (2 if "error" in reading else 1)
    assert "blind" in run.state.pages


def test_a_hung_nvml_is_an_alarm_of_its_own_and_not_for_one_late_answer() -> None:
    run = Run()
    run.feed(1, {"error": "NVML did not answer within 3 s", "hung": True})
    assert run.state.pages == {}
    run.feed(1, {"error": "NVML did not answer within 3 s", "hung": True})
    assert set(run.state.pages) == {"nvml hung"}
    run.feed(1, COOL)
    assert run.state.pages == {}


def test_all_hot_with_one_blind_sensor_is_still_the_chassis() -> None:
    run = Run()
    run.feed(200, sample([1, None, -1, 2]))
    assert "derate" not in run.kinds()
    assert {"chassis", "blind GPU 1"} <= set(run.state.pages)


def test_a_chassis_alarm_does_not_end_because_one_gpu_wavers_at_the_limit() -> None:
    run = Run()
    run.feed(200, lambda second: sample([1, 12 if second > 20 and second % 2 else 8, -1, 2]))
    assert "derate" not in run.kinds()
    run.feed(60, sample([20, 20, -1, 20]))
    assert run.kinds().count("derate") == 1


def test_a_limit_that_a_reset_took_back_is_set_again_and_is_no_new_action() -> None:
    run = Run(obedient=False)
    run.feed(11, sample([30, 30, 2, 30]))
    run.feed(130, sample([30, 30, 12, 30]))
    assert run.kinds() == ["cap"] * 3
    assert len(run.state.actions) == 1
    assert [a.watts for _, a in run.actions if a.kind == "cap"] == [pytest.approx(297.5)] * 3


def test_boards_that_are_not_the_sites_are_called_for() -> None:
    run = Run()
    run.feed(2, {**COOL, "roster": [("boards moved", "GPU 0 and GPU 1")]})
    assert (run.kinds(), set(run.state.pages)) == (["page"], {"boards moved"})


def test_accepting_boards_forgets_faults_of_slots_that_are_in_service() -> None:
    run = Run()
    run.feed(2, sample([30, 30, None, None], gpu2={"lost": True}, gpu3={"lost": True}))
    assert "two GPUs" in run.state.pages
    run.state = decide.ask_accept(run.state, [2], run.now)
    run.feed(2, COOL)
    assert (run.state.pages, run.state.derated) == ({}, None)


def test_a_temperature_that_stands_still_while_power_swings_is_not_believed() -> None:
    run = Run(replace(POLICY, stuck_after_s=30))
    run.feed(60, lambda second: sample([30] * 4, gpu2={"power_w": 100.0 if second % 10 < 5 else 340.0}))
    assert "blind GPU 2" in run.state.pages
    assert set(run.state.pages) == {"blind GPU 2"}


def test_observe_only_does_nothing_and_says_what_it_would_do() -> None:
    run = Run(replace(POLICY, observe_only=True))
    run.feed(100, sample([30, 30, -1, 30]))
    assert set(run.kinds()) == {"page"}
    assert run.state.derated is None
    assert any("would de-rate" in a.reason for _, a in run.actions)


def test_the_breaker_stops_acting_and_calls() -> None:
    run = Run(replace(POLICY, max_actions=1))
    run.feed(60, sample([30, 30, 2, 30]))
    assert run.kinds(2) == ["cap"]
    assert "breaker" in run.state.pages


def test_restore_needs_the_cool_down_and_a_sound_gpu() -> None:
    run = Run()
    run.feed(5, sample([30, 30, -1, 30]))
    _, _, refusal = decide.ask_restore(run.state, sample([30, 30, 5, 30]), POLICY, run.now)
    assert refusal and "cool for 0 s of 10 s" in refusal
    run.feed(11, COOL)
    for broken in ({"recovery_action": 2}, {"lost": True}, {"margin_celsius": None}):
        _, _, refusal = decide.ask_restore(run.state, sample([30] * 4, gpu2=broken), POLICY, run.now)
        assert refusal
    state, actions, refusal = decide.ask_restore(run.state, COOL, POLICY, run.now)
    assert (refusal, [a.kind for a in actions], state.derated) == (None, ["restore"], None)
    assert state.gpus[2].level == "recovering"


def test_a_restored_gpu_that_heats_again_is_derated_without_caps() -> None:
    run = Run()
    run.feed(5, sample([30, 30, -1, 30]))
    run.feed(11, COOL)
    run.state, _, _ = decide.ask_restore(run.state, COOL, POLICY, run.now)
    run.actions.clear()
    run.feed(12, sample([30, 30, 2, 30]))
    assert run.kinds() == ["derate"]


def test_a_restored_gpu_becomes_normal_after_its_probation() -> None:
    run = Run()
    run.feed(5, sample([30, 30, -1, 30]))
    run.feed(11, COOL)
    run.state, _, _ = decide.ask_restore(run.state, COOL, POLICY, run.now)
    run.feed(11, COOL)
    assert run.state.gpus[2].level == "normal"


def test_commands_refuse_what_has_no_placement() -> None:
    state, _, _ = decide.ask_derate(decide.begin(4, 0), 1, "drill", 1.0)
    assert state.derated == 1
    assert decide.ask_derate(state, 2, "drill", 2.0)[2] == "GPU 1 is out already; restore it first"
    assert decide.ask_derate(state, 7, "drill", 2.0)[2] == "there is no GPU 7"
    assert decide.ask_derate(state, 1, "again", 2.0)[1:] == ([], None)


def test_a_cap_that_cannot_be_set_leads_to_a_derate() -> None:
    run = Run()
    run.feed(11, sample([30, 30, 2, 30]))
    run.state = decide.cap_failed(run.state, 2, POLICY)
    run.feed(12, sample([30, 30, 2, 30]))
    assert run.kinds() == ["cap", "derate"]


values = st.one_of(st.none(), st.floats(-30, 60), st.just(math.nan), st.text(max_size=3), st.booleans())
readings = st.one_of(
    st.builds(
        lambda margins, bits: sample(margins, gpu0={"clocks_event_bits": bits}), st.tuples(*[values] * 4), values
    ),
    st.just({"error": "hung"}),
    st.dictionaries(st.sampled_from(["gpus", "xids", "t"]), st.one_of(st.none(), st.lists(st.integers()), st.text())),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(readings, max_size=60))
def test_no_sample_whatever_raises_and_the_state_survives_a_restart(history: list[dict[str, Any]]) -> None:
    run = Run()
    for reading in history:
        run.feed(1, reading)
        again = decide.State.from_dict(json.loads(json.dumps(run.state.as_dict())))
        assert again == run.state
    assert run.kinds().count("derate") <= 1


def random_history(rng: random.Random, seconds: int) -> list[list[float]]:
    """Margins of four GPUs: a random walk with a random pull, so that some histories overheat and some do not."""
    margins: list[float] = [rng.uniform(10, 40) for _ in range(4)]
    pulls = [rng.choice([35.0, 20.0, 8.0, 2.0, -3.0]) for _ in range(4)]
    history: list[list[float]] = []
    for _ in range(seconds):
        if rng.random() < 0.01:
            pulls[rng.randrange(4)] = rng.choice([35.0, 20.0, 8.0, 2.0, -3.0])
        margins = [m + 0.1 * (p - m) + rng.gauss(0, 0.7) for m, p in zip(margins, pulls, strict=True)]
        history.append([round(m + (rng.uniform(-40, 0) if rng.random() < 0.01 else 0)) for m in margins])
    return history


@pytest.mark.parametrize("block", range(8))
def test_hundreds_of_histories_neither_flap_nor_miss_sustained_heat(block: int) -> None:
    for number in range(25):
        rng = random.Random(block * 1000 + number)
        run = Run()
        over = [0] * 4
        for margins in random_history(rng, 300):
            before = len(run.actions)
            run.feed(1, sample(margins))
            over = [
                0 if m > POLICY.act_margin_celsius or i == run.state.derated else n + 1
                for i, (n, m) in enumerate(zip(over, margins, strict=True))
            ]
            for index, seconds in enumerate(over):
                handled = run.state.gpus[index].caps or run.state.derated == index or run.state.pages
                assert seconds <= POLICY.act_after_s + 1 or handled, (block, number, index)
            assert len([a for _, a in run.actions[before:] if a.kind == "derate"]) <= 1
        kinds = run.kinds()
        assert kinds.count("derate") <= 1, "only a command brings a GPU back, so at most one de-rate"
        assert kinds.count("cap") + kinds.count("uncap") + kinds.count("derate") <= POLICY.max_actions
        for index in range(4):
            times = [t for t, a in run.actions if a.gpu == index and a.kind == "uncap"]
            assert all(b - a >= POLICY.relax_after_s for a, b in pairwise(times))


def test_a_sensor_that_stands_still_at_the_limit_is_believed_all_the_same() -> None:
    run = Run(replace(POLICY, stuck_after_s=1, critical_after_s=6))
    run.feed(10, lambda second: sample([30, 30, -1, 30], gpu2={"power_w": 100.0 if second % 2 else 340.0}))
    assert "derate" in run.kinds(2)


@pytest.mark.parametrize("block", range(4))
def test_no_life_of_a_host_has_a_flap_or_a_missed_limit(block: int) -> None:
    found = [live(seed, 300) for seed in range(block * 15, block * 15 + 15)]
    assert [one for life in found for one in (*life.flaps, *life.missed)] == []
    assert sum(life.derates for life in found) >= 5, "lives in which nothing happens prove nothing"


def test_the_simulation_sees_a_guard_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "_protect", lambda step, chassis: None)
    monkeypatch.setattr(decide, "_chassis", lambda step: False)
    assert any(live(seed, 300).missed for seed in range(10))
