#!/usr/bin/python3
"""The physics of the simulated GPUs, and the only writer of their state (`/var/lib/twin/nvml.state`).

Every half second: declared loads → power (capped by the limit and by throttling) → temperature, one first-order lag per
GPU → clocks-event bits, utilisation, memory, processes. Faults come from `/var/lib/twin/faults.json`.
Does NOT imitate: a heat sink's inertia (5 s here, about a minute in reality), heat passing between neighbours, memory
temperature of its own, clocks, a board that switches itself off (it settles 4 °C above its limit instead).
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("NVML_STANDIN_STATE", "/var/lib/twin/nvml.state"))
SOCKET = Path(os.environ.get("NVML_STANDIN_SOCKET", "/run/twin/load.sock"))
FAULTS = Path(os.environ.get("NVML_STANDIN_FAULTS", "/var/lib/twin/faults.json"))
BOARDS = Path(os.environ.get("NVML_STANDIN_BOARDS", "/etc/twin/gpus.json"))
LOADED_DRIVER = Path(os.environ.get("NVML_STANDIN_DRIVER", "/var/lib/twin/driver.loaded"))

TICK_S = 0.5
LOAD_EXPIRES_S = 3.0
LAG_S = 5.0
INLET_CELSIUS = 24.0
FULL_LOAD_RISE = 42.0  # °C over the inlet at the board's maximum power with healthy fans
IDLE_SHARE = 0.1  # of the maximum power
FAILED_FAN = 0.1  # share of the cooling that is left
SETTLES_ABOVE = 4.0  # °C over the maximum operating temperature
BIT_IDLE, BIT_POWER_CAP, BIT_SW_THERMAL, BITS_HW_THERMAL = 0x1, 0x4, 0x20, 0x48


@dataclass(frozen=True)
class Board:
    """What does not change. Watts, °C, margins in °C, MiB."""

    name: str
    uuid: str
    serial: str
    bus_id: str
    part_number: str
    vbios: str
    pci_device: str
    memory_mib: int
    reserved_mib: int
    power_min_w: int
    power_max_w: int
    max_operating_celsius: int
    tlimit_slowdown: int
    tlimit_shutdown: int
    memory_sensor: bool
    mig: bool
    remap_banks: int
    pcie_gen: int
    pcie_width: int
    nvlinks: int


@dataclass
class Gpu:
    """What changes."""

    board: Board
    celsius: float = INLET_CELSIUS + IDLE_SHARE * FULL_LOAD_RISE
    limit_w: float = 0.0
    energy_j: float = 0.0
    shown: int | None = None  # a stuck sensor's last word


@dataclass
class Load:
    """One process's declaration."""

    share: float
    memory_bytes: int
    gpus: list[int]
    at: float


@dataclass
class Faults:
    """What is broken, as `gpu-cutover twin fault` wrote it."""

    fan: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    stuck: list[int] = field(default_factory=list)
    ecc: dict[str, int] = field(default_factory=dict)
    inlet_celsius: float = INLET_CELSIUS
    hang_s: float = 0.0
    psu_failed: list[int] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> Faults:
        """The file's faults; none when there is no file. Unknown keys are for other stand-ins."""
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError):
            return Faults()
        return Faults(**{key: value for key, value in data.items() if key in Faults.__dataclass_fields__})


def power(board: Board, share: float, limit_w: float, celsius: float) -> tuple[float, int]:
    """Watts drawn and clocks-event bits for a load share 0..1 at a temperature."""
    wanted = board.power_max_w * (IDLE_SHARE + (1 - IDLE_SHARE) * share)
    bits = BIT_IDLE if share == 0 else 0
    if wanted > limit_w or share >= 0.98:
        bits |= BIT_POWER_CAP
    drawn = min(wanted, limit_w)
    if celsius >= board.max_operating_celsius - board.tlimit_slowdown:
        return drawn * 0.5, bits | BIT_SW_THERMAL | BITS_HW_THERMAL
    if celsius >= board.max_operating_celsius:
        return drawn * 0.75, bits | BIT_SW_THERMAL
    return drawn, bits


