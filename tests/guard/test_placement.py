"""Which engines a change of placement touches, and that an interrupted change can be finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.guard import placement, systemd

from .guard_host import ENGINES, PLACEMENTS, MemoryHost, bring


@pytest.mark.parametrize(
    ("wanted", "running", "expected"),
    [
        ({}, {}, ((), (), (), ())),
        ({"a": "1"}, {"a": "1"}, (("a",), (), (), ())),
        ({"a": "1"}, {"a": None}, ((), (), ("a",), ())),
        ({"a": "1"}, {}, ((), (), ("a",), ())),
        ({"a": "1"}, {"a": "2"}, ((), (), (), ("a",))),
        ({"a": "1"}, {"a": ""}, ((), (), (), ("a",))),
        ({}, {"a": "1"}, ((), ("a",), (), ())),
        ({}, {"a": None}, ((), (), (), ())),
    ],
)
def test_difference(wanted: dict[str, str], running: dict[str, str | None], expected: tuple[Any, ...]) -> None:
    found = placement.difference(wanted, running)
    assert (found.keep, found.stop, found.start, found.restart) == expected


digests = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2"]))


@given(digests, st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "", None])))
def test_acting_on_the_difference_always_arrives(wanted: dict[str, str], running: dict[str, str | None]) -> None:
    change = placement.difference(wanted, running)
    after = {unit: digest for unit, digest in running.items() if digest is not None and unit not in change.stop}
    after |= {unit: wanted[unit] for unit in (*change.start, *change.restart)}
    assert after == wanted
    assert not set(change.keep) & {*change.stop, *change.start, *change.restart}


def test_a_derate_keeps_what_the_survivors_already_serve(directory: Path) -> None:
    host = MemoryHost(directory)
    bring(directory, host, "healthy")
    host.acts.clear()
    applied = bring(directory, host, "without-gpu2")
    assert applied.difference.as_dict() == {
        "keep": ["triton@bge.service"],
        "stop": ["vllm@llava.service"],
        "start": [],
        "restart": ["vllm@llama.service"],
    }
    assert host.acts == ["boot", "stop vllm@llama.service", "stop vllm@llava.service", "start vllm@llama.service"]
    assert host.enabled == {"triton@bge.service", "vllm@llama.service"}
    assert placement.current_name(directory) == "without-gpu2"


def test_applying_twice_touches_nothing(directory: Path) -> None:
    host = MemoryHost(directory)
    bring(directory, host, "healthy")
    host.acts.clear()
    assert bring(directory, host, "healthy").difference.empty
    assert host.acts == ["boot"]


@pytest.mark.parametrize("steps", range(6))
def test_a_change_killed_at_any_step_is_finished_by_the_next_try(directory: Path, steps: int) -> None:
    host = MemoryHost(directory)
    bring(directory, host, "healthy")
    host.die_after = steps
    try:
        bring(directory, host, "without-gpu2")
    except InterruptedError:
        host.die_after = 10**9
        bring(directory, host, "without-gpu2")
    wanted = placement.wanted_digests(placement.load_plan(directory)["without-gpu2"])
    assert host.units == wanted


def test_an_engine_that_never_becomes_healthy_is_named_and_the_others_start(directory: Path) -> None:
    host = MemoryHost(directory, broken=[":8101"])
    applied = bring(directory, host, "healthy")
    assert applied.late == ["vllm@llama.service"]
    assert len(host.units) == 3
    assert host.clock <= 6.0


def engine(unit: str, *gpus: int) -> placement.Engine:
    return placement.Engine(unit, unit, gpus, "", "", "", "")


def test_engines_that_share_a_gpu_start_one_after_the_other() -> None:
    groups = placement.waves([engine("a", 0), engine("b", 0), engine("c", 1), engine("big", 2, 3), engine("d", 3)])
    assert [[e.unit for e in group] for group in groups] == [["big", "a", "c"], ["b", "d"]]


@pytest.mark.parametrize(
    ("value", "expected"), [("0,1", "0,1"), ("a b", '"a b"'), ('say "x"', r'"say \"x\""'), ("$HOME", r'"\$HOME"')]
)
def test_values_survive_the_environment_file(value: str, expected: str) -> None:
    assert f"X={expected}\n" in placement.env_file("u", {"X": value})


def test_a_line_break_in_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        placement.env_file("u", {"X": "a\nb"})


def test_the_plan_says_where_health_and_version_are() -> None:
    plan = placement.parse_plan(placement.render(PLACEMENTS, ENGINES, "10.0.0.1")["plan.json"])
    assert plan["healthy"].engines["bge"].health == "http://10.0.0.1:8000/v2/health/ready"
    assert plan["healthy"].engines["llama"].version == "w-llama"
    assert plan["without-gpu2"].off == ("vision",)


@pytest.mark.parametrize("text", ["", "[]", '{"healthy": {}}', '{"healthy": {"engines": {"a": {}}}}', "{"])
def test_a_damaged_plan_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        placement.parse_plan(text)


def test_show_output_of_several_units() -> None:
    text = "Id=a.service\nActiveState=active\nMainPID=12\n\nId=b.service\nActiveState=inactive\nMainPID=0\n"
    assert systemd.parse_show(text)["b.service"] == {"Id": "b.service", "ActiveState": "inactive", "MainPID": "0"}


def test_only_units_whose_boot_state_is_wrong_are_changed() -> None:
    units = {"a": {"UnitFileState": "enabled"}, "b": {"UnitFileState": "disabled"}, "c": {"UnitFileState": "enabled"}}
    assert systemd.boot_changes(units, {"a", "b"}) == (["b"], ["c"])


def test_the_digest_is_read_from_a_process_environment(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").write_bytes(b"PATH=/bin\0GPU_CUTOVER_ENV_DIGEST=abc\0")
    assert systemd.digest_of_process(7, tmp_path) == "abc"
    assert systemd.digest_of_process(8, tmp_path) == ""
