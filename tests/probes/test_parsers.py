"""What real tools print, parsed; what is not theirs becomes {error}, never a guess."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.probes.dmi import parse_dmi
from gpu_cutover.probes.driver import loaded, nouveau_loaded, parse_dcgm, parse_packages
from gpu_cutover.probes.gpus import count_on_bus, parse_gpus
from gpu_cutover.probes.machine import merge, parse_nvme
from gpu_cutover.probes.nccl import parse_all_reduce
from gpu_cutover.probes.network import parse_neighbours, read_port, wait_for_neighbours

DMIDECODE = """\
# dmidecode 3.4
Getting SMBIOS data from sysfs.
SMBIOS 3.5.0 present.

Handle 0x0000, DMI type 0, 26 bytes
BIOS Information
\tVendor: American Megatrends International, LLC.
\tVersion: 1.9
\tRelease Date: 04/18/2026
\tCharacteristics:
\t\tPCI is supported
\t\tBIOS is upgradeable

Handle 0x0001, DMI type 1, 27 bytes
System Information
\tManufacturer: Supermicro
\tProduct Name: AS-4125GS-TNRT
\tVersion: 0123456789
\tSerial Number: S510000X3A01234
\tUUID: 00000000-0000-0000-0000-3cecef000000

Handle 0x0020, DMI type 4, 48 bytes
Processor Information
\tSocket Designation: CPU1
\tType: Central Processor
\tVersion: AMD EPYC 9354 32-Core Processor
\tStatus: Populated, Enabled
\tCore Count: 32
\tThread Count: 64
\tFlags:
\t\tFPU (Floating-point unit on-chip)

Handle 0x0021, DMI type 4, 48 bytes
Processor Information
\tSocket Designation: CPU2
\tVersion: AMD EPYC 9354 32-Core Processor
\tStatus: Populated, Enabled
\tCore Count: 32

Handle 0x0022, DMI type 4, 48 bytes
Processor Information
\tSocket Designation: CPU3
\tStatus: Unpopulated

Handle 0x0030, DMI type 17, 92 bytes
Memory Device
\tSize: 64 GB
\tLocator: P1-DIMMA1
\tSpeed: 4800 MT/s
\tSerial Number: 80CE0123
\tPart Number: M321R8GA0BB0-CQKZJ
\tConfigured Memory Speed: 4800 MT/s

Handle 0x0031, DMI type 17, 92 bytes
Memory Device
\tSize: 65536 MB
\tLocator: P1-DIMMB1
\tSerial Number: 80CE0124