def settles_at(board: Board, watts: float, inlet: float, cooling: float) -> float:
    """The temperature that this power leads to, °C; `cooling` 1.0 is healthy."""
    return min(
        inlet + FULL_LOAD_RISE * watts / board.power_max_w / cooling, board.max_operating_celsius + SETTLES_ABOVE
    )


def step(celsius: float, target: float, seconds: float) -> float:
    """One first-order step towards the target."""
    return target + (celsius - target) * math.exp(-seconds / LAG_S)


def advance(gpu: Gpu, share: float, seconds: float, inlet: float, fan_failed: bool) -> tuple[float, int]:
    """Move one GPU on by `seconds`; returns its power in watts and its clocks-event bits."""
    watts, bits = power(gpu.board, share, gpu.limit_w or gpu.board.power_max_w, gpu.celsius)
    target = settles_at(gpu.board, watts, inlet, FAILED_FAN if fan_failed else 1.0)
    gpu.celsius = step(gpu.celsius, target, seconds)
    gpu.energy_j += watts * seconds
    return watts, bits


def is_alive(pid: int) -> bool:
    """Is there such a process?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Machine:
    """All GPUs, their loads and the state file."""

    def __init__(self, boards: list[Board], driver: str) -> None:
        self.gpus = [Gpu(board, limit_w=board.power_max_w) for board in boards]
        self.loads: dict[tuple[int, str], Load] = {}
        self.driver = driver
        self.started = time.monotonic()

    def message(self, text: str, pid: int, user: int, now: float) -> bool:
        """Take in one datagram; True when the state changed at once (memory, or a power limit, root only)."""
        words = text.split()
        if len(words) == 3 and words[0] == "limit" and user == 0 and int(words[1]) < len(self.gpus):
            self.gpus[int(words[1])].limit_w = int(words[2]) / 1000
            return True
        if len(words) == 5 and words[0] == "load":
            gpus = [int(item) for item in words[4].split(",") if item.isdigit()]
            held = self.loads.get((pid, words[1]))
            self.loads[pid, words[1]] = Load(min(1.0, max(0.0, float(words[2]))), int(words[3]), gpus, now)
            return held is None or (held.memory_bytes, held.gpus) != (int(words[3]), gpus)
        return False

    def forget(self, now: float) -> None:
        """Drop loads whose process is gone; one that is only silent computes no more but holds its memory."""
        self.loads = {key: load for key, load in self.loads.items() if is_alive(key[0])}
        for load in self.loads.values():
            if now - load.at > LOAD_EXPIRES_S:
                load.share = 0.0

    def advance(self, seconds: float, now: float, faults: Faults) -> str:
        """Move everything on and return the new state file."""
        self.forget(now)
        lines = [
            f"count={len(self.gpus)}",
            f"driver={self.driver}",
            f"nvml=13.{self.driver}",
            "cuda=13000",
            "gpu.ecc=1",
            "gpu.persistence=1",
            f"inlet={faults.inlet_celsius}",
        ]
        if faults.hang_s:
            lines.append(f"hang={faults.hang_s}")
        wobble = 0.8 * math.sin((now - self.started) / 3.0)
        for index, gpu in enumerate(self.gpus):
            here = {key: load for key, load in self.loads.items() if index in load.gpus}
            share = min(1.0, sum(load.share for load in here.values()))
            watts, bits = advance(gpu, share, seconds, faults.inlet_celsius, index in faults.fan)
            lines += self._lines(index, gpu, share, watts, bits, here, faults, wobble)
        return "\n".join(lines) + "\n"

    def _lines(
        self,
        index: int,
        gpu: Gpu,
        share: float,
        watts: float,
        bits: int,
        loads: dict[tuple[int, str], Load],
        faults: Faults,
        wobble: float,
    ) -> list[str]:
        board = gpu.board
        shown = round(gpu.celsius + wobble)
        gpu.shown = (gpu.shown if gpu.shown is not None else shown) if index in faults.stuck else None
        celsius = shown if gpu.shown is None else gpu.shown
        memory: dict[int, int] = {}
        for (pid, _), load in loads.items():
            memory[pid] = memory.get(pid, 0) + load.memory_bytes
        errors = int(faults.ecc.get(str(index), 0))
        values: dict[str, Any] = {
            "name": board.name,
            "uuid": board.uuid,
            "serial": board.serial,
            "bus_id": board.bus_id,
            "minor": index,
            "part_number": board.part_number,
            "vbios": board.vbios,
            "inforom": "G520.0202.00.05",
            "pci_device": board.pci_device,
            "lost": int(index in faults.lost),
            "temp": celsius,
            "tlimit.ref": board.max_operating_celsius,
            "tlimit.gpu_max": 0,
            "tlimit.slowdown": board.tlimit_slowdown,
            "tlimit.shutdown": board.tlimit_shutdown,
            "tlimit.mem_max": 0 if board.memory_sensor else "N/A",
            "mem_temp": celsius + 6 if board.memory_sensor else "N/A",
            "reasons": hex(bits),
            "power_mw": round(watts * 1000),
            "energy_mj": round(gpu.energy_j * 1000),
            "limit_mw": round(gpu.limit_w * 1000),
            "limit_default_mw": board.power_max_w * 1000,
            "limit_min_mw": board.power_min_w * 1000,
            "limit_max_mw": board.power_max_w * 1000,
            "util.gpu": round(share * 100),
            "util.mem": round(share * 60),
            "pstate": 0 if loads else 8,
            "compute_mode": 0,
            "clock.sm": 1980 if loads else 210,
            "clock.graphics": 1980 if loads else 210,
            "clock.sm.max": 2520,
            "clock.graphics.max": 2520,
            "mem.total": board.memory_mib * 2**20,
            "mem.reserved": board.reserved_mib * 2**20,
            "mem.used": sum(memory.values()),
            "processes": ",".join(f"{pid}:{size}" for pid, size in sorted(memory.items())[:8]),
            "ecc.sbe.vol": 0,
            "ecc.sbe.agg": 0,
            "ecc.dbe.vol": errors,
            "ecc.dbe.agg": errors,
            "remap.corr": 0,
            "remap.unc": min(errors, 1),
            "remap.pending": int(errors > 0),
            "remap.failure": 0,
            "remap.banks": board.remap_banks,
            "recovery_action": 2 if index in faults.lost else int(errors > 0),
            "mig": 0 if board.mig else "N/A",
            "pcie.gen": board.pcie_gen,
            "pcie.width": board.pcie_width,
            "pcie.gen_max": board.pcie_gen,
            "pcie.width_max": board.pcie_width,
            "pcie.replay": 0,
            "nvlink.links": board.nvlinks or "N/A",
        }
        return [f"gpu{index}.{key}={value}" for key, value in values.items()]


def write(path: Path, text: str) -> None:
    """Replace the state whole; readers open it on every call."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(path)


