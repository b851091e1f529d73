"""The GPUs as the driver shows them (nvidia-smi) and as the bus shows them without a driver (sysfs)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tools import run_tool

TIMEOUT_S = 15.0
NVIDIA = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers

# The names nvidia-smi takes for --query-gpu, and ours.
FIELDS = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "serial": "serial",
    "pci.bus_id": "bus_id",
    "memory.total": "memory_mib",
    "driver_version": "driver",
    "persistence_mode": "persistence",
    "pcie.link.width.current": "pcie_width",
    "vbios_version": "vbios",
}
NUMBERS = frozenset({"index", "memory_mib", "pcie_width"})
ABSENT = frozenset({"", "[N/A]", "N/A", "[Not Supported]", "[Unknown Error]"})


def read_gpus() -> dict[str, Any]:
    """{gpus: [...]} from nvidia-smi, or {error, hung}."""
    answer = run_tool(["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"], TIMEOUT_S)
    return {"error": answer.error, "hung": answer.hung} if answer.error else parse_gpus(answer.stdout)


def parse_gpus(text: str) -> dict[str, Any]:
    """One GPU a line; memory in MiB; what the driver does not know is None. A line of another shape is {error}."""
    gpus = []
    for line in filter(str.strip, text.splitlines()):
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(FIELDS):
            return {"error": f"nvidia-smi: unexpected answer {line[:120]!r}"}
        gpus.append({name: _value(name, value) for name, value in zip(FIELDS.values(), values, strict=True)})
    return {"gpus": gpus}


def count_on_bus(sysfs: Path = Path("/sys")) -> int:
    """GPUs of NVIDIA that the PCI bus shows, driver or not."""
    return sum(
        _text(device / "vendor") == NVIDIA and _text(device / "class").startswith(DISPLAY_CLASSES)
        for device in (sysfs / "bus/pci/devices").glob("*")
    )


def _value(name: str, text: str) -> str | int | None:
    if text in ABSENT:
        return None
    if name in NUMBERS:
        return int(text) if text.isdecimal() else None
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
