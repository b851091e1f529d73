"""What the lab itself runs: the resolver, the clock, the switch's LLDP, and whatever the stand-ins ask for (BMCs).

Each is one process in its own control group inside the lab's network, found by name and ended with the lab.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from ..errors import InputError
from . import cgroups, enter, lldp, ntp
from .lab import BRIDGE, Lab

DEFAULT_SWITCH = "sw1"


class Service(Protocol):
    """One process of the lab: what `standins.infrastructure` returns a list of."""

    @property
    def name(self) -> str:
        """Unique in the lab; the name of its control group and log."""

    @property
    def argv(self) -> Sequence[str]:
        """The command, run in the lab's network."""

    @property
    def env(self) -> Mapping[str, str]:
        """Added to the environment."""


@dataclass(frozen=True)
class Command:
    """A `Service` as plain data."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def dnsmasq_config(lab: Lab) -> str:
    """Forward and reverse records of every host, further names where the inventory gives them, nothing else."""
    lines = [
        "keep-in-foreground",
        "log-facility=-",
        "user=nobody",
        "group=nogroup",
        "pid-file=",
        "bind-interfaces",
        f"interface={BRIDGE}",
        "except-interface=lo",
        "no-resolv",
        "no-hosts",
        "local=/#/",
        "local-ttl=5",
        f"host-record=switch.{lab.domain},switch,{lab.gateway}",
        *(f"address=/{name}/{lab.gateway}" for name in lab.gateway_names),
    ]
    for host in lab.hosts.values():
        lines.append(f"host-record={host.name}.{lab.domain},{host.name},{host.address}")
        lines += [f"address=/{alias}/{host.address}" for alias in host.aliases]
    if lab.shared:
        lines.append(f"host-record={','.join(lab.shared)}")
    return "".join(f"{line}\n" for line in lines)


def wiring(lab: Lab, cables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each bridge port announces: the cabling record's text, or a port numbered by the host's place."""
    recorded = {str(cable.get("host")): cable for cable in cables if str(cable.get("host")) in lab.hosts}
    ports = {}
    for number, host in enumerate(lab.hosts.values(), 1):
        cable = recorded.get(host.name, {})
        port = cable.get("switch_port", f"Ethernet1/{number}")
        ports[host.port] = {"port": str(port), "description": f"{host.name} {cable.get('port', 'eth0')}"}
    switch = next((str(cable["switch"]) for cable in recorded.values() if "switch" in cable), DEFAULT_SWITCH)
    return {"switch": switch, "ports": ports}


def read_cables(path: Path) -> list[Mapping[str, Any]]:
    """The site's cabling record, empty when there is none; raises InputError when it is not a list of cables."""
    if not path.exists():
        return []
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(str(path), "-", " ".join(str(error).split()), "correct the file") from None
    cables = data.get("links") if isinstance(data, dict) else None
    if not isinstance(cables, list) or not all(isinstance(cable, dict) for cable in cables):
        raise InputError(str(path), "links", "is not a list of cables", "give host, port, switch, switch_port")
    return cables


def wiring_path(lab: Lab) -> Path:
    """The file the switch reads before each announcement; changing it is how wrong cabling is injected."""
    return lab.directory / "wiring.json"


def wanted(lab: Lab) -> list[Service]:
    """Every service of the lab; writes the configurations they read."""
    records = dnsmasq_config(lab)
    # named by its content, so that other records are another command line and dnsmasq is started anew
    config = lab.directory / f"dnsmasq-{hashlib.sha256(records.encode()).hexdigest()[:8]}.conf"
    config.write_text(records)
    cables = read_cables(lab.site_dir / "records" / "cabling.yml")
    if not wiring_path(lab).exists():
        wiring_path(lab).write_text(json.dumps(wiring(lab, cables), indent=1))
    own: list[Service] = [
        Command("dns", ("dnsmasq", f"--conf-file={config}")),
        Command("lldp", (sys.executable, "-I", "-S", str(lldp.__file__), str(wiring_path(lab)))),
        Command("ntp", (sys.executable, "-I", "-S", str(ntp.__file__), lab.gateway)),
    ]
    return own + _standins(lab)


def _standins(lab: Lab) -> list[Service]:
    from . import standins  # late: stand-ins describe their processes with this module's `Command`

    return list(standins.infrastructure(lab.site_dir, lab.name))


def group(lab: Lab, name: str) -> Path:
    """The control group of one service."""
    return cgroups.of_lab(lab.name) / "services" / name


def start_missing(lab: Lab) -> list[str]:
    """Start what is not running, restart what changed; the names of those started."""
    started = []
    for service in wanted(lab):
        description = lab.directory / "services" / f"{service.name}.json"
        text = json.dumps({"argv": list(service.argv), "env": dict(service.env)}, indent=1)
        leaf = group(lab, service.name)
        if cgroups.populated(leaf) and description.exists() and description.read_text() == text:
            continue
        cgroups.kill(leaf)
        description.parent.mkdir(exist_ok=True)
        description.write_text(text)
        _start(lab, service)
        started.append(service.name)
    return started


def _start(lab: Lab, service: Service) -> None:
    leaf = cgroups.make(group(lab, service.name))
    network = ("nsenter", f"--net={lab.network}", "--")
    with (lab.directory / "services" / f"{service.name}.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(enter.__file__), str(leaf), *network, *service.argv],
            env={**os.environ, **service.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
