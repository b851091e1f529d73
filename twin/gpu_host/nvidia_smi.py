#!/usr/bin/python3
"""A stand-in for nvidia-smi over the simulated GPUs.

Imitates: `-L`, `--query-gpu=… --format=csv[,noheader][,nounits]` for the fields below, `-pl W [-i N]`, `-pm 1`,
`topo -m`, and a
short table without arguments. Does NOT imitate: XML (`-q -x`), resets, MIG, accounting, `dmon`; an unknown flag is
an error.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path

sys.path[:0] = ["/usr/local/lib/twin", str(Path(__file__).resolve().parent.parent / "shared")]
import load  # noqa: E402
import state  # noqa: E402

MIB = 2**20
FIELDS = {
    "index": (lambda gpu: str(gpu.index), ""),
    "name": (lambda gpu: gpu("name"), ""),
    "uuid": (lambda gpu: gpu("uuid"), ""),
    "serial": (lambda gpu: gpu("serial"), ""),
    "pci.bus_id": (lambda gpu: gpu("bus_id"), ""),
    "driver_version": (lambda gpu: gpu.all["driver"], ""),
    "vbios_version": (lambda gpu: gpu("vbios"), ""),
    "temperature.gpu": (lambda gpu: gpu("temp"), ""),
    "power.draw": (lambda gpu: f"{int(gpu('power_mw')) / 1000:.2f}", "W"),
    "temperature.gpu.tlimit": (lambda gpu: str(int(gpu("tlimit.ref")) - int(gpu("temp"))), ""),
    "power.limit": (lambda gpu: f"{int(gpu('limit_mw')) / 1000:.2f}", "W"),
    "power.max_limit": (lambda gpu: f"{int(gpu('limit_max_mw')) / 1000:.2f}", "W"),
    "memory.total": (lambda gpu: str(int(gpu("mem.total")) // MIB), "MiB"),
    "memory.used": (lambda gpu: str((int(gpu("mem.used")) + int(gpu("mem.reserved"))) // MIB), "MiB"),
    "memory.free": (
        lambda gpu: str((int(gpu("mem.total")) - int(gpu("mem.used")) - int(gpu("mem.reserved"))) // MIB),
        "MiB",
    ),
    "utilization.gpu": (lambda gpu: gpu("util.gpu"), "%"),
    "persistence_mode": (lambda gpu: "Enabled", ""),
    "pcie.link.gen.current": (lambda gpu: gpu("pcie.gen"), ""),
    "pcie.link.width.current": (lambda gpu: gpu("pcie.width"), ""),
    "pcie.link.gen.max": (lambda gpu: gpu("pcie.gen_max"), ""),
    "pcie.link.width.max": (lambda gpu: gpu("pcie.width_max"), ""),
    "ecc.errors.uncorrected.volatile.total": (lambda gpu: gpu("ecc.dbe.vol"), ""),
    "ecc.mode.current": (lambda gpu: "Enabled", ""),
    "clocks_event_reasons.active": (lambda gpu: f"0x{int(gpu('reasons'), 0):016x}", ""),
    "mig.mode.current": (lambda gpu: "[N/A]", ""),
}


class Gpu:
    """One GPU's values by key."""

    def __init__(self, everything: dict[str, str], index: int) -> None:
        self.all, self.index = everything, index

    def __call__(self, key: str) -> str:
        return state.of_gpu(self.all, self.index, key)


def query(gpus: list[Gpu], fields: list[str], options: list[str]) -> int:
    """Print CSV as nvidia-smi does."""
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        print(f'Field "{unknown[0]}" is not a valid field to query.')
        return 2
    if "noheader" not in options:
        print(
            ", ".join(
                name if "nounits" in options or not FIELDS[name][1] else f"{name} [{FIELDS[name][1]}]"
                for name in fields
            )
        )
    for gpu in gpus:
        cells = [
            f"{FIELDS[name][0](gpu)} {FIELDS[name][1]}".strip() if "nounits" not in options else FIELDS[name][0](gpu)
            for name in fields
        ]
        print(", ".join(cells))
    return 0


def set_limit(gpus: list[Gpu], watts: int) -> int:
    """Ask the thermal process for a power limit."""
    import socket

    for gpu in gpus:
        low, high = int(gpu("limit_min_mw")) // 1000, int(gpu("limit_max_mw")) // 1000
        if not low <= watts <= high:
            print(
                f"Provided power limit {watts}.00 W is not a valid power limit "
                f"which should be between {low}.00 W and {high}.00 W"
            )
            return 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(f"limit {gpu.index} {watts * 1000}".encode(), load.SOCKET)
        print(f"Power limit for GPU {gpu('bus_id')} was set to {watts}.00 W from {int(gpu('limit_mw')) / 1000:.2f} W.")
    print("All done.")
    return 0


def topology(gpus: list[Gpu]) -> int:
    """`topo -m`: NVLink mesh, or pairs per socket."""
    linked = gpus[0]("nvlink.links") not in ("N/A", "0")
    print("\t" + "\t".join(f"GPU{gpu.index}" for gpu in gpus))
    for one in gpus:
        cells = [
            "X" if one is other else "NV6" if linked else "NODE" if one.index // 2 == other.index // 2 else "SYS"
            for other in gpus
        ]
        print(f"GPU{one.index}\t" + "\t".join(cells))
    return 0


def driver_trouble() -> tuple[int, str] | None:
    """Ask the installed library, as nvidia-smi does: exit status and words when it cannot speak to the driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."
    status = int(library.nvmlInit_v2())
    if status == 18:
        return 18, "Failed to initialize NVML: Driver/library version mismatch"
    return (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") if status else None


def main() -> int:
    """Parse the few forms that scripts use."""
    parser = argparse.ArgumentParser(prog="nvidia-smi", allow_abbrev=False)
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("--query-gpu")
    parser.add_argument("--format", default="csv")
    parser.add_argument("-i", "--id")
    parser.add_argument("-pl", "--power-limit", type=int)
    parser.add_argument("-pm", "--persistence-mode")
    parser.add_argument("words", nargs="*")
    parser.add_argument("-m", "--matrix", action="store_true")
    options = parser.parse_args()
    trouble = driver_trouble()
    if trouble:
        print(trouble[1])
        return trouble[0]
    everything = state.read()
    chosen = range(state.count(everything)) if options.id is None else state.visible(everything, options.id)
    lost = [index for index in chosen if state.is_lost(everything, index)]
    if lost:
        print(
            f"Unable to determine the device handle for GPU{lost[0]}: "
            f"{state.of_gpu(everything, lost[0], 'bus_id')}: Unknown Error"
        )
        return 15
    gpus = [Gpu(everything, index) for index in chosen]
    if options.words[:1] == ["topo"]:
        return topology(gpus)
    if options.power_limit is not None:
        return set_limit(gpus, options.power_limit)
    if options.query_gpu:
        return query(gpus, options.query_gpu.split(","), options.format.split(","))
    for gpu in gpus:
        print(
            f"GPU {gpu.index}: {gpu('name')} (UUID: {gpu('uuid')})"
            if options.list_gpus
            else f"{gpu('name')}  {gpu('temp')}C  {gpu('util.gpu')}%"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
