"""Changes of a route table: states belong to the gateway, nothing illegal is written, nobody sensitive is sent out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.errors import InputError
from gpu_cutover.router import change
from gpu_cutover.router.table import ROUTES, parse_table

from .tables import table, tenant

TENANTS = {"zam": tenant(chat="onprem", audio="mirror"), "new": tenant(chat="off")}


def test_a_second_installation_keeps_states_and_refreshes_legs() -> None:
    existing = table(tenants=TENANTS, rolled_back=("own-chat",)) | {"version": 9}
    planned = table(onprem="http://127.0.0.1:9", tenants={"zam": tenant(chat="cloud", audio="cloud")})
    merged = change.installed(existing, planned)
    assert merged["tenants"] == {"zam": TENANTS["zam"]}
    assert merged["onprem"]["healthy"]["chat"]["url"] == "http://127.0.0.1:9"
    assert (merged["version"], merged["models_rolled_back"]) == (9, ["own-chat"])


def test_the_reverse_shadow_is_the_plans_and_every_change_keeps_it() -> None:
    planned = table(tenants=TENANTS) | {"reverse_shadow": {"share": 0.05}}
    installed = change.installed(table(tenants=TENANTS), planned)
    for changed in (
        installed,
        change.with_states(installed, {"zam": {"chat": "cloud"}}, "t"),
        change.rolled_back(installed, None, None, True, {}, []),
        change.with_model(installed, "own-chat", True, "t"),
        change.with_override(installed, "own-chat", "open", "t"),
        change.adopted(installed, table(tenants={"zam": {**TENANTS["zam"], "changed": "later"}})),
    ):
        stamped = change.stamped(installed, changed, "why", "now")
        assert parse_table(stamped, "t").reverse_share == 0.05
    assert "reverse_shadow" not in change.installed(installed, table(tenants=TENANTS))


def test_a_tenant_that_became_cloud_only_gets_the_plans_states() -> None:
    merged = change.installed(table(tenants=TENANTS), table(tenants={"zam": tenant("cloud_only", chat="cloud")}))
    assert merged["tenants"]["zam"]["routes"] == {"chat": "cloud"}


def test_a_changed_table_is_stamped_and_so_are_the_tenants_that_moved() -> None:
    before = table(tenants=TENANTS)
    after = change.stamped(before, change.with_states(before, {"zam": {"audio": "onprem"}}, "t"), "why", "now")
    assert (after["version"], after["reason"], after["changed"]) == (2, "why", "now")
    assert after["tenants"]["zam"]["changed"] == "now"
    assert "changed" not in after["tenants"]["new"]
    assert change.stamped(before, before, "why", "now") is before


def test_no_mutation_touches_the_table_it_was_given() -> None:
    raw = table(tenants=TENANTS)
    whole = json.dumps(raw, sort_keys=True)
    change.with_states(raw, {"zam": {"chat": "cloud"}}, "t")
    change.rolled_back(raw, None, None, True, {}, [])
    change.with_model(raw, "own-chat", True, "t")
    change.with_override(raw, "own-chat", "open", "t")
    change.stamped(raw, change.with_states(raw, {"zam": {"chat": "cloud"}}, "t"), "why", "now")
    assert json.dumps(raw, sort_keys=True) == whole


def test_an_override_is_held_given_back_and_survives_an_installation() -> None:
    held = change.with_override(table(tenants=TENANTS), "own-chat", "open", "t")
    assert held["overrides"] == {"own-chat": "open"}
    assert change.installed(held, table(tenants=TENANTS))["overrides"] == {"own-chat": "open"}
    assert "overrides" not in change.with_override(held, "own-chat", "auto", "t")
    for model, word in (("own-chat", "ajar"), ("no-such-model", "open")):
        with pytest.raises(InputError):
            change.with_override(held, model, word, "t")


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
    kept: list[change.Kept] = []
    raw = change.rolled_back(table(tenants=TENANTS), "zam", None, False, {"chat": "no word", "audio": "none"}, kept)
    assert raw["tenants"]["zam"]["routes"] == {"chat": "onprem", "audio": "cloud"}
    assert [str(one) for one in kept] == ["zam/chat stays onprem: no word"]


def test_one_route_of_everybody_goes_back_and_the_others_stay() -> None:
    tenants = {"zam": tenant(chat="onprem", audio="onprem"), "two": tenant(chat="mirror", audio="onprem")}
    after = change.rolled_back(table(tenants=tenants), None, "chat", False, {}, [])["tenants"]
    assert {name: one["routes"] for name, one in after.items()} == {
        "zam": {"chat": "cloud", "audio": "onprem"},
        "two": {"chat": "cloud", "audio": "onprem"},
    }


def test_moved_names_only_what_differs() -> None:
    before = {"a": {"chat": "onprem", "audio": "cloud"}, "b": {"chat": "cloud"}}
    after = {"a": {"chat": "cloud", "audio": "cloud"}, "b": {"chat": "cloud"}}
    assert change.moved(before, after) == ({"a": {"chat": "onprem"}}, {"a": {"chat": "cloud"}})


@given(
    states=st.dictionaries(st.sampled_from(ROUTES), st.sampled_from(["onprem", "off"])),
    accept_off=st.booleans(),
    silent=st.sets(st.sampled_from(ROUTES)),
)
def test_no_rollback_ever_sends_a_sensitive_tenant_to_the_cloud(
    states: dict[str, str], accept_off: bool, silent: set[str]
) -> None:
    raw = table("sealed", tenants={"s": tenant("sensitive", **states)})
    after = change.rolled_back(raw, None, None, accept_off, dict.fromkeys(silent, "why"), [])["tenants"]["s"]["routes"]
    assert set(after.values()) <= {"onprem", "off"}
    assert accept_off or after == states
