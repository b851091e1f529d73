"""`gpu-cutover-guard gpus MODEL`: which devices an engine may see, resolved anew at each of its starts.

A unit's environment names the site's GPUs (slots). What CUDA calls them depends on which boards answered when the
driver was loaded, so this runs before the engine (a drop-in of the role) and writes the environment that wins. UUIDs
say it best; vLLM before 0.24 ends with a ValueError on one, so it is told numbers, which hold for this one start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import Refused
from . import roster
from .placement import CURRENT

DIRECTORY = Path("/run/gpu-cutover-gpus")
VARIABLE = "CUDA_VISIBLE_DEVICES"


def slots_of(environment: str) -> list[int]:
    """The GPUs that an engine's environment file names. Raises Refused when it names none."""
    for line in environment.splitlines():
        name, _, value = line.partition("=")
        numbers = value.strip().strip('"').split(",")
        if name == VARIABLE and all(number.isdigit() for number in numbers):
            return [int(number) for number in numbers]
    raise Refused(f"the environment names no GPUs in {VARIABLE}")


def known(state_file: Path) -> roster.Roster:
    """The boards that the guard knows; none when it never ran. Raises Refused when its file is damaged."""
    try:
        return roster.from_dicts(json.loads(state_file.read_text()).get("roster", ()))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Refused(f"{state_file}: {error}") from error


def resolve(
    model: str,
    by: str,
    placements: Path,
    state_file: Path,
    read: Callable[[], Mapping[str, Any]],
    directory: Path = DIRECTORY,
) -> str:
    """Write the engine's devices; returns what was written. Raises Refused when one of its boards does not answer."""
    try:
        slots = slots_of((placements / CURRENT / f"{model}.env").read_text())
    except OSError as error:
        raise Refused(f"{model}: {error}") from error
    boards = known(state_file)
    named, problem = roster.devices(slots, read() if boards else {}, boards, by)
    if problem:
        raise Refused(f"{model}: {problem}")
    text = f"CUDA_DEVICE_ORDER=PCI_BUS_ID\n{VARIABLE}={','.join(named)}\n"
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f".{model}.{os.getpid()}"
    fresh.write_text(text)
    fresh.replace(directory / f"{model}.env")
    return text
