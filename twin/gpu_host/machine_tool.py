#!/usr/bin/python3
"""Stand-ins for dmidecode, ipmitool, nvme, lspci and ethtool, by the name they are called under.

They print the machine of `/etc/twin/machine.json`, which the lab writes from the site's purchase record and tier
profile.
Imitates: `dmidecode [-t LIST] [-s KEYWORD]` for types 0, 1, 4, 17; `ipmitool sdr type temperature`, `dcmi power
reading`, `mc info`;
`nvme list [-o json]`; `lspci [-D] [-d 10de:]` (GPUs, adapters and drives only); `ethtool PORT` (state and speed).
Does NOT imitate: anything else of these tools (it is refused, exit 1), `/sys/class/dmi` and `/sys/bus/pci`, which
show the real machine.
Standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MACHINE = Path("/etc/twin/machine.json")
FAULTS = Path("/var/lib/twin/faults.json")
TYPES = {"bios": [0], "system": [1], "processor": [4], "memory": [17]}
INLET_CELSIUS = 24.0


def faults() -> dict[str, Any]:
    """The faults in force."""
    try:
        data: dict[str, Any] = json.loads(FAULTS.read_text())
    except (OSError, ValueError):
        return {}
    return data


def structure(handle: int, kind: int, title: str, fields: dict[str, Any]) -> str:
    """One DMI structure as dmidecode prints it."""
    lines = [
        f"Handle 0x{handle:04X}, DMI type {kind}, 64 bytes",
        title,
        *(f"\t{name}: {value}" for name, value in fields.items()),
    ]
    return "\n".join(lines) + "\n"


def dmidecode(machine: dict[str, Any], arguments: list[str]) -> str:
    """Firmware, system, processors, memory."""
    system = machine["system"]
    keywords = {
        "system-manufacturer": system["manufacturer"],
        "system-product-name": system["product"],
        "system-serial-number": system["serial"],
        "bios-version": "2.3",
        "bios-release-date": "08/14/2026",
    }
    if arguments[:1] == ["-s"]:
        return f"{keywords[arguments[1]]}\n"
    wanted = [0, 1, 4, 17]
    if arguments[:1] in (["-t"], ["--type"]):
        wanted = [kind for word in arguments[1].split(",") for kind in (TYPES.get(word) or [int(word)])]
    found = ["# dmidecode 3.4\nGetting SMBIOS data from sysfs.\nSMBIOS 3.5.0 present.\n"]
    if 0 in wanted:
        found.append(
            structure(
                0,
                0,
                "BIOS Information",
                {"Vendor": "American Megatrends", "Version": "2.3", "Release Date": "08/14/2026"},
            )
        )
    if 1 in wanted:
        fields = {
            "Manufacturer": system["manufacturer"],
            "Product Name": system["product"],
            "Serial Number": system["serial"],
        }
        found.append(structure(1, 1, "System Information", fields))
    if 4 in wanted:
        found += [_processor(machine["cpus"], number) for number in range(machine["cpus"]["count"])]
    if 17 in wanted:
        found += [_dimm(machine["dimms"], number) for number in range(machine["dimms"]["count"])]
    return "\n".join(found)


def _processor(cpus: dict[str, Any], number: int) -> str:
    fields = {
        "Socket Designation": f"CPU{number + 1}",
        "Type": "Central Processor",
        "Version": f"{cpus['model']} {cpus['cores']}-Core Processor",
        "Status": "Populated, Enabled",
        "Core Count": cpus["cores"],
        "Core Enabled": cpus["cores"],
        "Thread Count": 2 * cpus["cores"],
    }
    return structure(0x40 + number, 4, "Processor Information", fields)


def _dimm(dimms: dict[str, Any], number: int) -> str:
    fields = {
        "Size": f"{dimms['gib']} GB",
        "Form Factor": "DIMM",
        "Locator": f"DIMM{number:02d}",
        "Type": "DDR5",
        "Speed": "4800 MT/s",
        "Serial Number": f"{0x80AD0000 + number:08X}",
        "Part Number": "M321R8GA0BB0-CQK",
        "Configured Memory Speed": "4800 MT/s",
    }
    return structure(0x60 + number, 17, "Memory Device", fields)


def ipmitool(machine: dict[str, Any], arguments: list[str]) -> str:
    """Inlet, power, controller."""
    words = [word.lower() for word in arguments]
    if words[:3] == ["sdr", "type", "temperature"]:
        return f"Inlet Temp       | 05h | ok  |  7.1 | {faults().get('inlet_celsius', INLET_CELSIUS):.0f} degrees C\n"
    if words[:3] == ["dcmi", "power", "reading"]:
        return f"    Instantaneous power reading:                   {machine['idle_watts']} Watts\n"
    if words[:2] == ["mc", "info"]:
        return "Firmware Revision         : 1.05\nIPMI Version              : 2.0\n"
    raise KeyError(" ".join(arguments))


def nvme(machine: dict[str, Any], arguments: list[str]) -> str:
    """`nvme list`."""
    if arguments[:1] != ["list"]:
        raise KeyError(" ".join(arguments))
    devices = [
        {
            "DevicePath": f"/dev/nvme{number}n1",
            "Firmware": "GDC5602Q",
            "ModelNumber": drive["model"],
            "SerialNumber": drive["serial"],
            "PhysicalSize": drive["gb"] * 10**9,
            "UsedBytes": 0,
            "SectorSize": 512,
        }
        for number, drive in enumerate(machine["nvme"])
    ]
    if "json" in arguments:
        return json.dumps({"Devices": devices}, indent=2) + "\n"
    return "".join(f"{device['DevicePath']} {device['SerialNumber']} {device['ModelNumber']}\n" for device in devices)


def lspci(machine: dict[str, Any], arguments: list[str]) -> str:
    """The boards of the purchase record."""
    gpus = [
        f"{bus[4:].lower()} 3D controller: NVIDIA Corporation {gpu['model']}"
        for bus, gpu in zip(machine["gpu_bus_ids"], machine["gpus"], strict=True)
    ]
    if "10de:" in arguments:
        return "\n".join(gpus) + "\n"
    nics = [f"0000:a{number}:00.0 Ethernet controller: {nic['model']}" for number, nic in enumerate(machine["nics"])]
    drives = [
        f"0000:8{number}:00.0 Non-Volatile memory controller: {drive['model']}"
        for number, drive in enumerate(machine["nvme"])
    ]
    return "\n".join([*gpus, *nics, *drives]) + "\n"


def ethtool(machine: dict[str, Any], arguments: list[str]) -> str:
    """State and speed of a port: the cabling record's speed, the kernel's state."""
    port = arguments[-1]
    folder = Path("/sys/class/net") / port
    if len(arguments) != 1 or not folder.is_dir():
        raise KeyError(" ".join(arguments))
    speed = machine["ports"].get(port)
    up = (folder / "operstate").read_text().strip() == "up"
    told = f"{int(speed * 1000)}Mb/s" if speed and up else "Unknown!"
    link = "yes" if up else "no"
    return f"Settings for {port}:\n\tSpeed: {told}\n\tDuplex: Full\n\tAuto-negotiation: on\n\tLink detected: {link}\n"


TOOLS = {"dmidecode": dmidecode, "ipmitool": ipmitool, "nvme": nvme, "lspci": lspci, "ethtool": ethtool}


def main() -> int:
    """Answer as the tool under whose name this was called."""
    name = Path(sys.argv[0]).name
    try:
        print(TOOLS[name](json.loads(MACHINE.read_text()), sys.argv[1:]), end="")
    except (KeyError, ValueError, OSError) as error:
        print(f"{name}: not imitated or not there: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
