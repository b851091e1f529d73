#!/usr/bin/env python3
"""The GPU host's management controller: Redfish over TLS on the switch's address.

Imitates: the service root, one chassis with PowerSubsystem (supplies with health and input feed),
EnvironmentMetrics (power now),
ThermalSubsystem (inlet), NetworkAdapters, one system with Storage drives and GPU processors; faults from a small file.
Does NOT imitate: authentication, sessions, events, actions (it is read-only), firmware inventory, the older
Power/Thermal schemas.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHASSIS, SYSTEM = "/redfish/v1/Chassis/1", "/redfish/v1/Systems/1"
INLET_CELSIUS = 24.0


def collection(path: str, ids: list[str]) -> dict[str, Any]:
    """A Redfish collection."""
    return {"@odata.id": path, "Members": [link(f"{path}/{one}") for one in ids], "Members@odata.count": len(ids)}


def link(path: str) -> dict[str, str]:
    """A reference."""
    return {"@odata.id": path}


def gpu_watts(state: Path) -> float:
    """What the simulated GPUs draw, from the GPU host's disk; 0 when it was never on."""
    try:
        lines = state.read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split("=")[1]) for line in lines if ".power_mw=" in line) / 1000


def resources(machine: dict[str, Any], faults: dict[str, Any], gpus_w: float) -> dict[str, dict[str, Any]]:
    """Every resource by path."""
    good = [number for number in range(len(machine["psus"])) if number not in faults.get("psu_failed", [])]
    load = machine["idle_watts"] + gpus_w
    psu_path, nic_path, gpu_path, drive_path = (
        f"{CHASSIS}/PowerSubsystem/PowerSupplies",
        f"{CHASSIS}/NetworkAdapters",
        f"{SYSTEM}/Processors",
        f"{SYSTEM}/Storage",
    )
    found = {
        "/redfish/v1": {
            "RedfishVersion": "1.15.0",
            "Chassis": link("/redfish/v1/Chassis"),
            "Systems": link("/redfish/v1/Systems"),
        },
        "/redfish/v1/Chassis": collection("/redfish/v1/Chassis", ["1"]),
        "/redfish/v1/Systems": collection("/redfish/v1/Systems", ["1"]),
        CHASSIS: {
            "Id": "1",
            "SerialNumber": machine["system"]["serial"],
            "PowerSubsystem": link(f"{CHASSIS}/PowerSubsystem"),
            "ThermalSubsystem": link(f"{CHASSIS}/ThermalSubsystem"),
            "EnvironmentMetrics": link(f"{CHASSIS}/EnvironmentMetrics"),
            "NetworkAdapters": link(nic_path),
        },
        f"{CHASSIS}/PowerSubsystem": {"PowerSupplies": link(psu_path)},
        psu_path: collection(psu_path, [str(number) for number in range(len(machine["psus"]))]),
        f"{CHASSIS}/EnvironmentMetrics": {
            "PowerWatts": {"Reading": round(load, 1)},
            "TemperatureCelsius": {"Reading": faults.get("inlet_celsius", INLET_CELSIUS)},
        },
        f"{CHASSIS}/ThermalSubsystem": {"ThermalMetrics": link(f"{CHASSIS}/ThermalSubsystem/ThermalMetrics")},
        f"{CHASSIS}/ThermalSubsystem/ThermalMetrics": {
            "TemperatureSummaryCelsius": {"Intake": {"Reading": faults.get("inlet_celsius", INLET_CELSIUS)}}
        },
        nic_path: collection(nic_path, [str(number) for number in range(len(machine["nics"]))]),
        SYSTEM: {
            "Id": "1",
            "Manufacturer": machine["system"]["manufacturer"],
            "Model": machine["system"]["product"],
            "SerialNumber": machine["system"]["serial"],
            "Storage": link(drive_path),
            "Processors": link(gpu_path),
        },
        drive_path: collection(drive_path, ["1"]),
        f"{drive_path}/1": {
            "Drives": [link(f"{drive_path}/1/Drives/{number}") for number in range(len(machine["nvme"]))]
        },
        gpu_path: collection(gpu_path, [f"GPU{number}" for number in range(len(machine["gpus"]))]),
    }
    for number, psu in enumerate(machine["psus"]):
        healthy = number in good
        found[f"{psu_path}/{number}"] = {
            "Id": str(number),
            "Name": f"PSU{number + 1}",
            "Model": psu["model"],
            "SerialNumber": psu["serial"],
            "PowerCapacityWatts": psu["watts"],
            "LineInputStatus": "Normal" if healthy else "LossOfInput",
            "ElectricalContext": f"Feed{'AB'[number % machine['feeds'] % 2]}",
            "Status": {
                "State": "Enabled" if healthy else "UnavailableOffline",
                "Health": "OK" if healthy else "Critical",
            },
            "OutputPowerWatts": round(load / max(1, len(good)), 1) if healthy else 0,
        }
    for number, nic in enumerate(machine["nics"]):
        here = f"{nic_path}/{number}"
        found[here] = {
            "Id": str(number),
            "Model": nic["model"],
            "SerialNumber": nic["serial"],
            "Ports": link(f"{here}/Ports"),
        }
        found[f"{here}/Ports"] = collection(f"{here}/Ports", ["1"])
        found[f"{here}/Ports/1"] = {"Id": "1", "MaxSpeedGbps": nic["gbit_s"], "LinkStatus": "LinkUp"}
    for number, drive in enumerate(machine["nvme"]):
        found[f"{drive_path}/1/Drives/{number}"] = {
            "Id": str(number),
            "Model": drive["model"],
            "SerialNumber": drive["serial"],
            "Protocol": "NVMe",
            "CapacityBytes": drive["gb"] * 10**9,
            "PredictedMediaLifeLeftPercent": 100,
            "Status": {"State": "Enabled", "Health": "OK"},
        }
    for number, gpu in enumerate(machine["gpus"]):
        found[f"{gpu_path}/GPU{number}"] = {
            "Id": f"GPU{number}",
            "ProcessorType": "GPU",
            "Model": gpu["model"],
            "SerialNumber": gpu["serial"],
        }
    return found


class Handler(BaseHTTPRequestHandler):
    """GET only."""

    protocol_version = "HTTP/1.1"
    machine: Path
    faults: Path
    gpu_state: Path

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """One resource."""
        try:
            faults = json.loads(self.faults.read_text())
        except (OSError, ValueError):
            faults = {}
        everything = resources(json.loads(self.machine.read_text()), faults, gpu_watts(self.gpu_state))
        found = everything.get(self.path.rstrip("/"))
        content = json.dumps(found or {"error": {"code": "Base.1.8.ResourceMissingAtURI"}}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """TLS is spoken in the connection's own thread, so a silent client blocks nobody."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handshake, then HTTP."""
        request.settimeout(30)
        try:
            channel = self.tls.wrap_socket(request, server_side=True) if self.tls else request
            Handler(channel, client_address, self)
            channel.close()
        except OSError:
            return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report."""


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="bmc")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--machine", type=Path, required=True)
    parser.add_argument("--faults", type=Path, required=True)
    parser.add_argument("--gpu-state", type=Path, required=True)
    options = parser.parse_args()
    Handler.machine, Handler.faults, Handler.gpu_state = options.machine, options.faults, options.gpu_state
    server = Server((options.host, options.port), Handler)
    if options.certificate:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(options.certificate, options.key)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
