"""What a lab is: the hosts of one site directory, on one machine, under one name.

The name is `tw` and six hex digits of the site directory's real path, or `TWIN_LAB`; two labs never share a disk, a
network, a control group or a socket, so they may run side by side with the same addresses.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ..errors import InputError

DEFAULT_GATEWAY = "10.87.0.1"
DEFAULT_DOMAIN = "clinic.test"
PREFIX = 24
BRIDGE = "br0"
LABS = Path("/var/lib/gpu-cutover/labs")
RUN = Path("/run/gpu-cutover")
LAB_NAME = re.compile(r"[a-z][a-z0-9-]{0,11}")
HOST_NAME = re.compile(r"[a-z][a-z0-9-]{0,12}")  # `v-NAME` is an interface name: at most 15 characters


def mac_of(address: str) -> str:
    """The hardware address of an interface, the same in every boot: a new one would leave the neighbours sending to the
    old one until their caches forget it, about half a minute."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x00, *ipaddress.IPv4Address(address).packed))


@dataclass(frozen=True)
class Host:
    """One host of a lab: its address, the further names it is known by, and what is mounted into it."""

    name: str
    address: str
    aliases: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()

    @property
    def port(self) -> str:
        """The bridge's end of the host's cable: an interface name in the lab's network."""
        return f"v-{self.name}"


@dataclass(frozen=True)
class Lab:
    """The hosts of a site and where everything of theirs lives on this machine."""

    name: str
    site_dir: Path
    site: Mapping[str, Any]
    hosts: Mapping[str, Host]
    domain: str = DEFAULT_DOMAIN
    gateway: str = DEFAULT_GATEWAY
    mtu: int = 1500
    gateway_names: tuple[str, ...] = ()  # besides `switch`: the BMCs answer there
    shared: tuple[str, str] | None = None  # the edge's name and the address that the gateways share

    @property
    def directory(self) -> Path:
        """Disks and descriptions; removed by `twin down`."""
        return LABS / self.name

    @property
    def run_directory(self) -> Path:
        """Sockets and the lock; removed by `twin down`. Short, because a socket's path holds 107 characters."""
        return RUN / self.name

    @property
    def state_directory(self) -> Path:
        """Keys and the ssh configuration; kept by `twin down`, so that the next lab has the same host keys."""
        return self.site_dir / ".state" / "lab"

    @property
    def network(self) -> str:
        """The path of the lab's network namespace."""
        return f"/run/netns/{self.name}"

    def disk(self, host: str) -> Path:
        """The directory of one host: its upper layer, work directory, mount point, console log."""
        return self.directory / "hosts" / host

    def host(self, name: str) -> Host:
        """The named host; raises InputError."""
        if name not in self.hosts:
            known = ", ".join(sorted(self.hosts))
            raise InputError(str(self.site_dir / "hosts.yml"), name, "no such host", f"one of {known}")
        return self.hosts[name]


def own_name(site_dir: Path) -> str:
    """The lab a site directory has when nobody names another."""
    return "tw" + hashlib.sha256(str(site_dir.resolve()).encode()).hexdigest()[:6]


def lab_name(site_dir: Path) -> str:
    """The lab's name for a site directory; `TWIN_LAB` overrides it. Raises InputError for a name that cannot be one."""
    given = os.environ.get("TWIN_LAB")
    if given:
        if not LAB_NAME.fullmatch(given):
            raise InputError("environment", "TWIN_LAB", f"{given!r} cannot name a lab", f"match {LAB_NAME.pattern}")
        return given
    return own_name(site_dir)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(str(path), "-", "no such file", "give a site directory with -i") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(str(path), "-", " ".join(str(error).split()), "correct the file") from None
    return _mapping(path, "-", data)


def _mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(str(path), key, "is not a mapping", "correct the file")
    return value


def _host_entries(path: Path, group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every host of an inventory group and of its children, with its variables."""
    yield from _mapping(path, "hosts", group.get("hosts")).items()
    for name, child in _mapping(path, "children", group.get("children")).items():
        yield from _host_entries(path, _mapping(path, str(name), child))


def _host(path: Path, name: str, values: Mapping[str, Any]) -> Host | None:
    if "ansible_host" not in values:
        return None
    if not HOST_NAME.fullmatch(name):
        raise InputError(str(path), name, "cannot be a host's name in a lab", f"match {HOST_NAME.pattern}")
    try:
        address = str(ipaddress.IPv4Address(values["ansible_host"]))
    except ValueError:
        raise InputError(str(path), f"{name}.ansible_host", "is not an IPv4 address", "give one") from None
    return Host(name, address, tuple(values.get("twin_aliases") or ()), tuple(values.get("twin_binds") or ()))


def read_hosts(path: Path) -> dict[str, Host]:
    """The hosts of an inventory file, in its order; raises InputError."""
    hosts: dict[str, Host] = {}
    for name, variables in _host_entries(path, {"children": _read_yaml(path)}):
        host = _host(path, str(name), _mapping(path, str(name), variables))
        if host:
            hosts[name] = host
    if not hosts:
        raise InputError(str(path), "ansible_host", "no host has an address", "give each host an ansible_host")
    if len({host.address for host in hosts.values()}) != len(hosts):
        raise InputError(str(path), "ansible_host", "two hosts have the same address", "give each its own")
    return hosts


def load_lab(site_dir: Path) -> Lab:
    """The lab of a site directory; raises InputError. A site without `site.yml` gets the defaults (small test labs)."""
    site_file = site_dir / "group_vars" / "all" / "site.yml"
    site = _mapping(site_file, "site", _read_yaml(site_file).get("site")) if site_file.exists() else {}
    network = _mapping(site_file, "site.network", site.get("network"))
    mtu = network.get("mtu", 1500)
    bmc = urlsplit(str(network.get("bmc") or "")).hostname
    if not isinstance(mtu, int):
        raise InputError(str(site_file), "site.network.mtu", "is not a number", "give bytes, such as 9000")
    return Lab(
        name=lab_name(site_dir),
        site_dir=site_dir.resolve(),
        site=site,
        hosts=read_hosts(site_dir / "hosts.yml"),
        domain=str(network.get("domain", DEFAULT_DOMAIN)),
        gateway=str(network.get("resolver", DEFAULT_GATEWAY)),
        mtu=mtu,
        gateway_names=(bmc,) if bmc else (),
        shared=_shared(network),
    )


def _shared(network: Mapping[str, Any]) -> tuple[str, str] | None:
    name, address = network.get("edge_name"), network.get("virtual_address")
    return (str(name), str(address)) if name and address else None


def known_lab(name: str) -> dict[str, Any]:
    """What `twin up` wrote about the lab `name` (lab.json); raises InputError when there is no such lab."""
    path = LABS / name / "lab.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(str(path), "lab", f"there is no lab {name}", "gpu-cutover twin up") from None
    return data
