#!/usr/bin/python
"""Ansible module: a daemon's users, files and units in one call."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.stack import service

DOCUMENTATION = r"""
module: service_files
short_description: A daemon's packages, users, files and units in one call
description:
  - Installs packages from the sources that the host has (the bundle's), creates system users and directories, writes
    files whole (beside, checked by O(files[].validate), renamed), then makes sure that every unit is enabled and runs
    with exactly these files.
  - A unit is restarted or reloaded when what it depends on differs from what it was last started with. That is kept on
    the host, so a run that is interrupted between the file and the restart is finished by the next one.
author: gpu-cutover
options:
  packages:
    description: Debian packages that must be installed; an installed one is never upgraded here.
    type: list
    elements: str
    default: []
  users:
    description: System users without a login; each gets a group of its own name.
    type: list
    elements: str
    default: []
  directories:
    description: Directories that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The directory., type: path, required: true}
      mode: {description: Octal mode., type: str, default: "0755"}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
  copies:
    description: Directories copied whole from another place on the host.
    type: list
    elements: dict
    default: []
    suboptions:
      source: {description: The directory in the bundle., type: path, required: true}
      path: {description: Where its copy must be., type: path, required: true}
  files:
    description: Files with their whole content.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      content: {description: All of it., type: str}
      secret_content: {description: All of it; never in a log or a diff., type: str}
      mode: {description: Octal mode., type: str, default: "0644"}
      owner: {description: Owner., type: str, default: root}
      group: {description: Group., type: str, default: root}
      validate:
        description: Command that must accept the file before it replaces the old one; V(%s) is its path.
        type: str
  absent:
    description: Files that must not be there.
    type: list
    elements: path
    default: []
  units:
    description: Units that must be enabled and run.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The unit. A pattern such as V(vllm@*.service) means the running instances, which are never started here.
        type: str
        required: true
      depends_on:
        description: Files and links that the unit reads at its start.
        type: list
        elements: path
        default: []
      on_change: {description: How the unit takes up a change., type: str, choices: [restart, reload], default: restart}
      wait: {description: Wait until systemd calls the start done., type: bool, default: true}
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: The edge, its configuration checked before it replaces the old one
  service_files:
    files:
      - path: /etc/haproxy/haproxy.cfg
        content: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
        validate: haproxy -c -q -f %s
    units:
      - {name: haproxy.service, depends_on: [/etc/haproxy/haproxy.cfg], on_change: reload}
"""

RETURN = r"""
written:
  description: Paths that were (or would be) written or removed.
  type: list
  returned: always
units:
  description: Unit to what was done with it, for units that needed something.
  type: dict
  returned: always
