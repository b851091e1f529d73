#!/usr/bin/python
"""Ansible module: the keys that sign a gateway's record logs, and the newest checkpoint of each log."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.router import log_files

DOCUMENTATION = r"""
module: request_log
short_description: The keys that sign a gateway's record logs, and the newest checkpoint of each log
description:
  - Makes the private key of each pool in O(keys), once; a missing key is never replaced by a router.
  - Reads the newest signed checkpoint of every log, after what was written has reached the disk, so that a checkpoint
    that the controller keeps outlives a power cut of the gateway.
author: gpu-cutover
options:
  keys:
    description: Pool to the user whose key it is; that user alone may read it.
    type: dict
    default: {}
  key_directory:
    description: Where the keys live.
    type: path
    default: /etc/gpu-cutover/log-keys
  path:
    description: The environment made by the role agent; its interpreter makes the keys.
    type: path
    default: /opt/gpu-cutover
  logs:
    description: Where the routers write their records.
    type: path
    default: /var/log/gpu-cutover
  files:
    description: Also list every file of the logs, with its digest.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: The newest checkpoints
  request_log:
  register: request_log
"""

RETURN = r"""
checkpoints:
  description: Log name to its newest checkpoint, with the public key (C(public), hex) that belongs to it.
  type: dict
  returned: always
files:
  description: Each file's C(name), C(path), C(bytes) and C(sha256), oldest first; what was put aside as well.
  type: list
  returned: always
"""


def _make_key(module: AnsibleModule, path: Path, owner: str) -> bool:
    """Whether the key had to be made."""
    if path.exists() and path.with_suffix(".pub").exists():
        return False
    if not module.check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        python = str(Path(module.params["path"]) / "bin" / "python")
        rc, out, err = module.run_command([python, "-m", "gpu_cutover.router.log_key", str(path)])
        if rc:
            module.fail_json(msg=f"{path} cannot be made: {(err or out).strip()[-1000:]}")
        try:
            shutil.chown(path, owner, owner)
        except LookupError as error:
            module.fail_json(msg=f"{path}: {error}. Fix: create the user first")
    return True


def _durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoint(path: Path, keys: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a log, with its public key."""
    name = path.name.removesuffix(".jsonl")
    _durable(path)
    for one in (path, *log_files.rotated(path)[:1]):
        found = log_files.last_checkpoint(one)
        if found is not None:
            public = (keys / f"{name.rpartition('-')[2]}.pub").read_text().strip()
            kept = {key: found[key] for key in ("log", "name", "t", "covers", "head", "key", "sig")}
            return {**kept, "public": public}
    return None


def _files(path: Path) -> list[dict[str, Any]]:
    aside = sorted(path.parent.glob(f"{path.name}.torn-*")) + sorted(path.parent.glob(f"{path.name}.damaged-*"))
    found = []
    for one in (*reversed(log_files.rotated(path)), path, *aside):
        with one.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        name = path.name.removesuffix(".jsonl")
        found.append({"name": name, "path": str(one), "bytes": one.stat().st_size, "sha256": digest})
    return found


def main() -> None:
    """Arguments, keys made, one look."""
    module = AnsibleModule(
        argument_spec={
            "keys": {"type": "dict", "default": {}, "no_log": False},
            "key_directory": {"type": "path", "default": "/etc/gpu-cutover/log-keys", "no_log": False},
            "path": {"type": "path", "default": "/opt/gpu-cutover"},
            "logs": {"type": "path", "default": "/var/log/gpu-cutover"},
            "files": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    keys = Path(module.params["key_directory"])
    made = [pool for pool, owner in module.params["keys"].items() if _make_key(module, keys / f"{pool}.key", owner)]
    logs = sorted(Path(module.params["logs"]).glob("*-*.jsonl"))
    try:
        found = {path.name.removesuffix(".jsonl"): _checkpoint(path, keys) for path in logs}
        files = [one for path in logs for one in _files(path)] if module.params["files"] else []
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"the logs cannot be read: {error}")
    module.exit_json(
        changed=bool(made),
        checkpoints={name: checkpoint for name, checkpoint in found.items() if checkpoint},
        files=files,
        diff={"before": "", "after": "".join(f"{keys}/{pool}.key is made\n" for pool in made)},
    )


if __name__ == "__main__":
    main()