Handle 0x0032, DMI type 17, 92 bytes
Memory Device
\tSize: No Module Installed
\tLocator: P1-DIMMC1
"""


def test_dmidecode() -> None:
    machine = parse_dmi(DMIDECODE)
    assert machine["system"] == {"manufacturer": "Supermicro", "product": "AS-4125GS-TNRT", "serial": "S510000X3A01234"}
    assert machine["firmware"] == {"version": "1.9", "date": "04/18/2026"}
    assert [(cpu["socket"], cpu["cores"]) for cpu in machine["cpus"]] == [("CPU1", 32), ("CPU2", 32)]
    assert machine["memory_gib"] == 128
    assert [dimm["serial"] for dimm in machine["dimms"]] == ["80CE0123", "80CE0124"]
    assert [dimm["speed_mt_s"] for dimm in machine["dimms"]] == [4800, None]


def test_dmidecode_without_a_system_is_an_error() -> None:
    assert "error" in parse_dmi("# dmidecode 3.4\n# No SMBIOS nor DMI entry point found, sorry.\n")


NVIDIA_SMI = """\
0, NVIDIA L40S, GPU-8a1c1a4e, 1324623000010, 00000000:01:00.0, 46068, 580.105.08, Enabled, 16, 95.02.66.00.02
1, NVIDIA L40S, GPU-8a1c1a4f, [N/A], 00000000:41:00.0, 46068, 580.105.08, Disabled, 8, 95.02.66.00.02
"""


def test_nvidia_smi() -> None:
    gpus = parse_gpus(NVIDIA_SMI)["gpus"]
    assert [gpu["serial"] for gpu in gpus] == ["1324623000010", None]
    assert [gpu["pcie_width"] for gpu in gpus] == [16, 8]
    assert [gpu["persistence"] for gpu in gpus] == ["Enabled", "Disabled"]
    assert loaded({"gpus": gpus})["loaded"] == "580.105.08"


def test_nvidia_smi_with_two_driver_versions_proves_none() -> None:
    gpus = parse_gpus(NVIDIA_SMI.replace("580.105.08, Disabled", "570.1, Disabled"))["gpus"]
    assert loaded({"gpus": gpus})["loaded"] is None


def test_a_hung_driver_is_told_from_another_version() -> None:
    """A mismatch of module and library asks for a reboot, a hang does not."""
    mismatch = "nvidia-smi: exit status 18: Failed to initialize NVML: Driver/library version mismatch"
    assert loaded({"error": mismatch, "hung": False}) == {"gpus_error": mismatch, "hung": False}
    assert loaded({"error": "nvidia-smi: no answer in 15 s", "hung": True})["hung"] is True


def test_nvidia_smi_that_says_something_else_is_an_error() -> None:
    assert "unexpected answer" in parse_gpus("No devices were found\n")["error"]


NVME = {
    "Devices": [
        {
            "DevicePath": "/dev/nvme0n1",
            "ModelNumber": "SAMSUNG MZQL27T6HBLA-00A07",
            "SerialNumber": "S6CKNT0W900001  ",
            "PhysicalSize": 7681501126656,
        },
    ]
}


def test_nvme_list() -> None:
    assert parse_nvme(json.dumps(NVME))["nvme"] == [
        {"model": "SAMSUNG MZQL27T6HBLA-00A07", "serial": "S6CKNT0W900001", "gb": 7682}
    ]
    assert parse_nvme("{}") == {"nvme": []}
    assert "error" in parse_nvme("nvme: cannot open")


LLDP_ONE = {
    "lldp": {
        "interface": {
            "eth0": {
                "via": "LLDP",
                "rid": "1",
                "age": "0 day, 00:00:07",
                "chassis": {"sw1": {"id": {"type": "mac", "value": "02:00:5e:00:00:01"}, "descr": "a switch"}},
                "port": {"id": {"type": "ifname", "value": "Ethernet1/21"}, "descr": "gpu1 p0", "ttl": "120"},
            }
        }
    }
}


def test_lldpcli_with_one_port_and_with_two() -> None:
    body = LLDP_ONE["lldp"]["interface"]["eth0"]
    two = {
        "lldp": {"interface": [{"eth0": body}, {"eth1": {**body, "chassis": {"id": {"type": "mac", "value": "x"}}}}]}
    }
    assert parse_neighbours(json.dumps(LLDP_ONE)) == {
        "eth0": {"switch": "sw1", "port": "Ethernet1/21", "description": "gpu1 p0"}
    }
    assert parse_neighbours(json.dumps(two))["eth1"]["switch"] == ""
    assert parse_neighbours('{"lldp": {}}') == {}


def test_lldp_is_waited_for_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {}, {"eth0": {"switch": "sw1"}}])
    moments = iter(range(100))
    monkeypatch.setattr("gpu_cutover.probes.network.read_neighbours", lambda: next(answers))
    wait = {"now": lambda: float(next(moments)), "sleep": lambda _: None}
    assert "eth0" in wait_for_neighbours(["eth0"], 30, **wait)
    monkeypatch.setattr("gpu_cutover.probes.network.read_neighbours", lambda: {})
    assert wait_for_neighbours(["eth0"], 5, **wait) == {}


def test_a_port_from_sysfs(tmp_path: Path) -> None:
    folder = tmp_path / "class/net/twintest0"
    folder.mkdir(parents=True)
    for name, text in (("operstate", "up\n"), ("speed", "25000\n"), ("mtu", "9000\n")):
        (folder / name).write_text(text)
    (tmp_path / "class/net/bond0").mkdir()
    (folder / "master").symlink_to("../bond0")
    assert read_port("twintest0", tmp_path) == {"up": True, "gbit_s": 25.0, "mtu": 9000, "bond": "bond0"}
    (folder / "speed").write_text("-1\n")
    assert read_port("twintest0", tmp_path)["gbit_s"] is None
    assert read_port("twintest1", tmp_path) == {"error": "twintest1: no such port"}


def test_dpkg_query() -> None:
    text = "nvidia-open-580\t580.105.08-1\thi \nnvidia-persistenced\t580.105.08-1\tii \ngone\t1\trc \n"
    assert parse_packages(text) == {
        "nvidia-open-580": {"version": "580.105.08-1", "held": True},
        "nvidia-persistenced": {"version": "580.105.08-1", "held": False},
    }


def dcgm(*tests: dict[str, Any], root: str = "DCGM Diagnostic") -> str:
    return "Successfully ran diagnostic for group.\n" + json.dumps(
        {root: {"test_categories": [{"category": "Hardware", "tests": list(tests)}]}}
    )


def test_dcgm_of_both_generations() -> None:
    newer = {"name": "memory", "results": [{"entity_id": n, "status": "Pass"} for n in range(4)]}
    older = {"name": "Denylist", "results": [{"status": "Pass"}]}
    skipped = {"name": "PCIe", "results": [{"gpu_id": "0", "status": "Skip"}, {"gpu_id": "1", "status": "Pass"}]}
    assert parse_dcgm(dcgm(newer))["tests"]["memory"] == {"results": {"pass": 4}, "per_gpu": True}
    tests = parse_dcgm(dcgm(older, skipped, root="DCGM GPU Diagnostic"))["tests"]
    assert tests["Denylist"] == {"results": {"pass": 1}, "per_gpu": False}
    assert tests["PCIe"]["results"] == {"skip": 1, "pass": 1}


def test_dcgm_that_passes_with_a_warning_does_not_pass() -> None:
    result = {"entity_id": 0, "status": "Pass", "warnings": [{"warning": "could not allocate"}]}
    assert parse_dcgm(dcgm({"name": "memory", "results": [result]}))["tests"]["memory"]["results"] == {"warn": 1}


@pytest.mark.parametrize("text", ["", "Error: unable to connect", "{", '{"DCGM Diagnostic": {"test_categories": []}}'])
def test_dcgm_without_tests_is_an_error(text: str) -> None:
    assert "error" in parse_dcgm(text)


def all_reduce(*rows: tuple[int, float, float, float | None]) -> str:
    results = [
        {
            "size": size,
            "out_of_place": {"time": 1.0, "alg_bw": 1.0, "bus_bw": out, "nwrong": wrong},
            "in_place": {"time": 1.0, "alg_bw": 1.0, "bus_bw": within, "nwrong": wrong},
        }
        for size, out, within, wrong in rows
    ]
    return json.dumps({"version": 1, "results": results, "average_bus_bandwidth": {"bandwidth": 1.0}})


def test_all_reduce_takes_the_slower_way_at_the_largest_size() -> None:
    report = all_reduce((8, 99.0, 99.0, 0.0), (8589934592, 20.5, 19.5, 0.0), (1024, 1.0, 1.0, 0.0))
    assert parse_all_reduce(report, 4) == {"gpus": 4, "bytes": 8589934592, "busbw_gb_s": 19.5, "wrong": 0}


def test_all_reduce_counts_wrong_values_and_knows_when_none_were_checked() -> None:
    assert parse_all_reduce(all_reduce((8, 1.0, 1.0, 3.0), (16, 1.0, 1.0, 0.0)), 4)["wrong"] == 6
    assert parse_all_reduce(all_reduce((8, 1.0, 1.0, None)), 4)["wrong"] is None


@pytest.mark.parametrize("text", ["", "{}", '{"results": []}', '{"results": [{"size": 8}]}'])
def test_all_reduce_without_results_is_an_error(text: str) -> None:
    assert "error" in parse_all_reduce(text, 4)


@given(st.text())
def test_no_text_makes_a_parser_raise(text: str) -> None:
    for parse in (parse_dmi, parse_gpus, parse_nvme, parse_neighbours, parse_dcgm):
        assert isinstance(parse(text), dict)
    assert isinstance(parse_all_reduce(text, 4), dict)


def test_gpus_on_the_bus_and_nouveau(tmp_path: Path) -> None:
    for slot, vendor, kind in (
        ("01:00.0", "0x10de", "0x030200"),
        ("02:00.0", "0x10de", "0x040300"),
        ("03:00.0", "0x8086", "0x030000"),
    ):
        device = tmp_path / "bus/pci/devices" / slot
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    assert count_on_bus(tmp_path) == 1
    assert nouveau_loaded(tmp_path) is None
    (tmp_path / "bus/pci/drivers/nvidia").mkdir(parents=True)
    assert nouveau_loaded(tmp_path) is False
    (tmp_path / "module/nouveau").mkdir(parents=True)
    assert nouveau_loaded(tmp_path) is True


def test_a_machine_is_merged_and_its_silent_sources_are_named() -> None:
    bmc = {
        "psus": [{"serial": "P1"}],
        "nics": [],
        "power_w": 660.0,
        "drives": [{"protocol": "NVMe", "serial": "D1"}, {"protocol": "SATA"}],
        "gpus": [{"serial": "G1"}],
    }
    merged = merge(
        {
            "dmi": {"error": "dmidecode: not installed"},
            "gpus": {"error": "no driver"},
            "nvme": {"nvme": []},
            "bmc": bmc,
        },
        4,
    )
    assert merged["errors"] == {"dmi": "dmidecode: not installed", "gpus": "no driver"}
    assert (merged["gpus"], merged["gpus_source"]) == ([{"serial": "G1"}], "the BMC")
    assert merged["nvme"] == [{"protocol": "NVMe", "serial": "D1"}]
    assert "nics" not in merged and "system" not in merged
