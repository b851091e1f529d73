"""What the firmware says is in the machine: dmidecode's text, parsed. Pure but for `read_dmi`."""

from __future__ import annotations

import re
from typing import Any

from .tools import run_tool

TIMEOUT_S = 10.0
SIZE = re.compile(r"(\d+)\s*(MB|MiB|GB|GiB|TB|TiB)")
MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}

Structure = dict[str, str]


def read_dmi() -> dict[str, Any]:
    """System, firmware, CPUs and DIMMs, or {error}."""
    answer = run_tool(["dmidecode", "-t", "0,1,4,17"], TIMEOUT_S)
    return {"error": answer.error} if answer.error else parse_dmi(answer.stdout)


def parse_dmi(text: str) -> dict[str, Any]:
    """Sizes in GiB, speeds in MT/s; empty sockets and slots are left out. A text without a system is {error}."""
    found = structures(text)
    systems = [fields for title, fields in found if title == "System Information"]
    if not systems:
        return {"error": "dmidecode: no system information in its answer"}
    bios = next((fields for title, fields in found if title == "BIOS Information"), {})
    dimms = [_dimm(fields) for title, fields in found if title == "Memory Device"]
    fitted = [dimm for dimm in dimms if dimm["gib"] > 0]
    return {
        "system": {
            "manufacturer": systems[0].get("Manufacturer", ""),
            "product": systems[0].get("Product Name", ""),
            "serial": systems[0].get("Serial Number", ""),
        },
        "firmware": {"version": bios.get("Version", ""), "date": bios.get("Release Date", "")},
        "cpus": [_cpu(fields) for title, fields in found if title == "Processor Information" and _populated(fields)],
        "dimms": fitted,
        "memory_gib": sum(dimm["gib"] for dimm in fitted),
    }


def structures(text: str) -> list[tuple[str, Structure]]:
    """(title, {field: value}) of every structure in dmidecode's output; list-valued fields are left out."""
    found: list[tuple[str, Structure]] = []
    expects_title = False
    for line in text.splitlines():
        if line.startswith("Handle 0x"):
            expects_title = True
        elif expects_title and line and not line[0].isspace():
            found.append((line.strip(), {}))
            expects_title = False
        elif found and line.startswith("\t") and not line.startswith("\t\t"):
            name, _, value = line.strip().partition(":")
            found[-1][1][name] = value.strip()
    return found


def _populated(fields: Structure) -> bool:
    return fields.get("Status", "").startswith("Populated")


def _cpu(fields: Structure) -> dict[str, Any]:
    return {
        "socket": fields.get("Socket Designation", ""),
        "model": fields.get("Version", ""),
        "cores": _integer(fields.get("Core Count", "")),
    }


def _dimm(fields: Structure) -> dict[str, Any]:
    size = SIZE.search(fields.get("Size", ""))
    return {
        "slot": fields.get("Locator", ""),
        "gib": int(size[1]) * MIB[size[2][0]] / 1024 if size else 0,
        "speed_mt_s": _integer(fields.get("Configured Memory Speed", fields.get("Speed", ""))),
        "serial": fields.get("Serial Number", ""),
        "part": fields.get("Part Number", ""),
    }


def _integer(text: str) -> int | None:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else None
