"""Day 4's gate: every door tried, every sealed thing sealed; a host that was not read holds the day."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpu_cutover.gates.check import Verdict, verdict_of
from gpu_cutover.gates.day04 import checks, memory_share

MODEL = "llama-3.1-70b-instruct"
PLAN: dict[str, Any] = {
    "hosts": {"gpu": ["gpu1"], "gateway": ["gw1"]},
    "engines": {
        MODEL: {"unit": f"vllm@{MODEL}.service", "engine": "vllm"},
        "bge-m3": {"unit": "triton@bge-m3.service", "engine": "triton"},
    },
    "placements": {
        "healthy": {
            "engines": {
                MODEL: {"gpus": [2, 3], "env": {"VLLM_ARGS": "--port 8103 --gpu-memory-utilization 0.920"}},
                "bge-m3": {"gpus": [0], "env": {}},
            }
        },
        "without-gpu0": {
            "engines": {MODEL: {"gpus": [2, 3], "env": {"VLLM_ARGS": "--gpu-memory-utilization 0.900 --port 1"}}}
        },
    },
    "route_tables": {"hybrid": {}, "sealed": {}},
}
SEALED = {
    "secrets": {"names": []},
    "to_cloud": "refused",
    "to_cloud_litellm": "403",
    "sandbox": "0.0.0.0/0 ::/0",
}
READINGS: dict[str, Any] = {
    "stack": {
        "gpu1": {
            "bundle": "b" * 64,
            "engines": {
                MODEL: {"model_id": MODEL, "version": "0.20.2", "waited_s": 0.1},
                "bge-m3": {"model_id": "bge-m3", "version": "2.51.0", "waited_s": 0.1},
            },
            "placement": {"name": "healthy", "files": 3, "differing": []},
            "units": {
                f"vllm@{MODEL}.service": {"UnitFileState": "enabled"},
                "triton@bge-m3.service": {"UnitFileState": "enabled"},
            },
        },
        "gw1": {
            "bundle": "b" * 64,
            "certificate_days": 396.9,
            "edge": {
                "good": 503,
                "no_certificate": "refused",
                "foreign_authority": "refused",
                "unknown_path": 404,
                "get": 405,
            },
            "litellm": {"cloud": "ready", "onprem": "ready"},
            "open_to_cloud": "connected",
            "sealed": {"litellm@onprem.service": SEALED, "gpu-cutover-router@sealed.service": SEALED},
            "configs": {"key_file_absent": True, "litellm": {"foreign": []}, "router": {"foreign": []}},
            "units": {"haproxy.service": {"ActiveState": "active", "UnitFileState": "enabled"}},
        },
    },
    "router": {"gw1": {"pools": {"hybrid": {"status": "ok"}, "sealed": {"status": "ok"}}}},
}


def judged(path: tuple[str, ...], value: object, plan: dict[str, Any] = PLAN) -> tuple[Verdict, list[str]]:
    """The verdict and the ids that did not pass, with one figure replaced (`...` removes it)."""
    readings = copy.deepcopy(READINGS)
    place = readings
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    elif path:
        place[path[-1]] = value
    found = checks(plan, readings)
    return verdict_of(found), [check.id for check in found if check.status != "pass"]


def test_a_stack_as_planned_is_promoted() -> None:
    assert judged((), None) == (Verdict.PROMOTE, [])


@pytest.mark.parametrize(
    ("path", "value", "verdict", "check"),
    [
        (("stack", "gw1"), ..., "hold", "stack.gateway"),
        (("stack", "gpu1"), ..., "hold", "stack.gpu_host"),
        (("stack", "gpu1"), {"error": "hung"}, "hold", "stack.gpu_host"),
        (("stack", "gpu1", "engines", MODEL, "model_id"), "another", "fail", f"engine.{MODEL}.model"),
        (("stack", "gpu1", "engines", MODEL), {"error": "refused"}, "hold", f"engine.{MODEL}.model"),
        (("stack", "gpu1", "engines", "bge-m3", "version"), ..., "hold", "engine.bge-m3.version"),
        (("stack", "gpu1", "units", "triton@bge-m3.service", "UnitFileState"), "disabled", "fail",
         "engine.bge-m3.enabled"),
        (("stack", "gpu1", "placement", "differing"), ["healthy/x.env"], "fail", "placement.on_disk"),
        (("stack", "gpu1", "placement"), {"error": "?"}, "hold", "placement.on_disk"),
        (("stack", "gpu1", "placement", "name"), "without-gpu0", "fail", "placement.current"),
        (("stack", "gpu1", "bundle"), "c" * 64, "fail", "bundle.digest"),
        (("stack", "gpu1", "bundle"), None, "hold", "bundle.digest"),
        (("stack", "gw1", "edge", "no_certificate"), 503, "fail", "edge.no_certificate"),
        (("stack", "gw1", "edge", "no_certificate"), "unreachable: x", "hold", "edge.no_certificate"),
        (("stack", "gw1", "edge", "foreign_authority"), 200, "fail", "edge.foreign_authority"),
        (("stack", "gw1", "edge", "unknown_path"), 200, "fail", "edge.unknown_path"),
        (("stack", "gw1", "edge", "get"), 200, "fail", "edge.get"),
        (("stack", "gw1", "edge", "good"), 403, "fail", "edge.reaches_router"),
        (("stack", "gw1", "edge", "good"), "no router", "fail", "edge.reaches_router"),
        (("stack", "gw1", "edge"), {"error": "no openssl"}, "hold", "edge.foreign_authority"),
        (("stack", "gw1", "litellm", "onprem"), "URLError", "fail", "litellm.onprem"),
        (("stack", "gw1", "litellm"), {}, "hold", "litellm.cloud"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "to_cloud": "connected"}, "fail",
         "seal.litellm@onprem.service.cloud"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "to_cloud": "error: no user"}, "hold",
         "seal.litellm@onprem.service.cloud"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "secrets": {"names": ["OPENAI_API_KEY"]}},
         "fail", "seal.litellm@onprem.service.secrets"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "secrets": {"error": "gone"}}, "hold",
         "seal.litellm@onprem.service.secrets"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "to_cloud_litellm": "500"}, "fail",
         "seal.litellm@onprem.service.litellm"),
        (("stack", "gw1", "sealed", "litellm@onprem.service"), {**SEALED, "sandbox": ""}, "fail",
         "seal.litellm@onprem.service.sandbox"),
        (("stack", "gw1", "sealed"), {}, "hold", "seal.units"),
        (("stack", "gw1", "configs", "litellm"), {"foreign": ["api.example.test"]}, "fail", "seal.litellm.config"),
        (("stack", "gw1", "configs", "key_file_absent"), False, "fail", "seal.key_file"),
        (("stack", "gw1", "units", "haproxy.service", "ActiveState"), "failed", "fail", "unit.haproxy.service"),
        (("router", "gw1", "pools", "sealed"), {"error": "refused"}, "fail", "router.sealed"),
        (("router",), ..., "hold", "router.hybrid"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_what_is_not_as_planned_is_found(path: tuple[str, ...], value: object, verdict: str, check: str) -> None:
    got, ids = judged(path, value)
    assert (got, check in ids) == (verdict, True), ids


def test_a_seal_that_nobody_can_break_through_is_not_proven_when_the_permitted_user_cannot_either() -> None:
    verdict, ids = judged(("stack", "gw1", "open_to_cloud"), "error: the cloud's name has no address")
    assert verdict == Verdict.HOLD
    assert {"seal.probe", "seal.litellm@onprem.service.cloud"} <= set(ids)


def test_a_gpu_promised_twice_is_found() -> None:
    plan = copy.deepcopy(PLAN)
    plan["placements"]["healthy"]["engines"]["second"] = {
        "gpus": [3], "env": {"VLLM_ARGS": "--gpu-memory-utilization 0.2"}
    }  # fmt: skip
    assert memory_share(plan["placements"]["healthy"])[3] == pytest.approx(1.12)
    plan["engines"]["second"] = {"unit": "vllm@second.service", "engine": "vllm"}
    assert "placement.healthy.fits" in judged((), None, plan)[1]


def two_gateways(**second: Any) -> tuple[Verdict, list[str]]:
    """A second gateway like the first; what differs there is given."""
    plan = {**PLAN, "hosts": {**PLAN["hosts"], "gateway": ["gw1", "gw2"]}}
    readings = copy.deepcopy(READINGS)
    readings["stack"]["gw1"]["virtual_address"] = {"answered": 503, "held": True}
    readings["stack"]["gw2"] = {
        **copy.deepcopy(READINGS["stack"]["gw1"]),
        "virtual_address": {"answered": 503, "held": False},
        **second,
    }
    readings["router"]["gw2"] = readings["router"]["gw1"]
    found = checks(plan, readings)
    return verdict_of(found), [check.id for check in found if check.status != "pass"]


def test_two_gateways_of_which_one_holds_the_address_are_promoted() -> None:
    assert two_gateways() == (Verdict.PROMOTE, [])


@pytest.mark.parametrize(
    ("second", "verdict", "ids"),
    [
        ({"answered": 503, "held": True}, "fail", ["address.holders"]),
        ({"answered": "unreachable: no route", "held": False}, "fail", ["address.answers"]),
        ({"answered": "no router", "held": False}, "fail", ["address.answers"]),
        ({"answered": 503, "error": "ip is missing"}, "hold", ["address.holders"]),
        ({}, "hold", ["address.holders"]),
    ],
)
def test_an_address_that_nobody_or_everybody_holds_is_no_address(
    second: dict[str, Any], verdict: str, ids: list[str]
) -> None:
    assert two_gateways(virtual_address=second) == (Verdict(verdict), ids)


def test_a_certificate_that_ends_soon_fails_the_day() -> None:
    assert judged(("stack", "gw1", "certificate_days"), 20.0) == (Verdict.FAIL, ["edge.certificate_days"])
