"""Hosts: make the disk, boot, wait until it answers, stop, cut the power, forget."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import access, boot, cgroups, enter, network
from .connect import connect
from .lab import BRIDGE, PREFIX, Host, Lab, mac_of

if TYPE_CHECKING:
    from .standins import StandinFile

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
ASK_FOR_POWER_OFF = signal.SIGRTMIN + 4  # systemd as PID 1 takes this for an orderly power-off


class BootError(Exception):
    """A host did not come up; the message ends with the last lines of its console."""


def group(lab: Lab, host: Host) -> Path:
    """The control group with everything of one host."""
    return cgroups.of_lab(lab.name) / host.name


def is_running(lab: Lab, host: Host) -> bool:
    """Is anything of the host alive?"""
    return cgroups.populated(group(lab, host))


def _make_directories(upper: Path, base: Path, directory: Path) -> None:
    """Make `directory` in the upper layer with the owner and mode the base has: the upper one is what the host sees."""
    current = Path()
    for part in directory.parts:
        current /= part
        target = upper / current
        if target.is_dir():
            continue
        target.mkdir(mode=0o755)
        if (base / current).is_dir():
            status = (base / current).stat()
            target.chmod(status.st_mode & 0o7777)
            os.chown(target, status.st_uid, status.st_gid)


def lay(upper: Path, base: Path, path: str, content: bytes, mode: int = 0o644) -> Path:
    """Write one file of a host's disk (`path` as the host names it) before it boots."""
    target = upper / path.lstrip("/")
    _make_directories(upper, base, target.parent.relative_to(upper))
    target.write_bytes(content)
    target.chmod(mode)
    return target


def _lay_standin(upper: Path, base: Path, path: str, file: StandinFile) -> None:
    if file.symlink is not None:
        target = upper / path.lstrip("/")
        _make_directories(upper, base, target.parent.relative_to(upper))
        target.unlink(missing_ok=True)
        target.symlink_to(file.symlink)
        return
    content = file.content if file.content is not None else file.source.read_bytes() if file.source else b""
    lay(upper, base, path, content, file.mode)


