"""The real host behind `placement.Host`: systemd units, their processes' environment, HTTP health. Stdlib only."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..probes.web import answers
from .placement import DIGEST_VARIABLE

PROPERTIES = ("Id", "ActiveState", "SubState", "MainPID", "NRestarts", "UnitFileState")
LOCK = Path("/run/gpu-cutover-placement.lock")


def systemctl(arguments: Iterable[str], timeout_s: float) -> str:
    """Run systemctl and return its output. Raises OSError when it fails or does not return in time."""
    command = ["systemctl", "--no-ask-password", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(command)} did not return within {timeout_s:g} s") from error
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def parse_show(output: str) -> dict[str, dict[str, str]]:
    """Unit → properties, from `systemctl show` of several units (blocks separated by an empty line)."""
    blocks = (block.splitlines() for block in output.split("\n\n"))
    units = (dict(line.split("=", 1) for line in block if "=" in line) for block in blocks)
    return {unit["Id"]: unit for unit in units if "Id" in unit}


def show(units: Iterable[str], timeout_s: float = 10.0) -> dict[str, dict[str, str]]:
    """Properties of units that systemd knows; a unit without a file is `inactive`."""
    names = list(units)
    if not names:
        return {}
    return parse_show(systemctl(["show", f"--property={','.join(PROPERTIES)}", *names], timeout_s))


def boot_changes(units: dict[str, dict[str, str]], wanted: set[str]) -> tuple[list[str], list[str]]:
    """Units to enable and units to disable, so that exactly `wanted` come back after a reboot."""
    enabled = {unit for unit, properties in units.items() if properties.get("UnitFileState") == "enabled"}
    return sorted(wanted - enabled), sorted((units.keys() & enabled) - wanted)


def digest_of_process(pid: int, proc: Path = Path("/proc")) -> str:
    """The placement digest in a process's environment; "" when it has none or is gone."""
    try:
        entries = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{DIGEST_VARIABLE}=".encode()
    return next((entry[len(prefix) :].decode() for entry in entries if entry.startswith(prefix)), "")


class SystemdHost:
    """`placement.Host` on this machine."""

    def __init__(self, stop_timeout_s: float = 90.0) -> None:
        self.stop_timeout_s = stop_timeout_s

    def running(self, units: Iterable[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for unit, properties in show(units).items():
            alive = properties["ActiveState"] in ("active", "activating", "reloading")
            pid = int(properties.get("MainPID") or 0)
            found[unit] = (digest_of_process(pid) if pid else "") if alive else None
        return found

    def stop(self, units: Iterable[str]) -> None:
        systemctl(["stop", *units], self.stop_timeout_s)

    def start(self, units: Iterable[str]) -> None:
        names = list(units)
        # A unit that hit its start limit stays failed for ever otherwise.
        with contextlib.suppress(OSError):
            systemctl(["reset-failed", *names], 10.0)
        systemctl(["start", "--no-block", *names], 30.0)

    def set_boot(self, enabled: Collection[str], disabled: Collection[str]) -> None:
        enable, disable = boot_changes(show([*enabled, *disabled]), set(enabled))
        if enable:
            systemctl(["enable", "--quiet", *enable], 30.0)
        if disable:
            systemctl(["disable", "--quiet", *disable], 30.0)

    def healthy(self, url: str) -> bool:
        return answers(url)

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@contextlib.contextmanager
def placement_lock(path: Path = LOCK) -> Iterator[None]:
    """Only one process applies a placement at a time; the lock is gone with the process."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
