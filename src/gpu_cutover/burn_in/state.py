"""A burn-in's identity and deadline on disk: what makes it survive the controller, its own death and a reboot."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

DIRECTORY = Path("/var/lib/gpu-cutover/burn-in")
CONFIG_FILE = Path("/etc/gpu-cutover/burn-in.json")
STATE, TELEMETRY, EVIDENCE, REQUEST = "state.json", "telemetry.jsonl", "evidence.json", "request.json"


@dataclass(frozen=True)
class Config:
    """What to burn in. `load_command` has {gpu} and {seconds}; `engine_load` lists requests {url, body}. Seconds."""

    gpus: int
    duration_s: float
    interval_s: float = 1.0
    margin_floor_celsius: float = 5.0
    load_command: list[str] = field(default_factory=list)
    engine_load: list[dict[str, Any]] = field(default_factory=list)
    engine_load_interval_s: float = 1.0
    directory: str = str(DIRECTORY)

    @property
    def digest(self) -> str:
        """Two burn-ins are the same only if all of this is the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def load_config(path: Path = CONFIG_FILE) -> Config:
    """Read the file that the role `burn_in` wrote. Raises InputError."""
    try:
        raw = json.loads(path.read_text())
        return Config(**raw)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(str(path), "-", str(error), "run the role burn_in") from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write whole, by rename. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w") as handle:
        json.dump(data, handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def uptime_s() -> float:
    """Seconds since the boot, also those asleep; no one can set them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def elapsed_s(state: Mapping[str, Any], boot: str, uptime: float, now: float) -> float:
    """How much of a burn-in has passed when a session begins: counted within its boot, by the wall clock across one.

    Never less than what earlier sessions had reached.
    """
    reached = max((float(session.get("reached_s", 0.0)) for session in state["sessions"]), default=0.0)
    same = state.get("boot") == boot
    return max(reached, uptime - float(state["uptime_s"]) if same else now - float(state["started"]))


def boot_id() -> str:
    """The kernel's identifier of this boot, shortened."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def begin(config: Config, now: float) -> dict[str, Any]:
    """A new burn-in's state; its deadline stands from here on, whatever happens to the process."""
    return {
        "id": uuid.uuid4().hex[:12],
        "config": config.digest,
        "started": now,
        "boot": boot_id(),
        "uptime_s": uptime_s(),
        "deadline": now + config.duration_s,
        "duration_s": config.duration_s,
        "interval_s": config.interval_s,
        "gpus": config.gpus,
        "margin_floor_celsius": config.margin_floor_celsius,
        "sessions": [],
    }


def progress(directory: Path, now: float) -> dict[str, Any]:
    """Where a burn-in stands: `absent`, `running` or `finished`, its share done (0..1) and its configuration."""
    evidence, state = read_json(directory / EVIDENCE), read_json(directory / STATE)
    if state is None:
        return {"status": "absent", "share": 0.0, "config": None, "id": None, "left_s": None}
    finished = evidence is not None and evidence.get("id") == state["id"]
    left = max(0.0, state["deadline"] - now)
    share = 1.0 if finished else min(1.0, 1 - left / max(state["duration_s"], 0.001))
    status = "finished" if finished else "running"
    return {"status": status, "share": round(share, 4), "config": state["config"], "id": state["id"], "left_s": left}
