"""The hosts a site's inventory names, by group. Reads hosts.yml and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError

GROUPS = ("gpu", "gateway", "monitor")


def hosts_of(site_dir: Path) -> dict[str, list[str]]:
    """Hosts of the groups gpu, gateway and monitor. InputError for a hosts.yml missing, broken or without one."""
    import yaml  # late: `status` never gets here and stays fast

    path = site_dir / "hosts.yml"
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise InputError(str(path), "file", error.strerror or str(error), "write the site's hosts.yml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), "file", " ".join(str(error).split()), "correct the YAML") from error
    found: dict[str, list[str]] = {}
    _collect(tree if isinstance(tree, dict) else {}, found)
    for group in GROUPS:
        if not found.get(group):
            raise InputError(str(path), group, "the group has no host", f"name at least one host under {group}: hosts:")
    return {group: found[group] for group in GROUPS}


def _collect(groups: dict[str, Any], found: dict[str, list[str]]) -> None:
    for name, body in groups.items():
        if not isinstance(body, dict):
            continue
        hosts = body.get("hosts")
        if isinstance(hosts, dict):
            found.setdefault(str(name), []).extend(str(host) for host in hosts)
        if isinstance(body.get("children"), dict):
            _collect(body["children"], found)