def _identity(lab: Lab, host: Host) -> dict[str, tuple[bytes, int]]:
    """The files that make this host itself: name, addresses, keys."""
    private = access.host_key(lab, host.name)
    authorized = access.client_key(lab).with_suffix(".pub").read_bytes()
    qualified = f"{host.name}.{lab.domain}"
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{host.address} {qualified} {host.name}\n"
    resolver = f"search {lab.domain}\nnameserver {lab.gateway}\noptions timeout:1 attempts:2\n"
    return {
        "/etc/hostname": (f"{host.name}\n".encode(), 0o644),
        "/etc/hosts": (hosts.encode(), 0o644),
        "/etc/resolv.conf": (resolver.encode(), 0o644),
        "/etc/machine-id": (f"{uuid.uuid4().hex}\n".encode(), 0o444),
        "/etc/ssh/ssh_host_ed25519_key": (private.read_bytes(), 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": (private.with_name(f"{host.name}.pub").read_bytes(), 0o644),
        "/root/.ssh/authorized_keys": (authorized, 0o600),
        "/home/ops/.ssh/authorized_keys": (authorized, 0o600),
    }


def prepare(lab: Lab, host: Host, suite: str, base: Path) -> None:
    """Make the host's disk unless it is there whole; one left half-made by a killed `up` is made anew."""
    disk = lab.disk(host.name)
    if (disk / "host.json").exists():
        return
    if disk.exists():
        shutil.rmtree(disk)
    for part in ("upper", "work", "root"):
        (disk / part).mkdir(parents=True)
    upper = disk / "upper"
    for path, (content, mode) in _identity(lab, host).items():
        lay(upper, base, path, content, mode)
    _own_ops_files(upper, base)
    from . import standins  # late: only a disk that is being made needs what they import

    for path, file in standins.files_for(host.name, lab.site, lab.site_dir).items():
        _lay_standin(upper, base, path, file)
    (disk / "host.json").write_text(json.dumps({"suite": suite, "base": str(base)}))


def _own_ops_files(upper: Path, base: Path) -> None:
    owner = (base / "home/ops").stat()
    for path in (upper / "home/ops/.ssh", upper / "home/ops/.ssh/authorized_keys"):
        os.chown(path, owner.st_uid, owner.st_gid)
        path.chmod(0o700 if path.is_dir() else 0o600)


def bundle_of(lab: Lab) -> Path | None:
    """The offline bundle the site knows (`.state/bundle.json`), None before there is one."""
    try:
        path = Path(json.loads((lab.site_dir / ".state" / "bundle.json").read_text())["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.is_dir() else None


def _binds(lab: Lab, host: Host) -> list[str]:
    """What is mounted into the host: the bundle (empty before there is one) and what the inventory names."""
    empty = lab.directory / "empty"
    empty.mkdir(exist_ok=True)
    binds = [f"--bind-ro={bundle_of(lab) or empty}:/srv/bundle"]
    for bind in host.binds:
        source, target, *options = bind.split(":")
        flag = "--bind" if options == ["rw"] else "--bind-ro"
        binds.append(f"{flag}={lab.site_dir / source}:{target}")
    return binds


def specification(lab: Lab, host: Host) -> dict[str, Any]:
    """What `boot.py` needs to know: plain data, written beside the disk."""
    disk = lab.disk(host.name)
    return {
        "name": host.name,
        "address": host.address,
        "mac": mac_of(host.address),
        "prefix": PREFIX,
        "gateway": lab.gateway,
        "mtu": lab.mtu,
        "bridge": BRIDGE,
        "port": host.port,
        "network": lab.network,
        "cgroup": f"{cgroups.of_lab(lab.name).name}/{host.name}",
        "disk": str(disk),
        "base": json.loads((disk / "host.json").read_text())["base"],
        "cut": str(disk / "cut"),
        "enter": str(enter.__file__),
        "binds": _binds(lab, host),
    }


def boot_is_current(lab: Lab, host: Host) -> bool:
    """Did the running host boot with today's specification (same bundle, same mounts)?"""
    try:
        booted = json.loads((lab.disk(host.name) / "boot.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(booted == specification(lab, host))


def start(lab: Lab, host: Host) -> None:
    """Switch a prepared host on; returns before it answers (see `wait_until_ready`)."""
    disk = lab.disk(host.name)
    cgroups.kill(group(lab, host))  # what a half-started boot left
    launcher = cgroups.make(group(lab, host) / "launcher")
    cgroups.make(group(lab, host) / "host")
    (disk / "boot.json").write_text(json.dumps(specification(lab, host), indent=1))
    python = (sys.executable, "-I", "-S")
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
    with (disk / "console.log").open("ab") as console:
        subprocess.Popen(
            [*python, enter.__file__, str(launcher), *namespaces, *python, boot.__file__, str(disk / "boot.json")],
            env=network.ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def answers_ssh(lab: Lab, host: Host) -> bool:
    """Does the host's SSH server send its greeting?"""
    try:
        with connect(lab.name, host.address, 22, 1.0) as connection:
            connection.settimeout(1.0)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_until_ready(lab: Lab, host: Host, cancelled: threading.Event, timeout_s: float = READY_TIMEOUT_S) -> float:
    """Wait until SSH answers; the seconds it took. Raises BootError, also as soon as the boot process is gone."""
    started = time.monotonic()
    if network.is_cut(lab, host):
        return 0.0
    while not answers_ssh(lab, host):
        waited = time.monotonic() - started
        gone = waited > 1.0 and not is_running(lab, host)
        if gone or waited > timeout_s or cancelled.is_set():
            console = (lab.disk(host.name) / "console.log").read_text(errors="replace").splitlines()[-8:]
            why = "ended while booting" if gone else f"no SSH within {waited:.0f} s"
            raise BootError(f"{host.name}: {why}; its console says:\n  " + "\n  ".join(console))
        time.sleep(0.1)
    return time.monotonic() - started


def stop(lab: Lab, host: Host, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Shut a host down in order; one that is not off within `timeout_s` loses its power."""
    leader = network.leader_of(lab.name, host.name)
    if leader is not None:
        os.kill(leader, ASK_FOR_POWER_OFF)
        deadline = time.monotonic() + timeout_s
        while is_running(lab, host) and time.monotonic() < deadline:
            time.sleep(0.1)
    cgroups.kill(group(lab, host))


def crash(lab: Lab, host: Host) -> None:
    """Cut the power: silence first, then every process at once. The disk stays as it was at that moment."""
    network.unplug_dead(lab, host)
    cgroups.kill(group(lab, host))


def forget(lab: Lab, host: Host) -> None:
    """Cut the power and remove the disk."""
    crash(lab, host)
    if lab.disk(host.name).exists():
        shutil.rmtree(lab.disk(host.name))


@dataclass(frozen=True)
class Status:
    """One host as it is now."""

    name: str
    address: str
    running: bool
    cut: bool
    uptime_s: float | None
    boot_id: str | None


def status(lab: Lab, host: Host) -> Status:
    """Read from the machine's process table; asks nothing of the host."""
    leader = network.leader_of(lab.name, host.name)
    cut = network.is_cut(lab, host)
    if leader is None:
        return Status(host.name, host.address, False, cut, None, None)
    try:
        started_ticks = int(Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[19])
        boot_id = Path(f"/proc/{leader}/root/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return Status(host.name, host.address, False, cut, None, None)
    machine_uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    uptime_s = machine_uptime_s - started_ticks / os.sysconf("SC_CLK_TCK")
    return Status(host.name, host.address, True, cut, round(uptime_s, 1), boot_id)
