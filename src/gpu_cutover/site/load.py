"""Read a site directory: hosts.yml, group_vars/all/site.yml, the records. One InputError for the first thing wrong."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..catalog import load_catalog
from ..errors import InputError
from . import rules
from .model import Cabling, LockedModel, Purchase, Site, Spec
from .parse import LARGEST, LARGEST_RECORD, document, read_bytes, typed
from .problems import Problem, dotted, nearest, shown

SITE_FILE = Path("group_vars/all/site.yml")
GROUPS = ("gpu", "gateway", "monitor")
PARENT = "site_hosts"
TARGETS = ("site", "plan")


def is_site(directory: Path) -> bool:
    """Whether a directory declares a site at all (other inventories are none of our business)."""
    return (directory / SITE_FILE).is_file()


def load_site(site_dir: Path, targets: str | None = None) -> Site:
    """The validated site of a directory.

    `targets="plan"` (or TARGETS=plan in the environment) drops every restated target, so that gates judge the plan as
    written. Raises InputError for anything wrong: file, dotted key, problem, fix.
    """
    chosen = targets or os.environ.get("TARGETS") or "site"
    if chosen not in TARGETS:
        raise InputError("environment", "TARGETS", f"{shown(chosen)} is not known", "use plan, or leave it unset")
    spec = _spec(site_dir)
    if chosen == "plan":
        plain = {name: target.model_copy(update={"restated": None}) for name, target in spec.targets.items()}
        spec = spec.model_copy(update={"targets": plain})
    hosts = _hosts(site_dir)
    _told(site_dir / SITE_FILE, rules.gateway_problem(spec, hosts), "site.")
    return Site(
        directory=site_dir,
        spec=spec,
        hosts=hosts,
        purchase=_purchase(site_dir, spec, list(hosts["gpu"])),
        cabling=_cabling(site_dir, hosts),
        lock=_lock(site_dir, spec),
        targets_from=chosen,
    )


def _told(path: Path, problem: Problem | None, prefix: str = "") -> None:
    if problem:
        raise InputError(str(path), prefix + problem.key, problem.problem, problem.fix)


def _read(path: Path, missing: str, limit: int = LARGEST) -> Any:
    return document(read_bytes(path, str(path), limit, missing), str(path))


def _spec(site_dir: Path) -> Spec:
    path = site_dir / SITE_FILE
    data = _read(path, "a site directory has it; see docs/architecture.md, A site directory")
    if not isinstance(data, dict):
        raise InputError(str(path), "(whole file)", "is not a mapping", "start it with `site:`")
    for key in data:
        if key != "site":
            raise InputError(str(path), dotted((key,)), "is an unknown key", "this file has one key, `site:`")
    if "site" not in data:
        raise InputError(str(path), "site", "is missing", "start the file with `site:`")
    spec: Spec = typed(Spec, data["site"], str(path), ("site",))
    _told(path, rules.first_problem(spec, load_catalog()), "site.")
    return spec


def _purchase(site_dir: Path, spec: Spec, gpu_hosts: list[str]) -> Purchase:
    path = site_dir / "records" / "purchase.yml"
    record: Purchase = typed(
        Purchase, _read(path, "day 1 compares the machine with what was bought: write it"), str(path), ()
    )
    _told(path, rules.host_problem(spec, load_catalog(), record.hosts, gpu_hosts))
    serials = [part.serial for bought in record.hosts.values() for part in (*bought.gpus, *bought.nvme, *bought.psus)]
    for serial in serials:
        if serials.count(serial) > 1:
            raise InputError(str(path), "hosts", f"the serial number {serial} stands twice", "correct one of them")
    return record


def _cabling(site_dir: Path, hosts: Mapping[str, Mapping[str, str]]) -> Cabling:
    path = site_dir / "records" / "cabling.yml"
    drawing: Cabling = typed(
        Cabling, _read(path, "day 2 compares LLDP with the cabling drawing: write it"), str(path), ()
    )
    known = {host for group in GROUPS for host in hosts[group]}
    ends: set[tuple[str, str]] = set()
    for index, link in enumerate(drawing.links):
        if link.host not in known:
            raise InputError(
                str(path), f"links[{index}].host", f"{link.host} is not a host of the site", nearest(link.host, known)
            )
        for end in ((link.host, link.port), (link.switch, link.switch_port)):
            if end in ends:
                raise InputError(str(path), f"links[{index}]", f"{' '.join(end)} has two cables", "correct the drawing")
            ends.add(end)
    for host in sorted(known - {link.host for link in drawing.links}):
        raise InputError(str(path), "links", f"{shown(host)} has no cable", "add its line")
    return drawing


def _lock(site_dir: Path, spec: Spec) -> dict[str, LockedModel]:
    """The lock of the declared models. A model without an entry, or no lock at all, is not locked yet."""
    path = site_dir / "records" / "models.lock.json"
    data = _read(path, "", LARGEST_RECORD) if path.exists() else {}
    lock: dict[str, LockedModel] = typed(dict[str, LockedModel], data, str(path), ())
    for name, entry in lock.items():
        if name not in spec.models:
            raise InputError(str(path), name, "is not declared under site.models", nearest(name, spec.models))
        if entry.revision != spec.models[name].revision:
            problem = f"is revision {entry.revision}, but the site declares {spec.models[name].revision}"
            raise InputError(str(path), f"{name}.revision", problem, "lock the declared revision again")
        if entry.locked and not entry.files:
            raise InputError(str(path), f"{name}.files", "is empty", "list the files, or say `locked: false`")
    return lock


def _hosts(site_dir: Path) -> dict[str, dict[str, str]]:
    """Group → {host: address} of the three groups. Hosts outside the site (the rehearsal's) are left alone."""
    path = site_dir / "hosts.yml"
    data = _read(path, "declare the groups gpu, gateway and monitor under site_hosts")
    groups = dict(_groups(data))
    if PARENT not in groups:
        raise InputError(str(path), PARENT, "is missing", "put the groups gpu, gateway and monitor under it")
    found: dict[str, dict[str, str]] = {}
    for group in GROUPS:
        members = groups.get(group)
        if not members:
            problem = "is missing" if group not in groups else "has no host"
            raise InputError(str(path), f"{PARENT}.children.{group}", problem, "every site has at least one host in it")
        found[group] = {name: _address(path, name, variables) for name, variables in members.items()}
    if len(found["gpu"]) > 1:
        raise InputError(str(path), "gpu", "has more than one host", "one GPU host per site; scaling out comes later")
    _distinct(path, groups)
    return found


def _groups(data: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every group of an inventory at any depth, with its own hosts."""
    for name, group in data.items() if isinstance(data, dict) else ():
        if not isinstance(group, dict):
            continue
        hosts = group.get("hosts")
        yield str(name), dict(hosts) if isinstance(hosts, dict) else {}
        yield from _groups(group.get("children"))


def _address(path: Path, host: str, variables: Any) -> str:
    address = variables.get("ansible_host") if isinstance(variables, dict) else None
    if address is None:
        raise InputError(str(path), dotted((host, "ansible_host")), "is missing", "give the host its address")
    try:
        return str(ipaddress.ip_address(address if isinstance(address, str) else ""))
    except ValueError:
        raise InputError(
            str(path), dotted((host, "ansible_host")), f"{shown(address)} is not an address", "write an IP address"
        ) from None


def _distinct(path: Path, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Two names for one address would configure one machine twice."""
    owner: dict[str, str] = {}
    for members in groups.values():
        for host, variables in members.items():
            address = str(variables.get("ansible_host")) if isinstance(variables, dict) else None
            if address is None or address == "None":
                continue
            if owner.setdefault(address, host) != host:
                problem = f"{shown(address)} is also the address of {shown(owner[address])}"
                raise InputError(str(path), dotted((host, "ansible_host")), problem, "give each host its own")