def listen(path: Path) -> socket.socket:
    """The load socket; anybody may declare a load, the kernel says who it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    channel.bind(str(path))
    path.chmod(0o666)
    return channel


def receive(channel: socket.socket, seconds: float) -> tuple[str, int, int] | None:
    """One datagram with its sender's pid and user, or None after `seconds`."""
    channel.settimeout(max(0.001, seconds))
    try:
        data, ancillary, _, _ = channel.recvmsg(512, socket.CMSG_SPACE(struct.calcsize("3i")))
    except TimeoutError:
        return None
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, user, _ = struct.unpack("3i", content[: struct.calcsize("3i")])
            return data.decode(errors="replace"), pid, user
    return data.decode(errors="replace"), 0, -1


def main() -> int:
    """Run until told to stop."""
    boards = [Board(**entry) for entry in json.loads(BOARDS.read_text())]
    driver = LOADED_DRIVER.read_text().strip() if LOADED_DRIVER.exists() else "570.195.03"
    machine = Machine(boards, driver)
    channel = listen(SOCKET)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    last = time.monotonic()
    write(STATE, machine.advance(0.0, last, Faults.read(FAULTS)))
    while True:
        message = receive(channel, last + TICK_S - time.monotonic())
        now = time.monotonic()
        changed = False
        if message:
            with contextlib.suppress(ValueError):
                changed = machine.message(*message, now)
        if changed or now - last >= TICK_S:
            write(STATE, machine.advance(min(now - last, 5.0), now, Faults.read(FAULTS)))
            last = now


if __name__ == "__main__":
    sys.exit(main())
