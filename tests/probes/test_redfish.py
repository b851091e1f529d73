"""Redfish in its older and newer shapes, and a BMC that is silent, slow or strange."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.probes.redfish import BmcError, parts_of, read_bmc, read_inlet


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def collection(*paths: str) -> dict[str, Any]:
    return {"Members": [link(path) for path in paths]}


ROOT = {"Chassis": link("/c"), "Systems": link("/s")}
NEWER: dict[str, Any] = {
    "/redfish/v1": ROOT,
    "/c": collection("/c/1"),
    "/c/1": {
        "Id": "1",
        "PowerSubsystem": link("/p"),
        "EnvironmentMetrics": link("/e"),
        "ThermalSubsystem": link("/t"),
        "NetworkAdapters": link("/n"),
    },
    "/p": {"PowerSupplies": link("/ps")},
    "/ps": collection("/ps/0"),
    "/ps/0": {
        "Name": "PSU0",
        "Model": "M",
        "SerialNumber": "P0",
        "PowerCapacityWatts": 1600,
        "Status": {"Health": "OK"},
    },
    "/e": {"PowerWatts": {"Reading": 662}},
    "/t": {"ThermalMetrics": link("/tm")},
    "/tm": {"TemperatureSummaryCelsius": {"Intake": {"Reading": 24.5}}},
    "/n": collection("/n/0"),
    "/n/0": {"Model": "ConnectX-6 Lx", "SerialNumber": "N0", "Ports": link("/np")},
    "/np": collection("/np/0"),
    "/np/0": {"MaxSpeedGbps": 25},
    "/s": collection("/s/1"),
    "/s/1": {"Processors": link("/x"), "Storage": link("/st")},
    "/x": collection("/x/cpu", "/x/gpu"),
    "/x/cpu": {"ProcessorType": "CPU"},
    "/x/gpu": {"ProcessorType": "GPU", "Model": "NVIDIA L40S", "SerialNumber": "G0"},
    "/st": collection("/st/0"),
    "/st/0": {"Drives": [link("/d/0")]},
    "/d/0": {"Model": "PM9A3", "SerialNumber": "D0", "CapacityBytes": 7681501126656, "Protocol": "NVMe"},
}
OLDER: dict[str, Any] = {
    "/redfish/v1": {"Chassis": link("/c")},
    "/c": collection("/c/1"),
    "/c/1": {"Id": "Self", "Power": link("/p"), "Thermal": link("/t"), "NetworkAdapters": link("/n")},
    "/p": {
        "PowerSupplies": [{"SerialNumber": "P0", "PowerCapacityWatts": 1600, "Status": None}],
        "PowerControl": [{"PowerConsumedWatts": 600}, {"PowerConsumedWatts": 62}],
    },
    "/t": {
        "Temperatures": [
            {"Name": "CPU1", "PhysicalContext": "CPU", "ReadingCelsius": 60},
            {"Name": "Inlet", "PhysicalContext": "Intake", "ReadingCelsius": 23},
            {"Name": "Inlet 2", "PhysicalContext": "Intake", "ReadingCelsius": None},
        ]
    },
    "/n": collection("/n/0"),
    "/n/0": {"SerialNumber": "N0", "NetworkPorts": link("/np")},
    "/np": collection("/np/0"),
    "/np/0": {"SupportedLinkCapabilities": [{"LinkSpeedMbps": 10000}, {"LinkSpeedMbps": 25000}]},
}


def test_newer_schemas() -> None:
    parts = parts_of(NEWER.__getitem__)
    assert (parts["psus"][0]["serial"], parts["psus"][0]["watts"], parts["psus"][0]["health"]) == ("P0", 1600, "OK")
    assert parts["power_w"] == 662
    assert parts["nics"] == [{"model": "ConnectX-6 Lx", "serial": "N0", "ports": 1, "gbit_s": 25}]
    assert (parts["drives"][0]["serial"], parts["drives"][0]["gb"]) == ("D0", 7682)
    assert parts["gpus"] == [{"name": "NVIDIA L40S", "serial": "G0", "uuid": None}]
    assert parts["inlet_celsius"] == {"1": 24.5}


def test_older_schemas() -> None:
    parts = parts_of(OLDER.__getitem__)
    assert (parts["psus"][0]["watts"], parts["psus"][0]["health"], parts["power_w"]) == (1600, None, 662)
    assert parts["nics"][0]["gbit_s"] == 25
    assert parts["inlet_celsius"] == {"Self: Inlet": 23}
    assert parts["drives"] == parts["gpus"] == []


def test_a_bmc_that_lists_nothing_has_no_parts_and_no_power() -> None:
    def get(path: str) -> Mapping[str, Any]:
        return {}

    assert parts_of(get) == {"psus": [], "power_w": None, "nics": [], "drives": [], "gpus": [], "inlet_celsius": {}}


def test_a_bmc_that_breaks_off_is_an_error_not_a_part() -> None:
    def get(path: str) -> Mapping[str, Any]:
        if path == "/ps/0":
            raise BmcError("BMC x: timed out")
        return dict(NEWER[path])

    with pytest.raises(BmcError, match="timed out"):
        parts_of(get)


def test_a_closed_port_and_a_missing_authority_are_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert "refused" in read_bmc(f"https://127.0.0.1:{port}")["error"]
    assert "authority" in read_inlet("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem"))["error"]


def test_something_that_speaks_no_tls_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        error = read_bmc(f"https://127.0.0.1:{server.getsockname()[1]}")["error"]
        thread.join(timeout=10)
    assert error.startswith("BMC 127.0.0.1")