"""


def _number(module: AnsibleModule, database: Any, name: str) -> int | None:
    """The id of a user or group; None in a dry run that would have created it."""
    try:
        entry = database(name)
        return int(entry[2])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"there is no user or group {name}. Fix: name it under users, or create it first.")
        return None


def _run(module: AnsibleModule, command: list[str], what: str) -> str:
    rc, out, err = module.run_command(command)
    if rc:
        module.fail_json(msg=f"{what}: {(err or out).strip()[-2000:]}", rc=rc)
    return str(out)


def _packages(module: AnsibleModule) -> list[str]:
    """Packages that had to be installed. In a dry run a host need not have the package source yet."""
    wanted = module.params["packages"]
    if not wanted:
        return []
    _, out, _ = module.run_command(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\n", *wanted]
    )
    installed = {line.split()[0] for line in out.splitlines() if line.split()[1:2] == ["ii"]}
    missing = [name for name in wanted if name not in installed]
    if missing and not module.check_mode:
        options = ["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"]
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *options, *missing]
        module.run_command_environ_update = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        _run(module, command, f"packages {', '.join(missing)}")
    return missing


def _users(module: AnsibleModule) -> list[str]:
    known = {entry.pw_name for entry in pwd.getpwall()}
    missing = [name for name in module.params["users"] if name not in known]
    for name in [] if module.check_mode else missing:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        _run(module, [*command, "--shell", "/usr/sbin/nologin", name], f"user {name}")
    return missing


def _directories(module: AnsibleModule) -> list[str]:
    changed = []
    for wanted in module.params["directories"]:
        path, mode = Path(wanted["path"]), int(wanted["mode"], 8)
        owner, group = _number(module, pwd.getpwnam, wanted["owner"]), _number(module, grp.getgrnam, wanted["group"])
        stat = path.stat() if path.is_dir() else None
        if stat and (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (mode, owner, group):
            continue
        changed.append(str(path))
        if not module.check_mode:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
            path.chmod(mode)
    return changed


def _content(entry: dict[str, Any]) -> str:
    return str(entry["secret_content"] if entry["content"] is None else entry["content"])


def _copies(module: AnsibleModule) -> list[str]:
    """Directories whose copy differs from its source, replaced whole."""
    changed = []
    for wanted in module.params["copies"]:
        source, path = Path(wanted["source"]), Path(wanted["path"])
        if not source.is_dir() and not module.check_mode:
            module.fail_json(msg=f"the bundle lacks {source}. Fix: rebuild or remount the bundle.")
        if path.is_dir() and source.is_dir() and service.tree_digest(source) == service.tree_digest(path):
            continue
        changed.append(str(path))
        if not module.check_mode:
            fresh, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
            for leftover in (fresh, old):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.copytree(source, fresh)
            if path.exists():
                path.rename(old)
            fresh.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    return changed


def _files(module: AnsibleModule) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Write what differs. Every file is written and validated beside its place before the first one is renamed."""
    pending: dict[str, bytes] = {}
    diffs: list[dict[str, str]] = []
    renames: list[tuple[Path, Path]] = []
    for entry in module.params["files"]:
        wanted = service.Wanted(
            Path(entry["path"]),
            _content(entry).encode(),
            int(entry["mode"], 8),
            _number(module, pwd.getpwnam, entry["owner"]),
            _number(module, grp.getgrnam, entry["group"]),
        )
        found = service.find(wanted.path)
        if not service.differs(wanted, found):
            continue
        pending[entry["path"]] = wanted.content
        diffs.append(_diff(entry, found))
        if not module.check_mode:
            renames.append((_validated_copy(module, entry, wanted), wanted.path))
    for copy, path in renames:
        copy.replace(path)
    return pending, diffs


def _validated_copy(module: AnsibleModule, entry: dict[str, Any], wanted: service.Wanted) -> Path:
    copy: Path = service.fresh_copy(wanted)
    if entry["validate"]:
        rc, out, err = module.run_command([part.replace("%s", str(copy)) for part in entry["validate"].split()])
        if rc:
            copy.unlink()
            module.fail_json(
                msg=f"{wanted.path} was left as it is; the new one is wrong: {(err or out).strip()[-2000:]}"
            )
    return copy


def _diff(entry: dict[str, Any], found: service.Found) -> dict[str, str]:
    header = {"before_header": entry["path"], "after_header": entry["path"]}
    if entry["content"] is None:
        return header | {"before": "(secret)\n", "after": "(secret, changed)\n"}
    before = "" if found.content is None else found.content.decode(errors="replace")
    return header | {"before": before, "after": entry["content"]}


def _absent(module: AnsibleModule) -> list[str]:
    present = [name for name in module.params["absent"] if Path(name).is_symlink() or Path(name).exists()]
    for name in [] if module.check_mode else present:
        Path(name).unlink()
    return present


def _show(module: AnsibleModule, names: list[str]) -> dict[str, dict[str, str]]:
    """Properties of units by name; an unknown unit is told as inactive and not enabled."""
    if not names:
        return {}
    properties = "Id,ActiveState,UnitFileState,NeedDaemonReload"
    out = _run(module, ["systemctl", "show", "--property", properties, "--", *names], "systemctl show")
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
    return dict(zip(names, [block for block in blocks if block], strict=False))


def _instances(module: AnsibleModule, pattern: str) -> list[str]:
    command: list[str] = [
        "systemctl",
        "list-units",
        "--plain",
        "--no-legend",
        "--state=active,activating,reloading",
        pattern,
    ]
    return [line.split()[0] for line in _run(module, command, "systemctl list-units").splitlines() if line.strip()]


