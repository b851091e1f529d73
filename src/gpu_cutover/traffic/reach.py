"""How a site's gateways are reached: the same variables, the same OpenSSH configuration and host keys as Ansible's.

OpenSSH itself says what its options mean (`ssh -G`), so nothing of its configuration is read a second way here. Loads
neither the site nor Ansible: a rollback must work, and fast, while other files of the site are being edited.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

GROUPS = ("all", "site_hosts", "gateway")  # whose variables a gateway gets, the later ones win
VARIABLES = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_become",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_private_key_file",
)
CONFIG_S = 5.0


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # chosen at run time
    """YAML that lets tags of others (a vault's) pass as nothing: they stand in files that say other things too."""


_Loader.add_multi_constructor("!", lambda *_: None)


@dataclass(frozen=True, slots=True)
class Way:
    """One gateway and everything needed to open a checked SSH connection to it."""

    host: str
    address: str
    port: int
    user: str
    name: str  # under which its host key is known
    known_hosts: tuple[Path, ...]
    keys: tuple[Path, ...]
    agent: bool
    proxy: str  # a command whose standard input and output lead there; "" for a plain TCP connection
    passes_socket: bool  # that command hands over a connected socket instead and is gone
    become: bool


def ways(site_dir: Path) -> list[Way]:
    """The ways to all gateways of the site. Raises InputError for an inventory that does not say them."""
    asked = [(host, variables, _ask_openssh(variables)) for host, variables in connections(site_dir).items()]
    return [_way(host, variables, process) for host, variables, process in asked]


def connections(site_dir: Path) -> dict[str, dict[str, str]]:
    """{gateway: its connection variables}, from group_vars, hosts.yml and host_vars. Raises InputError."""
    path = site_dir / "hosts.yml"
    hosts = dict(_hosts(_read(path), "gateway"))
    if not hosts:
        raise InputError(str(path), "gateway", "names no host", "put the gateways into the group gateway")
    shared: dict[str, Any] = {}
    for group in GROUPS:
        for file in _files(site_dir / "group_vars", group):
            shared |= _chosen(_read(file), file)
    found = {}
    for host, own in hosts.items():
        variables = {**shared, **_chosen(own, path)}
        for file in _files(site_dir / "host_vars", host):
            variables |= _chosen(_read(file), file)
        variables.setdefault("ansible_host", host)
        found[host] = {key: _rendered(key, str(value), site_dir) for key, value in variables.items()}
    return found


def _files(folder: Path, name: str) -> list[Path]:
    """What Ansible reads for a group or host: NAME, NAME.yml, NAME.yaml, or a folder NAME of such files."""
    inside = sorted(path for path in (folder / name).rglob("*") if path.suffix in (".yml", ".yaml"))
    return [path for path in (folder / f"{name}.yml", folder / f"{name}.yaml") if path.is_file()] + inside


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return None if text.startswith("$ANSIBLE_VAULT") else yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(str(path), "(whole file)", f"cannot be read: {problem}", "correct the file") from error


def _hosts(data: Any, group: str) -> Iterator[tuple[str, Any]]:
    """The hosts of a group, wherever it stands in the inventory."""
    for name, content in data.items() if isinstance(data, dict) else ():
        if isinstance(content, dict):
            if name == group and isinstance(content.get("hosts"), dict):
                yield from ((str(host), variables) for host, variables in content["hosts"].items())
            yield from _hosts(content.get("children"), group)


def _chosen(data: Any, path: Path) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(str(path), "(whole file)", "is not a mapping", "write variables")
    return {key: data[key] for key in VARIABLES if data.get(key) is not None}


def _rendered(key: str, value: str, site_dir: Path) -> str:
    text = re.sub(r"\{\{\s*inventory_dir\s*\}\}", lambda _: str(site_dir.absolute()), value)
    if "{{" in text or "{%" in text:
        problem = "holds a template that only Ansible can compute"
        raise InputError(str(site_dir), key, problem, "use {{ inventory_dir }} alone, or add --ansible")
    return text


def _ask_openssh(variables: Mapping[str, str]) -> subprocess.Popen[str]:
    options = [f"{name}={variables[key]}" for key, name in _OPTIONS.items() if key in variables]
    words = [word for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args") for word in _words(variables, key)]
    given = [part for option in options for part in ("-o", option)]
    command = ["ssh", "-G", *words, *given, variables["ansible_host"]]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise InputError("ssh", "OpenSSH", f"cannot be started: {error.strerror}", "install openssh-client") from error


_OPTIONS = {"ansible_user": "User", "ansible_port": "Port", "ansible_ssh_private_key_file": "IdentityFile"}


def _words(variables: Mapping[str, str], key: str) -> list[str]:
    return shlex.split(variables.get(key, ""))


def _way(host: str, variables: Mapping[str, str], process: subprocess.Popen[str]) -> Way:
    try:
        output, complaint = process.communicate(timeout=CONFIG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, complaint = "", f"ssh -G did not answer within {CONFIG_S:g} s"
    if process.returncode:
        problem = " ".join(complaint.split()) or f"ssh -G ended with {process.returncode}"
        raise InputError(f"connection of {host}", "ssh", problem, "correct ansible_ssh_common_args or its ssh_config")
    said: dict[str, list[str]] = {}
    for line in output.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    address, port = said["hostname"][0], int(said["port"][0])
    alias = said.get("hostkeyalias", ["none"])[0]
    plain = address if port == 22 else f"[{address}]:{port}"
    return Way(
        host=host,
        address=address,
        port=port,
        user=said["user"][0],
        name=plain if alias == "none" else alias,
        known_hosts=_paths(said.get("userknownhostsfile", []) + said.get("globalknownhostsfile", [])),
        keys=_paths(said.get("identityfile", [])),
        agent=said.get("identitiesonly", ["no"])[0] != "yes" and bool(os.environ.get("SSH_AUTH_SOCK")),
        proxy=_proxy(said, variables, address, port),
        passes_socket=said.get("proxyusefdpass", ["no"])[0] == "yes",
        become=variables.get("ansible_become", "").lower() in ("true", "yes"),
    )


def _paths(values: list[str]) -> tuple[Path, ...]:
    """Existing files; `ssh -G` names several in one line and does not quote, so the whole line is tried first."""
    found: list[Path] = []
    for value in values:
        whole = Path(value.strip('"')).expanduser()
        found += [whole] if whole.is_file() else [Path(word).expanduser() for word in value.split()]
    return tuple(dict.fromkeys(path for path in found if path.is_file()))


def _proxy(said: Mapping[str, list[str]], variables: Mapping[str, str], address: str, port: int) -> str:
    command = said.get("proxycommand", ["none"])[0]
    jump = said.get("proxyjump", ["none"])[0]
    if command == "none" and jump == "none":
        return ""
    if command == "none":
        words = _words(variables, "ansible_ssh_common_args")
        return shlex.join(["ssh", *words, "-W", f"[{address}]:{port}", jump])
    meant = {"%h": address, "%p": str(port), "%r": said["user"][0], "%n": variables["ansible_host"], "%%": "%"}
    return re.sub("%[hprn%]", lambda match: meant[match[0]], command)
