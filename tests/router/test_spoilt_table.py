"""Somebody wrote a route table by hand, and wrongly: routers go on, and so does a rollback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.router import orders
from gpu_cutover.router.files import TableFile
from gpu_cutover.router.orders import carry_out

from .gateway import Gateway, order, running_gateway
from .tables import table, tenant


def torn(raw: dict[str, Any]) -> str:
    return json.dumps(raw)[:200]


def illegal(raw: dict[str, Any]) -> str:
    raw["tenants"]["far"]["routes"]["chat"] = "onprem"
    return json.dumps(raw)


def hollow(_raw: dict[str, Any]) -> str:
    return "{}"


@pytest.fixture(params=[torn, illegal, hollow])
def spoilt(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose hybrid table somebody spoilt after an order had written it."""
    with running_gateway(tmp_path / "gw") as gateway:
        carry_out(order("set", states={"zam": {"chat": "mirror"}}), gateway.place)
        path = gateway.place.table("hybrid")
        good = json.loads(path.read_bytes())
        path.write_text(request.param(good))
        for web in gateway.routers.values():  # the real ones go on with the last good table
            web.table_file = None
        yield gateway


def test_a_rollback_goes_on_from_the_table_that_was_last_ordered_and_says_so(spoilt: Gateway) -> None:
    told = carry_out(order(), spoilt.place)
    assert spoilt.states()["zam"] == {"chat": "cloud", "audio": "cloud"}
    assert told["before"]["zam"] == {"chat": "mirror", "audio": "onprem"}
    assert "gone on from the table that was last ordered" in told["problems"][0]
    assert json.loads(spoilt.place.table("hybrid").read_bytes())["version"] == 3


def test_a_model_goes_out_as_well(spoilt: Gateway) -> None:
    carry_out(order("model", model="own-audio"), spoilt.place)
    assert json.loads(spoilt.place.table("hybrid").read_bytes())["models_rolled_back"] == ["own-audio"]


def test_anything_else_is_refused_and_leaves_the_file_to_whoever_spoilt_it(spoilt: Gateway) -> None:
    before = spoilt.place.table("hybrid").read_bytes()
    with pytest.raises(InputError):
        carry_out(order("set", states={"zam": {"audio": "mirror"}}), spoilt.place)
    assert spoilt.place.table("hybrid").read_bytes() == before


def test_a_router_that_starts_with_it_goes_on_from_the_table_last_ordered(spoilt: Gateway) -> None:
    started = TableFile(spoilt.place.table("hybrid"))
    assert started.get().tenants["zam"].routes["chat"] == "mirror"
    assert started.problem is not None
    carry_out(order(), spoilt.place)
    assert started.get().tenants["zam"].routes["chat"] == "cloud"
    assert started.problem is None


def test_without_a_table_that_was_ever_ordered_a_spoilt_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "hybrid.json"
    path.write_text(torn(table(tenants={"zam": tenant(chat="mirror")})))
    with pytest.raises(InputError, match="is not JSON"):
        TableFile(path)


def test_a_disk_that_takes_no_second_copy_keeps_nobody_from_the_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    orders.write_whole(tmp_path / "hybrid.json", table())
    assert TableFile(tmp_path / "hybrid.json").get().version == 1
