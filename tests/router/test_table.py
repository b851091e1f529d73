"""The route table: an illegal one never becomes a `Table`, and says what is wrong with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.errors import InputError
from gpu_cutover.router.table import ROUTES, parse_table

from .tables import table, tenant


def test_a_right_table_is_taken_as_it_is() -> None:
    parsed = parse_table(table(tenants={"zam": tenant(chat="mirror")}), "t.json")
    assert parsed.tenants["zam"].routes == {"chat": "mirror"}
    assert parsed.cloud["chat"].model == "cloud-chat"
    assert parsed.onprem["healthy"]["chat"].gpus == (0,)


def test_what_a_table_may_say_beside_it() -> None:
    data = table(tenants={"zam": tenant(chat="onprem") | {"synthetic": True, "changed": "2026-12-30T10:00:00Z"}})
    data |= {"overrides": {"own-chat": "open"}, "reverse_shadow": {"share": 0.05}}
    data["onprem"]["healthy"]["chat"] |= {"engine": "vllm", "engine_version": "0.25.1", "gpu_uuids": ["GPU-1"]}
    parsed = parse_table(data, "t.json")
    assert (parsed.overrides, parsed.reverse_share) == ({"own-chat": "open"}, 0.05)
    assert parsed.tenants["zam"].synthetic
    leg = parsed.onprem["healthy"]["chat"]
    assert (leg.engine, leg.engine_version, leg.gpu_uuids) == ("vllm", "0.25.1", ("GPU-1",))
    plain = parse_table(table(tenants={"zam": tenant(chat="onprem")}), "t.json")
    assert (plain.overrides, plain.reverse_share, plain.tenants["zam"].synthetic) == ({}, 0.0, False)


def test_ten_thousand_tenants_are_read_while_requests_wait() -> None:
    routes = dict.fromkeys(ROUTES, "onprem")
    text = json.dumps(table(tenants={f"tenant-{number}": tenant(**routes) for number in range(10_000)}))
    best = min(_seconds(text) for _ in range(5))
    assert best < 0.2  # 0.05 on an idle machine: `make bench`


def _seconds(text: str) -> float:
    began = time.process_time()
    assert len(parse_table(json.loads(text), "t.json").tenants) == 10_000
    return time.process_time() - began


Mutation = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Mutation, str]] = {
    "sensitive on the cloud": (
        lambda t: t.update(pool="sealed", tenants={"s": tenant("sensitive", chat="cloud")}),
        "cloud",
    ),
    "sensitive in the hybrid pool": (lambda t: t["tenants"].update(s=tenant("sensitive", chat="onprem")), "policy"),
    "cloud legs in a sealed table": (lambda t: t.update(pool="sealed"), "cloud"),
    "cloud_only on-prem": (lambda t: t["tenants"].update(s=tenant("cloud_only", chat="onprem")), "routes.chat"),
    "unknown state": (lambda t: t["tenants"].update(s=tenant(chat="onperm")), "routes.chat"),
    "unknown route": (lambda t: t["tenants"].update(s=tenant(chatt="onprem")), "routes.chatt"),
    "unknown key": (lambda t: t.update(colour="red"), "colour"),
    "placement without legs": (lambda t: t.update(placement="without-gpu9"), "placement"),
    "error rate of 5": (lambda t: t["fallback"].update(error_rate=5), "error_rate"),
    "budget that is no number": (lambda t: t["fallback"].update(first_byte_s="10"), "first_byte_s"),
    "budget that is no finite number": (lambda t: t["fallback"].update(first_byte_s=float("nan")), "first_byte_s"),
    "leg without model": (lambda t: t["cloud"]["chat"].pop("model"), "cloud.chat.model"),
    "a word no breaker knows": (lambda t: t.update(overrides={"own-chat": "auto"}), "overrides.own-chat"),
    "a share of 2": (lambda t: t.update(reverse_shadow={"share": 2}), "reverse_shadow.share"),
    "reverse shadow of a sealed pool": (
        lambda t: (t.pop("cloud"), t.update(pool="sealed", reverse_shadow={"share": 0.1})),
        "reverse_shadow",
    ),
    "GPU names that are none": (lambda t: t["cloud"]["chat"].update(gpu_uuids=[1]), "cloud.chat.gpu_uuids"),
    "synthetic by a word": (lambda t: t["tenants"].update(s=tenant() | {"synthetic": "yes"}), "tenants.s.synthetic"),
    "tenant that is none": (lambda t: t["tenants"].update(s=["standard"]), "tenants.s"),
    "state that is a list": (lambda t: t["tenants"].update(s=tenant(chat=["cloud"])), "tenants.s.routes.chat"),
    "another schema": (lambda t: t.update(schema=2), "schema"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_refused_naming_the_key(name: str) -> None:
    mutate, key = WRONG[name]
    data = table()
    mutate(data)
    with pytest.raises(InputError) as refusal:
        parse_table(data, "t.json")
    assert key in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(key=st.sampled_from([*table(), "extra"]), value=JSON)
def test_any_value_anywhere_is_a_table_or_an_input_error(key: str, value: Any) -> None:
    try:
        parse_table({**table(tenants={"zam": tenant(chat="cloud")}), key: value}, "t.json")
    except InputError as error:
        assert error.key
