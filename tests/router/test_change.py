"""Changes of a route table: states belong to the gateway, nothing illegal is written, nobody sensitive is sent out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.errors import InputError
from gpu_cutover.router import change
from gpu_cutover.router.table import ROUTES

from .tables import table, tenant

TENANTS = {"zam": tenant(chat="onprem", audio="mirror"), "new": tenant(chat="off")}


def test_a_second_installation_keeps_states_and_refreshes_legs() -> None:
    existing = table(tenants=TENANTS, rolled_back=("own-chat",)) | {"version": 9}
    planned = table(onprem="http://127.0.0.1:9", tenants={"zam": tenant(chat="cloud", audio="cloud")})
    merged = change.installed(existing, planned)
    assert merged["tenants"] == {"zam": TENANTS["zam"]}
    assert merged["onprem"]["healthy"]["chat"]["url"] == "http://127.0.0.1:9"
    assert (merged["version"], merged["models_rolled_back"]) == (9, ["own-chat"])


def test_a_tenant_that_became_cloud_only_gets_the_plans_states() -> None:
    merged = change.installed(table(tenants=TENANTS), table(tenants={"zam": tenant("cloud_only", chat="cloud")}))
    assert merged["tenants"]["zam"]["routes"] == {"chat": "cloud"}


def test_a_change_is_stamped_read_back_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hybrid.json"
    path.write_text(json.dumps(table(tenants=TENANTS)))

    def mutate(raw: Any) -> Any:
        return change.with_states(raw, {"zam": {"audio": "onprem"}}, "t")

    first = change.change(path, mutate, "test", "2026-12-30T10:00:00.000Z")
    assert first.changed
    assert json.loads(path.read_text())["version"] == 2
    assert json.loads(path.read_text())["tenants"]["zam"]["changed"] == "2026-12-30T10:00:00.000Z"
    assert "changed" not in json.loads(path.read_text())["tenants"]["new"]
    assert not change.change(path, mutate, "test", "2026-12-30T11:00:00.000Z").changed


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hybrid.json"
    predicted = change.change(path, lambda _raw: table(), "test", "now", write=False)
    assert predicted.changed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["cloud", "mirror"])
def test_an_illegal_state_is_refused_and_the_file_stays(tmp_path: Path, state: str) -> None:
    path = tmp_path / "sealed.json"
    path.write_text(json.dumps(table("sealed", tenants={"s": tenant("sensitive", chat="onprem")})))
    before = path.read_bytes()
    with pytest.raises(InputError, match=state):
        change.change(path, lambda raw: change.with_states(raw or {}, {"s": {"chat": state}}, "t"), "test", "now")
    assert path.read_bytes() == before


def test_unknown_tenants_routes_and_models_are_told() -> None:
    raw = table(tenants=TENANTS)
    for wanted in ({"nobody": {"chat": "off"}}, {"zam": {"vision": "off"}}):
        with pytest.raises(InputError):
            change.with_states(raw, wanted, "t")
    with pytest.raises(InputError):
        change.with_model(raw, "no-such-model", True, "t")


def test_only_from_leaves_whoever_is_further() -> None:
    raw = change.with_states(table(tenants=TENANTS), {"zam": {"chat": "mirror"}}, "t", only_from=["cloud"])
    assert raw["tenants"]["zam"]["routes"]["chat"] == "onprem"


def test_a_rolled_back_model_counts_as_where_its_requests_go() -> None:
    assert change.states(table(tenants=TENANTS, rolled_back=("own-chat",)))["zam"]["chat"] == "cloud"
    sealed = table("sealed", tenants={"s": tenant("sensitive", chat="onprem")}, rolled_back=("own-chat",))
    assert change.states(sealed)["s"]["chat"] == "off"


def test_a_route_whose_cloud_does_not_answer_stays_and_is_told() -> None:
    kept: list[str] = []
    raw = change.rolled_back(table(tenants=TENANTS), "zam", False, [], kept)
    assert raw["tenants"]["zam"]["routes"] == {"chat": "onprem", "audio": "cloud"}
    assert kept == ["zam/chat stays onprem"]


@given(
    states=st.dictionaries(st.sampled_from(ROUTES), st.sampled_from(["onprem", "off"])),
    accept_off=st.booleans(),
    ready=st.sets(st.sampled_from(ROUTES)),
)
def test_no_rollback_ever_sends_a_sensitive_tenant_to_the_cloud(
    states: dict[str, str], accept_off: bool, ready: set[str]
) -> None:
    raw = table("sealed", tenants={"s": tenant("sensitive", **states)})
    after = change.rolled_back(raw, None, accept_off, ready, [])["tenants"]["s"]["routes"]
    assert set(after.values()) <= {"onprem", "off"}
    assert accept_off or after == states
