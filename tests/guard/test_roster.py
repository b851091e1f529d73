"""Slots and boards: a board that is gone never shifts the others, whatever the driver calls them today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.errors import Refused
from gpu_cutover.guard import engine_gpus, roster

BUSES = ["00000000:41:00.0", "00000000:61:00.0", "00000000:81:00.0", "00000000:C1:00.0"]


def board(number: int, bus: int | None = None, **other: Any) -> dict[str, Any]:
    """A board of this number in a place on the bus (its own, when none is named)."""
    place = BUSES[number if bus is None else bus]
    return {
        "uuid": f"GPU-{number}",
        "serial": f"S{number}",
        "bus_id": place,
        "lost": False,
        "margin_celsius": 30 + number,
    } | other


def reading(*boards: dict[str, Any], xids: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What NVML tells: numbered in the order of the buses."""
    ordered = sorted(boards, key=lambda one: str(one["bus_id"]))
    return {"t": 1.0, "gpus": [{**one, "index": index} for index, one in enumerate(ordered)], "xids": xids or []}


WHOLE = reading(*(board(n) for n in range(4)))
ROSTER, _ = roster.learn(WHOLE, 4, "learned")


def test_slots_are_learned_from_a_whole_reading_in_the_order_of_the_buses() -> None:
    found, problem = roster.learn(reading(board(2, 0), board(0, 3), board(1, 1), board(3, 2)), 4, "learned")
    assert ([one.uuid for one in found], problem) == (["GPU-2", "GPU-1", "GPU-3", "GPU-0"], None)
    assert found[0] == roster.Board("GPU-2", BUSES[0], "S2", "learned")


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (reading(board(0), board(1), board(2)), "3 of 4 boards answer"),
        (reading(*(board(n) for n in range(3)), board(3, uuid=None)), "not every board tells its UUID"),
        (reading(*(board(n) for n in range(3)), board(3, uuid="GPU-0")), "not every board tells its UUID"),
        (reading(*(board(n) for n in range(3)), board(3, lost=True)), "not every board tells its UUID"),
        ({"t": 1.0, "error": "hung"}, "0 of 4 boards answer"),
        ({"t": 1.0, "gpus": None}, "0 of 4 boards answer"),
    ],
)
def test_nothing_is_learned_from_less(what: dict[str, Any], why: str) -> None:
    assert roster.learn(what, 4, "learned") == ((), why)


@given(st.sets(st.integers(0, 3), min_size=1), st.permutations(range(4)))
def test_whichever_boards_answer_from_wherever_each_is_its_own_slot(here: set[int], places: list[int]) -> None:
    turned = roster.by_slot(reading(*(board(n, places[n]) for n in here)), ROSTER)["gpus"]
    assert [gpu["index"] for gpu in turned] == [0, 1, 2, 3]
    for slot, gpu in enumerate(turned):
        assert gpu.get("margin_celsius") == (30 + slot if slot in here else None)
        assert gpu["lost"] == (slot not in here)


def test_an_xid_is_that_of_the_slot_and_nobodys_stays_nobodys() -> None:
    events: list[dict[str, Any]] = [{"gpu": 1, "xid": 79}, {"gpu": None, "xid": 48}]
    turned = roster.by_slot(reading(board(0), board(2), board(3), xids=events), ROSTER)
    assert [(event["gpu"], event["xid"]) for event in turned["xids"]] == [(2, 79), (None, 48)]


def test_a_replaced_board_leaves_its_slot_out_and_is_called_by_name() -> None:
    stranger = board(1, uuid="GPU-new", serial="S9")
    turned = roster.by_slot(reading(board(0), stranger, board(2), board(3)), ROSTER)
    assert [gpu["lost"] for gpu in turned["gpus"]] == [False, True, False, False]
    ((key, text),) = turned["roster"]
    assert key == "board GPU-new"
    assert "serial S9" in text
    assert "slots without a board: 1" in text


def test_two_boards_that_changed_places_keep_their_slots_and_are_called() -> None:
    turned = roster.by_slot(reading(board(0, 2), board(1), board(2, 0), board(3)), ROSTER)
    assert [gpu["nvml_index"] for gpu in turned["gpus"]] == [2, 1, 0, 3]
    ((key, text),) = turned["roster"]
    assert key == "boards moved"
    assert f"GPU 0 ({BUSES[0]} → {BUSES[2]})" in text


def test_a_board_that_does_not_say_who_it_is_makes_the_empty_slot_unreadable_not_lost() -> None:
    turned = roster.by_slot(reading(board(0), board(1, uuid=None), board(2), board(3)), ROSTER)
    assert (turned["gpus"][1]["lost"], turned["gpus"][1].get("margin_celsius")) == (False, None)


def test_another_machines_boards_are_no_reading_of_this_one() -> None:
    turned = roster.by_slot(reading(*(board(n, uuid=f"GPU-x{n}") for n in range(4))), ROSTER)
    assert (turned["gpus"], turned["roster"][0][0]) == ([], "boards: unknown")


@pytest.mark.parametrize("what", [{"t": 1.0, "error": "hung"}, {"t": 1.0, "gpus": []}, {"t": 1.0}])
def test_what_is_no_reading_is_passed_on(what: dict[str, Any]) -> None:
    assert roster.by_slot(what, ROSTER) == what


def test_declared_boards_keep_where_they_were_seen() -> None:
    found = roster.declared(["GPU-9", "GPU-1"], ROSTER)
    assert [(one.uuid, one.bus_id, one.source) for one in found] == [
        ("GPU-9", "", "declared"),
        ("GPU-1", BUSES[1], "declared"),
    ]
    assert roster.changed_slots(ROSTER, found) == [0]


# --- what an engine may see ------------------------------------------------------------------------------------------


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    (tmp_path / "healthy").mkdir()
    (tmp_path / "healthy" / "llama.env").write_text("CUDA_VISIBLE_DEVICES=2,3\nMODEL_NAME=llama\n")
    (tmp_path / "current").symlink_to("healthy")
    boards = [one.as_dict() for one in ROSTER]
    (tmp_path / "state.json").write_text(json.dumps({"roster": boards}))
    return tmp_path


def devices(folder: Path, what: dict[str, Any], by: str = "index") -> str:
    engine_gpus.resolve("llama", by, folder, folder / "state.json", lambda: what, folder / "run")
    return (folder / "run" / "llama.env").read_text().split("CUDA_VISIBLE_DEVICES=")[1].strip()


def test_an_engine_gets_its_boards_whatever_their_numbers_are_now(placed: Path) -> None:
    assert devices(placed, WHOLE) == "2,3"
    assert devices(placed, reading(board(1), board(2), board(3))) == "1,2"
    assert devices(placed, reading(board(2), board(3)), "uuid") == "GPU-2,GPU-3"


@pytest.mark.parametrize("what", [reading(board(0), board(1), board(2)), {"t": 1.0, "error": "hung"}])
def test_an_engine_does_not_start_on_another_board_for_want_of_its_own(placed: Path, what: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="does not answer"):
        devices(placed, what)
    assert not (placed / "run").exists()


def test_before_the_guard_knows_any_board_a_slot_is_its_number(placed: Path) -> None:
    (placed / "state.json").unlink()
    assert devices(placed, {"t": 1.0, "error": "not asked"}) == "2,3"


@pytest.mark.parametrize("text", ["", "{", '{"roster": [{"x": 1}]}'])
def test_a_damaged_state_starts_nothing(placed: Path, text: str) -> None:
    (placed / "state.json").write_text(text)
    with pytest.raises(Refused, match=r"state\.json"):
        devices(placed, WHOLE)
