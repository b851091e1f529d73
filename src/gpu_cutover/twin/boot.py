"""The power supply of one host: PID 1 of the host's own PID namespace, until the host is switched off.

Run as a file by `hosts.start`: `unshare --mount --pid --fork --kill-child … python -I -S boot.py SPEC.json`. Everything
it mounts and every network it makes is private to it and goes with it: when this process or systemd-nspawn is
killed, the kernel ends the whole host at once and nothing is left to unmount.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
REBOOT = 133  # what systemd-nspawn --keep-unit exits with when the host asked for a reboot
CGROUPS = "/sys/fs/cgroup"


def command(*arguments: str, lab: int | None = None, check: bool = True) -> None:
    """Run a tool; with `lab` (an open descriptor of the lab's network namespace) inside the lab's network."""
    prefix = () if lab is None else ("nsenter", f"--net=/proc/self/fd/{lab}", "--")
    subprocess.run(
        [*prefix, *arguments],
        check=check,
        pass_fds=() if lab is None else (lab,),
        stdin=subprocess.DEVNULL,
        stderr=None if check else subprocess.DEVNULL,
    )


def private_view(spec: dict[str, Any]) -> None:
    """A pure cgroup v2 tree, an empty /run (no names of other labs' networks) and the host's disk."""
    command("umount", "-l", "-R", CGROUPS, check=False)
    command("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
    command("umount", "-l", "-R", "/run/netns", check=False)
    command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/systemd").mkdir()
    disk = spec["disk"]
    layers = f"lowerdir={spec['base']},upperdir={disk}/upper,workdir={disk}/work"
    command("mount", "-t", "overlay", "overlay", "-o", layers, f"{disk}/root")


def wire(spec: dict[str, Any], lab: int) -> None:
    """A fresh network for this boot (no rule, route or socket survives a power cut) with one cable to the bridge."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    port = spec["port"]
    command("ip", "link", "del", port, lab=lab, check=False)  # the last boot's cable, if the kernel still has it
    peer = ("peer", "name", "eth0", "address", spec["mac"], "netns", "1")
    command("ip", "link", "add", port, "type", "veth", *peer, lab=lab)
    state = "down" if Path(spec["cut"]).exists() else "up"
    command("ip", "link", "set", port, "mtu", str(spec["mtu"]), "master", spec["bridge"], state, lab=lab)
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "set", "eth0", "mtu", str(spec["mtu"]), "up")
    command("ip", "address", "add", f"{spec['address']}/{spec['prefix']}", "dev", "eth0")
    # Ansible's facts want a default route; what goes there is refused by the lab at once, and goes nowhere.
    command("ip", "route", "add", "default", "via", spec["gateway"])


def nspawn(spec: dict[str, Any]) -> list[str]:
    """The command line of one boot.

    CAP_NET_ADMIN is not implied by a given network; CAP_BPF, CAP_PERFMON and the bpf call make systemd really enforce
    IPAddressDeny= and DeviceAllow=. /proc/1 is this process: its network is the host's.
    """
    return [
        *(sys.executable, "-I", "-S", spec["enter"], f"{CGROUPS}/{spec['cgroup']}/host"),
        *("systemd-nspawn", "--quiet", f"--directory={spec['disk']}/root", f"--machine={spec['name']}", "--boot"),
        *("--register=no", "--keep-unit", "--settings=no", "--console=read-only"),
        "--network-namespace-path=/proc/1/ns/net",
        *("--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--kill-signal=SIGRTMIN+4"),
        *spec["binds"],
    ]


def run_until_it_ends(arguments: list[str]) -> int:
    """Start systemd-nspawn, reap whatever falls to this PID 1 meanwhile, and return nspawn's exit status."""
    environment = dict(os.environ)
    environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
    environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "network"  # the host's own net sysctls only, never the machine's
    started = os.posix_spawnp(arguments[0], arguments, environment)
    while True:
        process, status = os.wait()
        if process == started:
            return os.waitstatus_to_exitcode(status)


def main(path: str) -> int:
    """Boot the host of the specification at `path`, again after every reboot, until it powers off or is killed."""
    spec = json.loads(Path(path).read_text())
    lab = os.open(spec["network"], os.O_RDONLY)
    private_view(spec)
    while True:
        wire(spec, lab)
        result = run_until_it_ends(nspawn(spec))
        if result != REBOOT:
            return result
        print("--- reboot", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
