"""Day 2's reading: one host's ports, their neighbours, names, clock, and the air in front of the machine."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .dns import read_names
from .redfish import read_inlet
from .sntp import read_clock
from .tools import run_tool

TOOL_TIMEOUT_S = 5.0
NETPLAN_TIMEOUT_S = 20.0
SPEED = re.compile(r"^\s*Speed: (\d+)Mb/s", re.MULTILINE)


def read_network(
    ports: Sequence[str],
    names: Mapping[str, str],
    resolver: str,
    time_servers: Sequence[str],
    bmc: Mapping[str, str],
    lldp_wait_s: float,
    netplan: str,
) -> dict[str, Any]:
    """Everything about one host's place in the network. `bmc` {} means that this host has none to ask for its inlet."""
    neighbours = wait_for_neighbours(ports, lldp_wait_s)
    reading: dict[str, Any] = {
        "ports": {port: {**read_port(port), "neighbour": neighbours.get(port)} for port in ports},
        "names": read_names(names, resolver),
        "clock": read_clock(time_servers),
        "netplan": check_netplan(netplan),
    }
    if "error" in neighbours:
        reading["lldp_error"] = neighbours["error"]
    if bmc:
        reading["inlet"] = read_inlet(**bmc)
    return reading


def read_port(port: str, sysfs: Path = Path("/sys")) -> dict[str, Any]:
    """State of one network port: up, gbit_s (None when unknown), mtu, bond. A port that is not there is {error}."""
    folder = sysfs / "class/net" / port
    if not folder.exists():
        return {"error": f"{port}: no such port"}
    bond = folder / "master"
    return {
        "up": _text(folder / "operstate") == "up",
        "gbit_s": _speed(port, _text(folder / "speed")),
        "mtu": int(_text(folder / "mtu") or 0) or None,
        "bond": bond.resolve().name if bond.exists() else None,
    }


def _speed(port: str, from_kernel: str) -> float | None:
    answer = run_tool(["ethtool", port], TOOL_TIMEOUT_S, ok=(0, 75))
    said = SPEED.search(answer.stdout)
    megabits = int(said[1]) if said else int(from_kernel) if from_kernel.isdecimal() else 0
    return megabits / 1000 if megabits else None


def wait_for_neighbours(
    ports: Sequence[str],
    wait_s: float,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """{port: {switch, port}} as soon as every port has heard its switch, at the latest after `wait_s` seconds.

    A switch speaks every 30 s (2 s on the twin), so a daemon that has just started knows nothing yet.
    """
    deadline = now() + wait_s
    while True:
        found = read_neighbours()
        if "error" in found or set(ports) <= set(found) or now() >= deadline:
            return found
        sleep(0.5)


def read_neighbours() -> dict[str, Any]:
    """What lldpd has heard, or {error}."""
    answer = run_tool(["lldpcli", "-f", "json", "show", "neighbors"], TOOL_TIMEOUT_S)
    return {"error": answer.error} if answer.error else parse_neighbours(answer.stdout)


def parse_neighbours(text: str) -> dict[str, Any]:
    """{port: {switch, port}} from lldpcli's JSON, which is a list for several ports and a mapping for one."""
    try:
        heard = json.loads(text)["lldp"].get("interface", [])
        entries = heard if isinstance(heard, list) else [heard]
        return {port: _neighbour(body) for entry in entries for port, body in entry.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"lldpcli: unexpected answer ({error!r})"}


def _neighbour(body: Mapping[str, Any]) -> dict[str, str]:
    chassis, port = body["chassis"], body["port"]
    name = next((key for key, value in chassis.items() if isinstance(value, Mapping) and "id" in value), "")
    return {"switch": name, "port": str(port["id"]["value"]), "description": str(port.get("descr", ""))}


def check_netplan(configuration: str) -> dict[str, Any]:
    """{valid} or {error}: netplan's own generator judges the text in a scratch directory; nothing is applied."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "etc/netplan/60-gpu-cutover.yaml"
        target.parent.mkdir(parents=True)
        target.write_text(configuration)
        target.chmod(0o600)
        answer = run_tool(["netplan", "generate", "--root-dir", scratch], NETPLAN_TIMEOUT_S)
    return {"error": answer.error} if answer.error else {"valid": True}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
