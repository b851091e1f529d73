"""How one reaches a lab's hosts: the client key, each host's key, and the ssh configuration that knows both.

Kept in the site's `.state/lab` and made once: a lab that is taken down and up again has the same host keys, so strict
checking stays on.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from . import connect
from .lab import Host, Lab, own_name


def _make_key(path: Path, comment: str) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.rename(path)


def host_key(lab: Lab, host: str) -> Path:
    """The private host key of a host (its `.pub` beside it)."""
    return lab.state_directory / "host_keys" / host


def client_key(lab: Lab) -> Path:
    """The private key that may log in to every host as root and as ops."""
    return lab.state_directory / "ssh_key"


def names_of(lab: Lab, host: Host) -> tuple[str, str, str]:
    """What a person or Ansible may call a host."""
    return host.name, f"{host.name}.{lab.domain}", host.address


def ensure_access(lab: Lab) -> None:
    """Make the keys that are missing and write known_hosts and ssh_config anew (they follow the inventory)."""
    lab.state_directory.mkdir(parents=True, exist_ok=True)
    (lab.site_dir / ".state").chmod(0o700)
    with (lab.state_directory / ".lock").open("w") as lock:  # two labs of one site may come up at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _make_key(client_key(lab), f"twin of {lab.site_dir.name}")
        known = []
        for host in lab.hosts.values():
            _make_key(host_key(lab, host.name), host.name)
            kind, key, *_ = host_key(lab, host.name).with_name(f"{host.name}.pub").read_text().split()
            known.append(f"{','.join(names_of(lab, host))} {kind} {key}\n")
        _replace(lab.state_directory / "known_hosts", "".join(known))
        _replace(lab.state_directory / "ssh_config", ssh_config(lab, sys.executable))


def ssh_config(lab: Lab, python: str) -> str:
    """The configuration for `ssh -F`: by name or by address, keys checked, through the lab's network.

    It names the site's own lab; `TWIN_LAB` in the environment of ssh leads to another one of the same site.
    """
    proxy = f'"{python}" -I -S "{connect.__file__}" {own_name(lab.site_dir)} %h %p'
    blocks = [
        f"Host {' '.join(names_of(lab, host))}\n    HostName {host.address}\n    HostKeyAlias {host.name}\n"
        for host in lab.hosts.values()
    ]
    common = (
        "Host *\n"
        "    User root\n"
        f'    IdentityFile "{client_key(lab)}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{lab.state_directory / "known_hosts"}"\n'
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        f"    ProxyCommand {proxy}\n"
        "    ProxyUseFdpass yes\n"
    )
    return "".join(blocks) + common


def control_sockets(lab: Lab) -> Path:
    """Where Ansible keeps the sockets of its shared connections to this lab."""
    return lab.run_directory / "cp"


def close_connections(lab: Lab) -> None:
    """Ask every shared ssh connection to this lab to end; one that does not answer within 5 s is left to its timer."""
    waiting = [
        subprocess.Popen(
            ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for socket in (control_sockets(lab).iterdir() if control_sockets(lab).exists() else ())
        if socket.is_socket()
    ]
    for process in waiting:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
