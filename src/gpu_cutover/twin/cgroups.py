"""Control groups by name: the one list of what belongs to a lab.

A lab is `gpu-cutover.LAB/`, a host `HOST/{launcher,host}` below it, a service of the lab `services/NAME`. Processes are
only in leaves, so the tree also works where controllers are delegated (cgroup v2 proper). No pid file is needed: a
lab is found, counted and ended through this tree, whatever killed the process that started it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ..errors import InputError

KILL_TIMEOUT_S = 20.0
CONTROLLERS = ("cpu", "io", "memory", "pids")


def root() -> Path:
    """Where the machine has cgroup v2 mounted; raises InputError where it is not mounted at all."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(target)
    fix = "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
    raise InputError("/proc/self/mounts", "cgroup2", "cgroup v2 is not mounted, or read-only", fix)


def of_lab(lab: str) -> Path:
    """The control group of a lab."""
    return root() / f"gpu-cutover.{lab}"


def make(leaf: Path) -> Path:
    """Make a control group and those above it, with whatever controllers the machine offers here."""
    top = root()
    missing = [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(top) and parent != top)]
    for group in reversed(missing):
        group.mkdir(exist_ok=True)
        if group != leaf:
            _offer_controllers(group)
    return leaf


def _offer_controllers(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    for controller in CONTROLLERS:
        if controller in available:
            with contextlib.suppress(OSError):  # a machine that keeps a controller to itself still boots hosts
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def populated(group: Path) -> bool:
    """Is any process in the group or below it?"""
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def processes(group: Path) -> list[int]:
    """The process ids in the group itself, as this process sees them."""
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill(group: Path, timeout_s: float = KILL_TIMEOUT_S) -> None:
    """End every process of the group and below it, and remove the groups; raises TimeoutError if one will not die."""
    if not group.exists():
        return
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            (group / "cgroup.kill").write_text("1")
        if _remove(group):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{group}: processes {processes(group)} did not end within {timeout_s:.0f} s")
        time.sleep(0.02)


def _remove(group: Path) -> bool:
    """Remove the empty groups, deepest first; False while one is still in use."""
    below = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for path in (*below, group):
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
