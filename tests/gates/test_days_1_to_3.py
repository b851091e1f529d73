"""The gates of days 1 to 3: a whole machine promotes, each fault fails its own check, each silence is unproven."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpu_cutover.gates import day01, day02, day03
from gpu_cutover.gates.check import FAIL, UNPROVEN, Check, Verdict, verdict_of
from gpu_cutover.planning.derive import derive
from gpu_cutover.site import load_site

SITE = Path(__file__).parents[2] / "inventory" / "twin"
Data = dict[str, Any]


@pytest.fixture(scope="module")
def whole_plan() -> Data:
    site = load_site(SITE)
    records = {path.stem: yaml.safe_load(path.read_text()) for path in (SITE / "records").glob("*.yml")}
    hosts = {"gpu": ["gpu1"], "gateway": ["gw1"], "monitor": ["mon1"]}
    plan = {**derive(site), "site": site.declared(), "hosts": hosts, "records": records}
    return json.loads(json.dumps(plan, default=str))  # as the gate sees it: plain data, text keys


@pytest.fixture
def plan(whole_plan: Data) -> Data:
    return copy.deepcopy(whole_plan)


def machine(plan: Data) -> Data:
    """The machine as it was bought."""
    bought = plan["records"]["purchase"]["hosts"]["gpu1"]
    return {
        "system": dict(bought["system"]),
        "cpus": [{"model": "AMD EPYC 9354 32-Core Processor", "cores": 32}] * 2,
        "dimms": [{}] * 12,
        "memory_gib": 768,
        "gpus": [{"name": "NVIDIA L40S", "serial": gpu["serial"]} for gpu in bought["gpus"]],
        "nvme": [{"serial": disk["serial"], "gb": 7682} for disk in bought["nvme"]],
        "nics": [{"serial": nic["serial"], "gbit_s": 25.0} for nic in bought["nics"]],
        "psus": [{"serial": psu["serial"], "watts": 1600, "health": "OK"} for psu in bought["psus"]],
        "power_w": 662.0,
        "errors": {},
    }


def network(plan: Data, host: str) -> Data:
    link = next(link for link in plan["records"]["cabling"]["links"] if link["host"] == host)
    names = {f"{name}.clinic.test": f"10.87.0.{place}" for place, name in enumerate(("gpu1", "gw1", "mon1"), 1)}
    return {
        "ports": {
            link["port"]: {
                "up": True,
                "gbit_s": link["gbit_s"],
                "mtu": plan["site"]["network"]["mtu"],
                "neighbour": {"switch": link["switch"], "port": link["switch_port"]},
            }
        },
        "names": {name: {"expected": ip, "forward": [ip], "reverse": [name]} for name, ip in names.items()},
        "clock": {"server": "10.87.0.1", "offset_s": -0.002, "stratum": 2},
        "netplan": {"valid": True},
        "inlet": {"inlet_celsius": {"1": 24.0}},
    }


def driver(plan: Data) -> Data:
    packages = {name: {"version": plan["driver"]["version"], "held": True} for name in plan["driver"]["packages"]}
    return {
        "packages": packages,
        "loaded": "580.105.08",
        "gpus": [{"persistence": "Enabled", "pcie_width": 16} for _ in range(4)],
        "nouveau": False,
        "dcgm": {
            "tests": {
                "memory": {"results": {"pass": 4}, "per_gpu": True},
                "Denylist": {"results": {"pass": 1}, "per_gpu": False},
            }
        },
    }


def readings_of(plan: Data) -> Data:
    """What a whole site reads on days 1 to 3."""
    return {
        "machine": {"gpu1": machine(plan)},
        "network": {host: network(plan, host) for host in ("gpu1", "gw1", "mon1")},
        "driver": {"gpu1": driver(plan)},
        "nccl": {"gpu1": {"gpus": 4, "bytes": 8589934592, "busbw_gb_s": 12.6, "wrong": 0}},
    }


DAYS = {1: day01, 2: day02, 3: day03}


def judged(day: int, plan: Data, readings: Data) -> dict[str, Check]:
    """Checks by id and host; ids are unique per host."""
    checks = DAYS[day].checks(plan, readings)
    by_id = {f"{check.id}@{check.host}": check for check in checks}
    assert len(by_id) == len(checks), "two checks of one name"
    return by_id


@pytest.mark.parametrize("day", [1, 2, 3])
def test_a_whole_site_promotes(day: int, plan: Data) -> None:
    checks = judged(day, plan, readings_of(plan)).values()
    assert verdict_of(checks) == Verdict.PROMOTE, [check.line() for check in checks if check.status != "pass"]
    assert all(check.source and check.sentence for check in checks)


@pytest.mark.parametrize("day", [1, 2, 3])
@pytest.mark.parametrize("silence", [{}, {"machine": {}, "network": None}, "errors"])
def test_silence_holds(day: int, silence: Any, plan: Data) -> None:
    """No reading, or a probe that hung: nothing that was to be read passes, nothing fails."""
    readings = silence
    if silence == "errors":
        readings = {
            subject: {host: {"error": "no answer in 10 s"} for host in hosts}
            for subject, hosts in readings_of(plan).items()
        }
    checks = DAYS[day].checks(plan, readings)
    assert verdict_of(checks) == Verdict.HOLD
    declared = ("power.", "matrix.")  # judged from the site's declaration alone
    assert {check.status for check in checks if not check.id.startswith(declared)} == {UNPROVEN}


def change(day: int, path: str, value: Any) -> Callable[[Data], None]:
    """Set (or, with `...`, remove) a value in the readings."""

    def apply(readings: Data) -> None:
        *way, last = path.split("/")
        place: Any = readings
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        key: Any = int(last) if isinstance(place, list) else last
        if value is ...:
            del place[key]
        else:
            place[key] = value

    return apply


FAULTS = [
    (1, "machine/gpu1/system/serial", "OTHER", "system.serial@gpu1", FAIL),
    (1, "machine/gpu1/gpus/3", ..., "gpus.count@gpu1", FAIL),
    (1, "machine/gpu1/gpus/3", ..., "gpus.serials@gpu1", FAIL),
    (1, "machine/gpu1/gpus/0/serial", "SWAPPED", "gpus.serials@gpu1", FAIL),
    (1, "machine/gpu1/gpus/0/serial", None, "gpus.serials@gpu1", UNPROVEN),
    (1, "machine/gpu1/gpus/0/name", "NVIDIA L40", "gpu.model@gpu1", FAIL),
    (1, "machine/gpu1/gpus", ..., "gpus.count@gpu1", UNPROVEN),
    (1, "machine/gpu1/memory_gib", 704, "memory.gib@gpu1", FAIL),
    (1, "machine/gpu1/cpus/1/cores", 24, "cpu.cores@gpu1", FAIL),
    (1, "machine/gpu1/nvme/1/gb", 3840, "nvme.gb@gpu1", FAIL),
    (1, "machine/gpu1/nvme/1/gb", None, "nvme.gb@gpu1", UNPROVEN),
    (1, "machine/gpu1/nics/1/gbit_s", 10.0, "nic.gbit_s@gpu1", FAIL),
    (1, "machine/gpu1/psus/2/health", "Critical", "psu.healthy@gpu1", FAIL),
    (1, "machine/gpu1/psus/2", ..., "psus.count@gpu1", FAIL),
    (1, "machine/gpu1/power_w", 3400.0, "power.redundancy@gpu1", FAIL),
    (2, "network/gpu1/ports/eth0/up", False, "link.up.eth0@gpu1", FAIL),
    (2, "network/gw1/ports/eth0/gbit_s", 10.0, "link.speed.eth0@gw1", FAIL),
    (2, "network/gw1/ports/eth0/gbit_s", None, "link.speed.eth0@gw1", UNPROVEN),
    (2, "network/gpu1/ports/eth0/mtu", 1280, "link.mtu.eth0@gpu1", FAIL),
    (2, "network/mon1/ports/eth0/neighbour/port", "Ethernet1/9", "link.lldp.eth0@mon1", FAIL),
    (2, "network/mon1/ports/eth0/neighbour", None, "link.lldp.eth0@mon1", UNPROVEN),
    (2, "network/mon1/ports/eth0", {"error": "eth0: no such port"}, "link.up.eth0@mon1", UNPROVEN),
    (2, "network/gw1/names/gpu1.clinic.test/forward", ["10.9.9.9"], "dns.forward@gw1", FAIL),
    (2, "network/gw1/names/gpu1.clinic.test/forward", ["10.87.0.1", "10.9.9.9"], "dns.forward@gw1", FAIL),
    (2, "network/gw1/names/gpu1.clinic.test/reverse", [], "dns.reverse@gw1", FAIL),
    (2, "network/gw1/names/gpu1.clinic.test", {"expected": "x", "error": "silent"}, "dns.forward@gw1", UNPROVEN),
    (2, "network/gw1/clock/offset_s", -0.4, "clock.offset@gw1", FAIL),
    (2, "network/gw1/clock", {"error": "no answer"}, "clock.offset@gw1", UNPROVEN),
    (2, "network/gpu1/inlet/inlet_celsius/2", 41.0, "inlet.warm@gpu1", FAIL),
    (2, "network/gpu1/inlet/inlet_celsius/2", 4.0, "inlet.cold@gpu1", FAIL),
    (2, "network/gpu1/inlet", {"error": "BMC: timed out"}, "inlet.warm@gpu1", UNPROVEN),
    (2, "network/gpu1/netplan", {"error": "netplan: not installed"}, "netplan.valid@gpu1", UNPROVEN),
    (3, "driver/gpu1/loaded", "570.195.03", "driver.loaded@gpu1", FAIL),
    (3, "driver/gpu1/packages/nvidia-open-580/version", "580.95.05-1", "driver.installed@gpu1", FAIL),
    (3, "driver/gpu1/packages/nvidia-open-580/held", False, "packages.held@gpu1", FAIL),
    (3, "driver/gpu1/packages", {"error": "dpkg-query: no answer in 10 s"}, "packages.held@gpu1", UNPROVEN),
    (3, "driver/gpu1/gpus/2", ..., "gpu.count@gpu1", FAIL),
    (3, "driver/gpu1/gpus/2/persistence", "Disabled", "gpu.persistence@gpu1", FAIL),
    (3, "driver/gpu1/gpus/2/pcie_width", 8, "gpu.pcie_width@gpu1", FAIL),
    (3, "driver/gpu1/nouveau", True, "nouveau.absent@gpu1", FAIL),
    (3, "driver/gpu1/nouveau", None, "nouveau.absent@gpu1", UNPROVEN),
    (3, "driver/gpu1/dcgm/tests/memory/results", {"pass": 3, "skip": 1}, "dcgm.memory@gpu1", UNPROVEN),
    (3, "driver/gpu1/dcgm/tests/memory/results", {"skip": 4}, "dcgm.memory@gpu1", UNPROVEN),
    (3, "driver/gpu1/dcgm/tests/memory/results", {"pass": 3, "fail": 1}, "dcgm.memory@gpu1", FAIL),
    (3, "driver/gpu1/dcgm/tests/memory/results", {"pass": 4, "warn": 1}, "dcgm.memory@gpu1", FAIL),
    (3, "driver/gpu1/dcgm/tests/memory/results", {"pass": 2}, "dcgm.memory@gpu1", UNPROVEN),
    (3, "driver/gpu1/dcgm", {"error": "dcgmi: no answer in 600 s"}, "dcgm@gpu1", UNPROVEN),
    (3, "nccl/gpu1/busbw_gb_s", 7.9, "nccl.busbw@gpu1", FAIL),
    (3, "nccl/gpu1/gpus", 2, "nccl.busbw@gpu1", UNPROVEN),
    (3, "nccl/gpu1/wrong", 1, "nccl.wrong@gpu1", FAIL),
    (3, "nccl/gpu1/wrong", None, "nccl.wrong@gpu1", UNPROVEN),
]  # fmt: skip


@pytest.mark.parametrize(
    ("day", "path", "value", "check", "status"), FAULTS, ids=[f"{f[3]}-{f[1]}-{f[4]}" for f in FAULTS]
)
def test_a_fault_shows_in_its_own_check(day: int, path: str, value: Any, check: str, status: str, plan: Data) -> None:
    readings = readings_of(plan)
    change(day, path, value)(readings)
    assert judged(day, plan, readings)[check].status == status


def test_a_second_gpu_host_without_a_reading_holds(plan: Data) -> None:
    plan["hosts"]["gpu"].append("gpu2")
    assert verdict_of(day01.checks(plan, readings_of(plan))) == Verdict.HOLD
    assert verdict_of(day03.checks(plan, readings_of(plan))) == Verdict.HOLD


def test_a_host_that_the_drawing_forgot_is_unproven(plan: Data) -> None:
    readings = readings_of(plan)
    plan["records"]["cabling"]["links"] = []
    assert judged(2, plan, readings)["cable.drawn@gw1"].status == UNPROVEN


def test_a_purchase_record_without_the_host_is_unproven(plan: Data) -> None:
    readings = readings_of(plan)
    plan["records"]["purchase"] = None
    checks = judged(1, plan, readings)
    assert checks["gpus.serials@gpu1"].status == checks["system.serial@gpu1"].status == UNPROVEN


def test_the_plans_two_supplies_are_not_redundant(plan: Data) -> None:
    """2 x 1.6 kW on two feeds leave 1.6 kW for a nameplate sum of 2.55 kW."""
    plan["power"] |= {"psu_count": 2, "usable_redundant_w": 1600}
    check = judged(1, plan, readings_of(plan))["power.redundancy@gpu1"]
    assert check.status == FAIL
    assert "2 x 1600 W on 2 feeds leave 1600 W" in check.sentence


def test_nothing_left_with_one_feed_lost_is_never_a_pass(plan: Data) -> None:
    plan["power"]["usable_redundant_w"] = 0
    assert judged(1, plan, readings_of(plan))["power.redundancy@gpu1"].status == UNPROVEN


@pytest.mark.parametrize(
    ("key", "value", "check"),
    [
        ("version", "570.195.03-1", "matrix.branch@None"),
        ("version", "580.60.01-1", "matrix.minimum@None"),
        ("cuda", "14.0", "matrix.cuda@None"),
    ],
)
def test_what_the_matrix_forbids_fails(key: str, value: str, check: str, plan: Data) -> None:
    plan["driver"][key] = value
    assert judged(3, plan, readings_of(plan))[check].status == FAIL


@pytest.mark.parametrize(
    ("package", "expected"),
    [("580.105.08-1", "580.105.08"), ("1:4.4.1-1", "4.4.1"), ("580.105.08-0ubuntu1", "580.105.08"), ("580", "580")],
)
def test_upstream_versions(package: str, expected: str) -> None:
    assert day03.upstream(package) == expected


def test_versions_compare_as_numbers() -> None:
    assert day03.version_key("580.95.05") < day03.version_key("580.105.08")
