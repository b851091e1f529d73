"""Day 2: does every cable run as drawn, does every name resolve both ways, is time right and the air cool? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .check import About, Check, at_least, at_most, equals, number, reading_of, unproven

DRAWING = "records/cabling.yml"
CLOCK_OFFSET_MAX_S = 0.1
CLOCK_SOURCE = "records of several hosts are put in order by time; a tenth of a second is below the shortest step"


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """The gate of day 2 over every host of the site."""
    network = plan["site"]["network"]
    links = ((plan.get("records") or {}).get("cabling") or {}).get("links") or []
    found: list[Check] = []
    for host in sorted({name for names in plan["hosts"].values() for name in names}):
        reading, why = reading_of(readings, "network", host)
        drawn = [link for link in links if link["host"] == host]
        found += _cables(host, drawn, reading, network["mtu"], why)
        found += names(host, reading, why)
        found += [_clock(host, reading, why), _netplan(host, reading, why)]
        if host in plan["hosts"]["gpu"]:
            found += inlet(host, reading, network["inlet_celsius"], why)
    return found


def _cables(host: str, drawn: list[Any], reading: Mapping[str, Any], mtu: int, why: str) -> list[Check]:
    if not drawn:
        return [unproven("cable.drawn", DRAWING, "Cables of this host in the drawing", host, "the drawing has none")]
    return [check for link in drawn for check in cable(host, link, reading, mtu, why)]


def cable(host: str, link: Mapping[str, Any], reading: Mapping[str, Any], mtu: int, why: str) -> list[Check]:
    """One cable against the drawing: up, as fast and as wide as drawn, and on the right switch port."""
    name = str(link["port"])
    port = (reading.get("ports") or {}).get(name) or {}
    reason = why or str(port.get("error", ""))
    neighbour = port.get("neighbour") or {}
    heard = f"{neighbour['switch']} {neighbour['port']}" if neighbour else None
    unheard = reason or str(reading.get("lldp_error", "")) or "no switch was heard on this port"
    drawing, heard_there = About(host, DRAWING, reason), About(host, DRAWING, unheard)
    drawn = f"{link['switch']} {link['switch_port']}"
    return [
        drawing.equals(f"link.up.{name}", port.get("up"), True, f"Port {name} is up"),
        drawing.equals(f"link.speed.{name}", port.get("gbit_s"), link["gbit_s"], f"Speed of port {name}", "Gbit/s"),
        About(host, "site network.mtu", reason).equals(
            f"link.mtu.{name}", port.get("mtu"), mtu, f"Frame size of port {name}", "bytes"
        ),
        heard_there.equals(f"link.lldp.{name}", heard, drawn, f"Port {name} hangs on the drawn switch port"),
    ]


def names(host: str, reading: Mapping[str, Any], why: str) -> list[Check]:
    """Every name of the site resolves to its address, and every address back to its name, from this host."""
    asked = reading.get("names") or {}
    errors = [f"{name}: {answer['error']}" for name, answer in asked.items() if "error" in answer]
    reason = why or "; ".join(errors) or ("no name was asked" if not asked else "")
    source = "site network.resolver"
    if reason:
        return [unproven(f"dns.{way}", source, f"Names resolve {way}", host, reason) for way in ("forward", "reverse")]
    wrong = {
        "forward": [name for name, answer in asked.items() if answer["forward"] != [answer["expected"]]],
        "reverse": [name for name, answer in asked.items() if name not in answer["reverse"]],
    }
    return [
        equals(
            f"dns.{way}", len(asked) - len(bad), len(asked), "", source, f"Names that resolve {way}{_listed(bad)}", host
        )
        for way, bad in wrong.items()
    ]


def inlet(host: str, reading: Mapping[str, Any], bounds: list[float], why: str) -> list[Check]:
    """The air in front of the machine, over all chassis its BMC knows."""
    answer = reading.get("inlet") or {}
    values = [value for value in map(number, (answer.get("inlet_celsius") or {}).values()) if value is not None]
    reason = why or str(answer.get("error", "")) or "the BMC has no intake sensor"
    source = "site network.inlet_celsius (ASHRAE A2: 10-35 °C)"
    return [
        at_least("inlet.cold", min(values, default=None), bounds[0], "°C", source, "Coldest inlet air", host, reason),
        at_most("inlet.warm", max(values, default=None), bounds[1], "°C", source, "Warmest inlet air", host, reason),
    ]


def _clock(host: str, reading: Mapping[str, Any], why: str) -> Check:
    clock = reading.get("clock") or {}
    offset = number(clock.get("offset_s"))
    reason = why or str(clock.get("error", ""))
    sentence = f"Clock against time server {clock.get('server', 'of the site')}"
    figure = abs(offset) if offset is not None else None
    return at_most("clock.offset", figure, CLOCK_OFFSET_MAX_S, "s", CLOCK_SOURCE, sentence, host, reason)


def _netplan(host: str, reading: Mapping[str, Any], why: str) -> Check:
    netplan = reading.get("netplan") or {}
    sentence = "netplan accepts the configuration rendered for this host"
    reason = why or str(netplan.get("error", ""))
    return equals("netplan.valid", netplan.get("valid"), True, "", "netplan generate", sentence, host, reason)


def _listed(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"; wrong: {listed}" if listed else ""
