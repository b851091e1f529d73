"""`site_plan`: what follows from a site, in the shapes that docs/architecture.md names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.guard.placement import difference, parse_plan, render, wanted_digests
from gpu_cutover.planning.derive import derive, engine_speed
from gpu_cutover.router.table import parse_table
from gpu_cutover.site import Site, load_site

INVENTORY = Path(__file__).parents[2] / "inventory"
SITES = ["twin", "example-l40s", "example-h100"]


def site(name: str, targets: str = "site") -> Site:
    return load_site(INVENTORY / name, targets)


def plan(name: str, targets: str = "site") -> dict[str, Any]:
    return derive(site(name, targets))


def arguments(env: dict[str, str]) -> dict[str, str]:
    words = shlex.split(env["VLLM_ARGS"])
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("name", SITES)
def test_the_plan_is_plain_data_and_the_same_every_time(name: str) -> None:
    first = plan(name)
    assert json.loads(json.dumps(first)) == first
    assert first == plan(name)


@pytest.mark.parametrize("name", SITES)
def test_the_routers_accept_the_initial_tables(name: str) -> None:
    for pool, table in plan(name)["route_tables"].items():
        parsed = parse_table(json.loads(json.dumps(table)), "table")
        assert parsed.pool == pool
        assert parsed.placement == "healthy"


@pytest.mark.parametrize("name", SITES)
def test_initial_states_follow_the_policy(name: str) -> None:
    found = plan(name)
    for table in found["route_tables"].values():
        for tenant, entry in table["tenants"].items():
            states = set(entry["routes"].values())
            synthetic = found["tenants"][tenant]["synthetic"]
            assert states == ({"off"} if synthetic or entry["policy"] == "sensitive" else {"cloud"})


@pytest.mark.parametrize(("name", "share"), [("twin", 0.05), ("example-h100", 0.0)])
def test_only_the_hybrid_table_asks_the_cloud_again_and_only_where_the_site_says_so(name: str, share: float) -> None:
    tables = plan(name)["route_tables"]
    assert parse_table(tables["hybrid"], "table").reverse_share == share
    assert "reverse_shadow" not in tables["sealed"]


@pytest.mark.parametrize("name", SITES)
def test_the_sealed_pool_knows_no_cloud_and_only_sensitive_tenants(name: str) -> None:
    found = plan(name)
    sealed = found["route_tables"]["sealed"]
    assert "cloud" not in sealed
    assert "openai" not in json.dumps(sealed)
    assert {entry["policy"] for entry in sealed["tenants"].values()} == {"sensitive"}
    pools = {tenant["name"]: tenant["pool"] for tenant in found["edge"]["tenants"]}
    assert {tenant for tenant, pool in pools.items() if pool == "sealed"} == set(sealed["tenants"])


@pytest.mark.parametrize("name", SITES)
def test_no_placement_gives_more_of_a_gpu_than_vllm_may_have(name: str) -> None:
    for placement in plan(name)["placements"].values():
        for gpu in range(4):
            shares = [
                float(arguments(engine["env"])["--gpu-memory-utilization"])
                for engine in placement["engines"].values()
                if gpu in engine["gpus"] and "VLLM_ARGS" in engine["env"]
            ]
            assert sum(shares) <= 0.92 + 1e-9


@pytest.mark.parametrize("name", SITES)
def test_every_engine_has_its_own_port_and_no_lost_gpu(name: str) -> None:
    found = plan(name)
    ports = [engine["port"] for engine in found["engines"].values()]
    assert len(set(ports)) == len(ports)
    for placement, entry in found["placements"].items():
        used = {gpu for engine in entry["engines"].values() for gpu in engine["gpus"]}
        assert placement == "healthy" or int(placement[-1]) not in used


def test_the_environment_of_an_engine() -> None:
    env = plan("twin")["placements"]["healthy"]["engines"]["llama-3.1-70b-instruct"]["env"]
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert env["ENGINE_PORT"] == "8102"
    assert env["MODEL_DIR"].startswith("/srv/models/llama-3.1-70b-instruct/")
    assert arguments(env) == {
        "--host": "10.87.0.21",
        "--port": "8102",
        "--served-model-name": "llama-3.1-70b-instruct",
        "--tensor-parallel-size": "2",
        "--gpu-memory-utilization": "0.920",
        "--max-model-len": "8192",
        "--kv-cache-dtype": "fp8",
    }


def test_ranking_runs_on_vllm_pooling_and_embedding_on_triton_through_litellm() -> None:
    found = plan("twin")
    engines = found["placements"]["healthy"]["engines"]
    assert arguments(engines["colbertv2"]["env"])["--runner"] == "pooling"
    assert found["engines"]["bge-m3"]["unit"] == "triton@bge-m3.service"
    legs = found["route_tables"]["hybrid"]["onprem"]["healthy"]
    assert legs["embed"]["url"] == "http://127.0.0.1:4001"
    assert legs["rerank"]["url"] == "http://10.87.0.21:8101"
    assert found["litellm"]["onprem"][0]["litellm_params"] == {
        "model": "triton/bge-m3",
        "api_base": "http://10.87.0.21:8000/v2/models/bge-m3/infer",
    }


def test_litellm_has_each_cloud_model_once_and_no_key_in_it() -> None:
    entries = plan("twin")["litellm"]["cloud"]
    names = [entry["model_name"] for entry in entries]
    assert len(set(names)) == len(names)
    table = plan("twin")["route_tables"]["hybrid"]["cloud"]
    assert {leg["model"] for leg in table.values()} == set(names)
    assert all(entry["litellm_params"]["api_key"].startswith("os.environ/") for entry in entries)


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("gpu", range(4))
def test_with_a_gpu_lost_every_route_is_served_and_nothing_idle_restarts(name: str, gpu: int) -> None:
    found = plan(name)
    derated = found["placements"][f"without-gpu{gpu}"]
    assert derated["off"] == []
    assert set(derated["degraded"]) == {"reason"}
    placements = parse_plan(render(found["placements"], found["engines"], "10.0.0.1")["plan.json"])
    running: dict[str, str | None] = dict(wanted_digests(placements["healthy"]))
    change = difference(wanted_digests(placements[f"without-gpu{gpu}"]), running)
    unmoved = {
        found["engines"][model]["unit"]
        for model, engine in found["placements"]["healthy"]["engines"].items()
        if derated["engines"].get(model, {}).get("gpus") == engine["gpus"]
    }
    assert set(change.keep) == unmoved
    assert unmoved


def test_a_route_without_alias_is_off_and_says_why() -> None:
    whole = site("twin")
    spec = whole.spec.model_copy(update={"aliases": {}})
    found = derive(Site(**{**whole.__dict__, "spec": spec}))
    lost = found["placements"]["without-gpu1"]
    assert lost["off"] == ["reason"]
    assert lost["routes"]["reason"] is None
    assert "no GPU left" in lost["degraded"]["reason"]
    assert "reason" not in found["route_tables"]["hybrid"]["onprem"]["without-gpu1"]


@pytest.mark.parametrize("name", SITES)
def test_accepted_targets_are_not_beyond_physics(name: str) -> None:
    for target in plan(name)["targets"]:
        wanted = "at risk" if target["name"] == "availability" else "met"  # one host: nothing in a site can change that
        assert target["verdict"] == wanted, target
        if target["accepted"] != target["plan"]:
            assert target["reason"] and target["by"]


@pytest.mark.parametrize("name", SITES)
def test_the_plans_two_seconds_for_a_note_are_impossible(name: str) -> None:
    targets = {target["name"]: target for target in plan(name, "plan")["targets"]}
    assert targets["soap_p95_s"]["verdict"] == "impossible"
    assert targets["soap_p95_s"]["accepted"] == 2.0
    assert targets["soap_p95_s"]["floor"] > 2.0


def test_ignoring_restatements_is_another_digest() -> None:
    assert plan("twin")["digest"] != plan("twin", "plan")["digest"]


@pytest.mark.parametrize("name", SITES)
def test_four_supplies_on_two_feeds_hold(name: str) -> None:
    power = plan(name)["power"]
    assert power["usable_redundant_w"] >= power["dc_w"]


@pytest.mark.parametrize("name", SITES)
def test_there_is_a_speed_for_every_engine(name: str) -> None:
    speeds = engine_speed(site(name))
    assert set(speeds) == set(plan(name)["placements"]["healthy"]["engines"])
    assert 0.01 < speeds["llama-3.1-70b-instruct"]["itl_s"] < 0.05
    assert speeds["whisper-large-v3"]["rtf"] > 0


def test_tenants_carry_the_state_their_cutover_ends_in() -> None:
    tenants = plan("twin")["tenants"]
    assert set(tenants["klinik-harmoni"]["declared"].values()) == {"cloud"}
    assert set(tenants["klinik-amanah"]["declared"].values()) == {"onprem"}
    assert tenants["doc-zam"]["cn"] == "doc-zam.tenants.clinic.test"
