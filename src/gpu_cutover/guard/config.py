"""The guard's configuration file, written by the role `gpu_guard`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .decide import Policy
from .placement import DIRECTORY

CONFIG_FILE = Path("/etc/gpu-cutover/guard.json")
SOCKET = Path("/run/gpu-guard/control")


@dataclass(frozen=True)
class Config:
    """Times in seconds. `gpus` is how many GPUs the site declares, so that a missing one is seen as missing.

    `uuids`: their boards, slot by slot, where a person declares them; empty: learned from the first whole reading.
    """

    gpus: int
    uuids: tuple[str, ...] = ()
    listen: str = "0.0.0.0"
    port: int = 9401
    placements: Path = DIRECTORY
    state_file: Path = Path("/var/lib/gpu-cutover/guard/state.json")
    socket: Path = SOCKET
    interval_s: float = 1.0
    read_timeout_s: float = 3.0
    engine_bound_s: float = 900.0
    drain_s: float = 2.0
    history_s: int = 7200
    time_scale: float = 1.0
    policy: Policy = field(default_factory=Policy)


def _typed(kind: type, raw: dict[str, Any], file: str, prefix: str = "") -> dict[str, Any]:
    """The raw keys converted to the types of the dataclass's defaults. Raises InputError."""
    known = {f.name: f for f in fields(kind)}
    for name in raw:
        if name not in known:
            raise InputError(file, prefix + name, "unknown key", f"use one of {', '.join(sorted(known))}")
    typed = {}
    for name, value in raw.items():
        wanted = str(known[name].type)
        good = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "tuple[str, ...]": isinstance(value, list) and all(isinstance(one, str) for one in value),
        }.get(wanted, isinstance(value, str))
        if not good:
            raise InputError(file, prefix + name, f"{value!r} is no {wanted}", f"give a {wanted}")
        typed[name] = {"float": float, "Path": Path, "tuple[str, ...]": tuple}.get(wanted, lambda v: v)(value)
    return typed


def scaled(policy: Policy, factor: float, interval_s: float) -> Policy:
    """The policy for a machine whose heat moves `factor` times as long; no time gets shorter than three samples."""
    if factor == 1.0:
        return policy
    times = {
        f.name: max(3 * interval_s, getattr(policy, f.name) * factor) for f in fields(policy) if f.name.endswith("_s")
    }
    return replace(policy, **times)


def parse(text: str, file: str) -> Config:
    """Raises InputError naming the key and the fix."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InputError(file, "-", f"no JSON: {error}", "write the file with the role gpu_guard") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("policy", {}), dict):
        raise InputError(file, "-", "no object with keys", "write the file with the role gpu_guard")
    policy = Policy(**_typed(Policy, raw.pop("policy", {}), file, "policy."))
    values = _typed(Config, raw, file)
    if "gpus" not in values:
        raise InputError(file, "gpus", "is missing", "say how many GPUs the site declares")
    config = Config(**values, policy=policy)
    if config.uuids and (len(config.uuids) != config.gpus or len(set(config.uuids)) != config.gpus):
        raise InputError(file, "uuids", f"{len(config.uuids)} UUIDs for {config.gpus} GPUs", "give each GPU its own")
    return replace(config, policy=scaled(policy, config.time_scale, config.interval_s))


def load(path: Path = CONFIG_FILE) -> Config:
    """Read and check the file. Raises InputError."""
    try:
        return parse(path.read_text(), str(path))
    except OSError as error:
        raise InputError(str(path), "-", str(error.strerror), "run the role gpu_guard") from error
