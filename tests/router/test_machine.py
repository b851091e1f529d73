"""Whose GPUs and which engine version a record names: the guard's word now, never half of it."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_cutover.router.machine import Identity, Machine, machine_of
from gpu_cutover.router.table import Leg

CHAT = Leg("http://e", "/v1", "own-chat", gpus=(1, 3))
DOCUMENT: dict[str, Any] = {
    "gpu_uuids": {"0": "GPU-a", "1": "GPU-b", "3": "GPU-d"},
    "engines": {"own-chat": {"engine_version": "0.25.1"}, "own-audio": {"engine_version": ""}},
}


def test_a_leg_is_named_by_the_gpus_of_its_own_placement() -> None:
    machine = machine_of(DOCUMENT, Machine())
    assert machine.identity(CHAT) == Identity("0.25.1", ("GPU-b", "GPU-d"))
    assert machine.identity(Leg("http://e", "/v1", "own-chat", gpus=(0,))).gpu_uuids == ("GPU-a",)


def test_one_gpu_without_a_name_makes_all_unknown() -> None:
    assert machine_of(DOCUMENT, Machine()).identity(Leg("http://e", "/v1", "own-chat", gpus=(1, 2))).gpu_uuids == ()


def test_what_runs_counts_and_the_table_only_where_nobody_tells() -> None:
    leg = Leg("http://e", "/v1", "own-chat", gpus=(1,), engine_version="0.1", gpu_uuids=("GPU-planned",))
    assert Machine().identity(leg) == Identity("0.1", ("GPU-planned",))
    assert machine_of(DOCUMENT, Machine()).identity(leg) == Identity("0.25.1", ("GPU-b",))


def test_a_cloud_leg_has_neither() -> None:
    assert machine_of(DOCUMENT, Machine()).identity(Leg("http://c", "/v1", "gpt-4o")) == Identity("", ())


def test_an_exchanged_board_and_an_upgraded_engine_are_named_at_once_and_a_stopped_one_keeps_its_version() -> None:
    before = machine_of(DOCUMENT, Machine())
    assert machine_of(DOCUMENT, before) is before
    later = {"gpu_uuids": {"1": "GPU-new", "3": "GPU-d"}, "engines": {"own-chat": {"engine_version": "0.26.0"}}}
    after = machine_of(later, before)
    assert after.identity(CHAT) == Identity("0.26.0", ("GPU-new", "GPU-d"))
    down = machine_of({**later, "engines": {"own-chat": {"engine_version": ""}}}, after)
    assert down.identity(CHAT).engine_version == "0.26.0"


@pytest.mark.parametrize(
    "wrong", [{"gpu_uuids": []}, {"gpu_uuids": {"x": "GPU"}}, {"engines": {"own-chat": None}}, {"engines": 5}]
)
def test_a_document_that_makes_no_sense_changes_nothing(wrong: dict[str, Any]) -> None:
    before = machine_of(DOCUMENT, Machine())
    assert machine_of(wrong, before) is before
