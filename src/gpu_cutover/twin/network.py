"""A lab's network: one namespace with a bridge, which is the switch, the resolver and the BMCs' network at once.

Its default route is `unreachable`: what a host sends beyond the lab is refused at once and never leaves the machine.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from . import cgroups
from .connect import CONNECT_TIMEOUT_S
from .connect import connect as connect_to_address
from .lab import BRIDGE, PREFIX, Host, Lab, known_lab, mac_of

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _answers(*command: str) -> str:
    """The output of a command, "" when it fails: for questions whose answer may be `there is none`."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return result.stdout if result.returncode == 0 else ""


def is_up(lab: Lab) -> bool:
    """Is the lab's namespace there, and its bridge in it?"""
    return bool(_answers("ip", "-n", lab.name, "link", "show", BRIDGE))


def bring_up(lab: Lab) -> None:
    """The namespace and the bridge with the lab's own address; a half-made one (a killed `up`) is made anew."""
    if is_up(lab):
        return
    take_down(lab)
    _run("ip", "netns", "add", lab.name)
    inside = ("ip", "-n", lab.name)
    _run(*inside, "link", "set", "lo", "up")
    _run(*inside, "link", "add", "making", "address", mac_of(lab.gateway), "mtu", str(lab.mtu), "type", "bridge")
    _run(*inside, "address", "add", f"{lab.gateway}/{PREFIX}", "dev", "making")
    _run(*inside, "route", "add", "unreachable", "default")
    _run("nsenter", f"--net={lab.network}", "--", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    _run(*inside, "link", "set", "making", "name", BRIDGE)  # last: a bridge of this name is a whole one
    _run(*inside, "link", "set", BRIDGE, "up")


def take_down(lab: Lab) -> None:
    """Remove the namespace; the kernel removes bridge and cables with it."""
    if Path(lab.network).exists():
        _run("ip", "netns", "del", lab.name)


def _cut_mark(lab: Lab, host: Host) -> Path:
    return lab.disk(host.name) / "cut"


def is_cut(lab: Lab, host: Host) -> bool:
    """Is the host's cable pulled?"""
    return _cut_mark(lab, host).exists()


def _set_link(lab: Lab, host: Host, state: str) -> None:
    _answers("ip", "-n", lab.name, "link", "set", host.port, state)  # a host that is off has no cable in the bridge


def cut(lab: Lab, host: Host) -> None:
    """Pull the host's cable: its peers hear nothing, it stays on. Lasts over a reboot, until `heal`."""
    _cut_mark(lab, host).touch()
    _set_link(lab, host, "down")


def heal(lab: Lab, host: Host) -> None:
    """Plug the host's cable in again."""
    _cut_mark(lab, host).unlink(missing_ok=True)
    _set_link(lab, host, "up")


def unplug_dead(lab: Lab, host: Host) -> None:
    """Silence a host that is about to lose power: its peers must see no farewell, like with a real one."""
    _set_link(lab, host, "down")


def address_of(lab: str, host: str) -> str:
    """The address of a host of the lab by name (an address is returned as it is); raises InputError."""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    hosts = known_lab(lab)["hosts"]
    if host not in hosts:
        raise InputError(f"lab {lab}", host, "no such host", f"one of {', '.join(sorted(hosts))}")
    return str(hosts[host]["address"])


def connect(lab: str, host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A TCP connection to a host of the lab (name or address) from outside; raises OSError, InputError."""
    return connect_to_address(lab, address_of(lab, host), port, timeout_s)


def leader_of(lab: str, host: str) -> int | None:
    """The machine's process id of the host's PID 1, None when the host is off."""
    for process in cgroups.processes(cgroups.of_lab(lab) / host / "host" / "payload" / "init.scope"):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        if any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines()):
            return process
    return None


def inside(lab: str, host: str) -> list[str]:
    """The command prefix that runs something in a host without SSH; raises InputError when the host is off."""
    leader = leader_of(lab, host)
    if leader is None:
        raise InputError(f"lab {lab}", host, "the host is not running", f"gpu-cutover twin start {host}")
    return ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]


def run_in_host(
    lab: str, host: str, argv: Sequence[str], input: bytes | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as root in a host without SSH, output captured as bytes.

    Raises InputError when the host is off, subprocess.TimeoutExpired after `timeout_s`. The exit status is not judged.
    """
    return subprocess.run(
        [*inside(lab, host), *argv],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        timeout=timeout_s,
        env=ENVIRONMENT,
        check=False,
    )