def _apply(module: AnsibleModule, unit: dict[str, Any], names: list[str], action: str) -> None:
    block = [] if unit["wait"] else ["--no-block"]
    if names:
        _run(module, ["systemctl", "reset-failed", *names], "systemctl reset-failed")
        _run(module, ["systemctl", *block, action, *names], f"{action} of {', '.join(names)}")


def _units(module: AnsibleModule, pending: dict[str, bytes]) -> dict[str, str]:
    done: dict[str, str] = {}
    wanted = module.params["units"]
    shown = _show(module, [unit["name"] for unit in wanted if "*" not in unit["name"]])
    stale = any("/systemd/system/" in path for path in pending) or any(
        properties.get("NeedDaemonReload") == "yes" for properties in shown.values()
    )
    if stale and not module.check_mode:
        _run(module, ["systemctl", "daemon-reload"], "systemctl daemon-reload")
    for unit in wanted:
        told = _unit(module, unit, shown.get(unit["name"]), pending)
        if told:
            done[unit["name"]] = told
    return done


def _unit(module: AnsibleModule, unit: dict[str, Any], shown: dict[str, str] | None, pending: dict[str, bytes]) -> str:
    digest = service.digest(unit["depends_on"], pending if module.check_mode else {})
    stamp = service.stamp_path(unit["name"])
    applied = stamp.read_text() if stamp.exists() else ""
    is_pattern = "*" in unit["name"]
    active = is_pattern or (shown or {}).get("ActiveState") in ("active", "reloading", "activating")
    action = service.action_for(active, digest, applied, unit["on_change"])
    names = _instances(module, unit["name"]) if is_pattern and action else [unit["name"]]
    enable = not is_pattern and (shown or {}).get("UnitFileState") != "enabled"
    if not module.check_mode:
        if enable:
            _run(module, ["systemctl", "enable", "--quiet", unit["name"]], f"enabling {unit['name']}")
        if action:
            _apply(module, unit, names, action)
            service.STAMPS.mkdir(parents=True, exist_ok=True)
            stamp.write_text(digest)
    told = [str(action)] if action and names else []
    return " and ".join([*(["enable"] if enable else []), *told])


def main() -> None:
    """Arguments, then packages, users, directories, files and units in this order."""
    owned = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    file_options = {
        **owned,
        "mode": {"type": "str", "default": "0644"},
        "content": {"type": "str"},
        "secret_content": {"type": "str", "no_log": True},
        "validate": {"type": "str"},
    }
    one_content = {
        "mutually_exclusive": [("content", "secret_content")],
        "required_one_of": [("content", "secret_content")],
    }
    unit_options = {
        "name": {"type": "str", "required": True},
        "depends_on": {"type": "list", "elements": "path", "default": []},
        "on_change": {"type": "str", "choices": ["restart", "reload"], "default": "restart"},
        "wait": {"type": "bool", "default": True},
    }
    copy_options = {"source": {"type": "path", "required": True}, "path": {"type": "path", "required": True}}
    directory_options = {**owned, "mode": {"type": "str", "default": "0755"}}
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "list", "elements": "str", "default": []},
            "directories": {"type": "list", "elements": "dict", "default": [], "options": directory_options},
            "copies": {"type": "list", "elements": "dict", "default": [], "options": copy_options},
            "files": {"type": "list", "elements": "dict", "default": [], "options": file_options, **one_content},
            "absent": {"type": "list", "elements": "path", "default": []},
            "units": {"type": "list", "elements": "dict", "default": [], "options": unit_options},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    packages = _packages(module)
    users = _users(module)
    directories = _directories(module)
    copies = _copies(module)
    pending, diffs = _files(module)
    removed = _absent(module)
    units = _units(module, pending)
    module.exit_json(
        changed=bool(packages or users or directories or copies or pending or removed or units),
        written=[*packages, *users, *directories, *copies, *pending, *removed],
        units=units,
        diff=diffs,
    )


if __name__ == "__main__":
    main()
