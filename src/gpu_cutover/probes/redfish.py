"""What the management controller (BMC) sees, by Redfish: supplies, power, drives, adapters, GPUs, inlet temperature.

Older and newer schemas are both read: PowerSubsystem or Power, ThermalSubsystem or Thermal. Parts that a BMC does not
list are empty.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

REQUEST_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 30.0
ROOT = "/redfish/v1"

Get = Callable[[str], Mapping[str, Any]]


class BmcError(Exception):
    """The BMC did not answer, or not with Redfish; one sentence."""


def read_bmc(
    url: str, user: str = "", password: str = "", ca_file: str = "", clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Everything day 1 and day 2 ask of a BMC, or {error}. `ca_file` "" means the system's authorities."""
    try:
        with _Connection(url, user, password, ca_file, clock) as connection:
            return parts_of(connection.get)
    except BmcError as error:
        return {"error": str(error)}


def read_inlet(url: str, user: str = "", password: str = "", ca_file: str = "") -> dict[str, Any]:
    """{inlet_celsius: {chassis: °C}} alone, or {error}."""
    try:
        with _Connection(url, user, password, ca_file, time.monotonic) as connection:
            return {"inlet_celsius": _inlets(connection.get)}
    except BmcError as error:
        return {"error": str(error)}


def parts_of(get: Get) -> dict[str, Any]:
    """The parts, from anything that answers Redfish paths. Power in W, capacity in GB, speed in Gbit/s, °C."""
    root = get(ROOT)
    chassis = list(_members(get, root, "Chassis"))
    systems = list(_members(get, root, "Systems"))
    return {
        "psus": [_supply(psu) for body in chassis for psu in _supplies(get, body)],
        "power_w": _sum([_consumed(get, body) for body in chassis]),
        "nics": [_adapter(get, nic) for body in chassis for nic in _members(get, body, "NetworkAdapters")],
        "drives": [
            _drive(get(_id(link)))
            for box in systems
            for store in _members(get, box, "Storage")
            for link in store.get("Drives", [])
        ],
        "gpus": [
            _gpu(unit)
            for box in systems
            for unit in _members(get, box, "Processors")
            if unit.get("ProcessorType") == "GPU"
        ],
        "inlet_celsius": {name: value for body in chassis for name, value in _inlet(get, body)},
    }


def _inlets(get: Get) -> dict[str, float]:
    return {name: value for body in _members(get, get(ROOT), "Chassis") for name, value in _inlet(get, body)}


def _members(get: Get, resource: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    link = resource.get(name)
    if isinstance(link, Mapping) and "@odata.id" in link:
        for member in get(_id(link)).get("Members", []):
            yield get(_id(member))


def _linked(get: Get, resource: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    link = resource.get(name)
    return get(_id(link)) if isinstance(link, Mapping) and "@odata.id" in link else {}


def _id(link: Mapping[str, Any]) -> str:
    return str(link["@odata.id"])


def _supplies(get: Get, chassis: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    newer = list(_members(get, _linked(get, chassis, "PowerSubsystem"), "PowerSupplies"))
    return newer or list(_linked(get, chassis, "Power").get("PowerSupplies", []))


def _supply(psu: Mapping[str, Any]) -> dict[str, Any]:
    status = psu.get("Status") or {}
    return {
        "name": psu.get("Name"),
        "model": psu.get("Model"),
        "serial": psu.get("SerialNumber"),
        "watts": psu.get("PowerCapacityWatts"),
        "health": status.get("Health"),
        "state": status.get("State"),
    }


def _consumed(get: Get, chassis: Mapping[str, Any]) -> float | None:
    """What the chassis draws now, W."""
    newer = (_linked(get, chassis, "EnvironmentMetrics").get("PowerWatts") or {}).get("Reading")
    if newer is not None:
        return _number(newer)
    controls = _linked(get, chassis, "Power").get("PowerControl", []) if "PowerSubsystem" not in chassis else []
    return _sum([_number(control.get("PowerConsumedWatts")) for control in controls])


def _adapter(get: Get, nic: Mapping[str, Any]) -> dict[str, Any]:
    ports = [*_members(get, nic, "Ports"), *_members(get, nic, "NetworkPorts")]
    speeds = [speed for port in ports for speed in _speeds(port)]
    return {
        "model": nic.get("Model"),
        "serial": nic.get("SerialNumber"),
        "ports": len(ports),
        "gbit_s": max(speeds, default=None),
    }


def _speeds(port: Mapping[str, Any]) -> list[float]:
    older = [_number(item.get("LinkSpeedMbps")) for item in port.get("SupportedLinkCapabilities", [])]
    speeds = [_number(port.get("MaxSpeedGbps")), *(value / 1000 if value else None for value in older)]
    return [speed for speed in speeds if speed]


def _drive(drive: Mapping[str, Any]) -> dict[str, Any]:
    capacity = _number(drive.get("CapacityBytes"))
    return {
        "model": drive.get("Model"),
        "serial": drive.get("SerialNumber"),
        "protocol": drive.get("Protocol"),
        "gb": round(capacity / 1e9) if capacity else None,
        "wear_left_percent": drive.get("PredictedMediaLifeLeftPercent"),
    }


def _gpu(unit: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": unit.get("Model"), "serial": unit.get("SerialNumber"), "uuid": unit.get("UUID")}


def _inlet(get: Get, chassis: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    name = str(chassis.get("Id", "chassis"))
    metrics = _linked(get, _linked(get, chassis, "ThermalSubsystem"), "ThermalMetrics")
    newer = _number((((metrics.get("TemperatureSummaryCelsius") or {}).get("Intake")) or {}).get("Reading"))
    if newer is not None:
        yield name, newer
        return
    for sensor in _linked(get, chassis, "Thermal").get("Temperatures", []):
        value = _number(sensor.get("ReadingCelsius"))
        if sensor.get("PhysicalContext") == "Intake" and value is not None:
            yield f"{name}: {sensor.get('Name')}", value


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class _Connection:
    """One kept-alive HTTPS connection with a limit per request and one for all of them."""

    def __init__(self, url: str, user: str, password: str, ca_file: str, clock: Callable[[], float]) -> None:
        self._name = f"BMC {urlsplit(url).netloc}"
        self._clock, self._deadline = clock, clock() + TOTAL_TIMEOUT_S
        self._headers = {"Accept": "application/json"}
        if user:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise BmcError(f"{self._name}: authority {ca_file}: {error}") from error
        parts = urlsplit(url)
        self._http = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, timeout=REQUEST_TIMEOUT_S, context=context
        )

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Mapping[str, Any]:
        """The resource at `path`; BmcError with the reason otherwise."""
        if self._clock() > self._deadline:
            raise BmcError(f"{self._name}: not finished in {TOTAL_TIMEOUT_S:g} s")
        try:
            self._http.request("GET", path, headers=self._headers)
            response = self._http.getresponse()
            body = response.read(4_000_000)
            answer = json.loads(body) if response.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BmcError(f"{self._name}: {path}: {error}") from error
        if not isinstance(answer, dict):
            raise BmcError(f"{self._name}: {path}: status {response.status}")
        return answer
