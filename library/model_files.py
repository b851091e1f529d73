#!/usr/bin/python
"""Ansible module: model files by pinned revision and digest."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.stack import models

DOCUMENTATION = r"""
module: model_files
short_description: Model files by pinned revision and digest
description:
  - Brings every file of the lock to C(<target>/<model>/<revision>/), hashing while it copies; a file gets its name only
    when every byte is right. Files that were verified before and have kept size and modification time are not read
    again.
  - With O(verify=full) every byte on the disk is read again.
  - A file whose content is not the locked one is moved to C(<target>/.quarantine) and copied anew. Other revisions and
    files that the lock does not know are left where they are and told.
  - An interrupted copy is resumed file by file.
author: gpu-cutover
options:
  lock:
    description: The content of C(models.lock.json).
    type: dict
    required: true
  models:
    description: Only these models. Empty means all of the lock.
    type: list
    elements: str
    default: []
  source:
    description: Models in the bundle.
    type: path
    default: /srv/bundle/models
  target:
    description: Models on the host.
    type: path
    default: /srv/models
  verify:
    description: V(new) reads what is not yet verified, V(full) reads everything again.
    type: str
    choices: [new, full]
    default: new
  threads:
    description: Files hashed or copied at once.
    type: int
    default: 4
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Read every model file again
  model_files:
    lock: "{{ site.models_lock }}"
    verify: full
"""

RETURN = r"""
reading:
  description: Per model the files, bytes and how many were verified; quarantined files, seconds, verification kind.
  type: dict
  returned: always
copied:
  description: Files that were (or would be) copied.
  type: list
  returned: always
quarantined:
  description: Files whose content was wrong.
  type: list
  returned: always
altered_models:
  description: Models of those files. Their engines may have read wrong bytes.
  type: list
  returned: always
"""

STAMPS = ".verified.json"
QUARANTINE = ".quarantine"


@dataclass
class Work:
    """What one run finds and does."""

    target: Path
    source: Path
    full: bool
    check_mode: bool
    stamps: dict[str, Any]
    copied: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    verified: dict[str, int] = field(default_factory=dict)
    bytes_read: int = 0

    def bring(self, file: models.LockedFile) -> None:
        """Verify one file, or copy it. Raises ModelFileError, OSError."""
        path = self.target / file.place
        stat = path.lstat() if path.is_file() else None
        state = models.state_of(file, stat, self.stamps.get(str(file.place)))
        if state == "unverified" or (state == "verified" and self.full):
            state = "verified" if models.sha256_of(path) == file.sha256 else "wrong size"
            self.bytes_read += file.size
            if state == "verified" and stat is not None:
                self.stamps[str(file.place)] = models.stamp_of(stat, file.sha256)
        if state == "wrong size" or path.is_symlink():
            state = "wrong size"
            self._put_aside(file, path)
        if state != "verified":
            self._copy(file, path)
        self.verified[file.model] = self.verified.get(file.model, 0) + 1

    def _put_aside(self, file: models.LockedFile, path: Path) -> None:
        self.quarantined.append(str(path))
        self.stamps.pop(str(file.place), None)
        if not self.check_mode:
            aside = self.target / QUARANTINE / file.place.with_name(f"{file.place.name}.{time.time_ns()}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)

    def _copy(self, file: models.LockedFile, path: Path) -> None:
        source = self.source / file.place
        self.copied.append(str(path))
        if not source.is_file() and self.source.is_dir():
            raise models.ModelFileError(f"{source}: the bundle lacks this file. Fix: build the bundle again.")
        if not self.check_mode:
            self.stamps[str(file.place)] = models.stamp_of(models.copy_verified(source, path, file), file.sha256)
            self.bytes_read += file.size


def _read_stamps(path: Path) -> dict[str, Any]:
    try:
        stamps = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(path: Path, stamps: dict[str, Any]) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(stamps, indent=1, sort_keys=True))
    fresh.replace(path)


def _refuse_full_disk(module: AnsibleModule, work: Work, files: list[models.LockedFile]) -> None:
    """A copy that cannot end is not begun: it would leave the disk full for everybody."""
    missing = sum(file.size for file in files if not (work.target / file.place).is_file())
    free = shutil.disk_usage(work.target).free
    if missing > free * 0.95:
        module.fail_json(msg=f"{work.target}: {missing} bytes to copy, {free} bytes free. Fix: make room first.")


def _bring_all(module: AnsibleModule, work: Work, files: list[models.LockedFile]) -> None:
    """All files, some at once. What was done is remembered even when one of them fails."""
    stamps_path, before = work.target / STAMPS, json.dumps(work.stamps, sort_keys=True)
    try:
        with ThreadPoolExecutor(module.params["threads"]) as pool:
            list(pool.map(work.bring, files))
    except (models.ModelFileError, OSError) as error:
        module.fail_json(msg=str(error), copied=work.copied, quarantined=work.quarantined)
    finally:
        if not module.check_mode and json.dumps(work.stamps, sort_keys=True) != before:
            _write_stamps(stamps_path, work.stamps)


def _strays(work: Work, files: list[models.LockedFile]) -> list[str]:
    """Files below the locked revisions that the lock does not know: told, not removed."""
    known = {str(file.place) for file in files}
    revisions = sorted({f"{file.model}/{file.revision}" for file in files})
    return [
        str(path)
        for revision in revisions
        for path in sorted((work.target / revision).rglob("*"))
        if path.is_file() and str(path.relative_to(work.target)) not in known
    ]


def _reading(work: Work, files: list[models.LockedFile], seconds: float) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for file in files:
        entry = told.setdefault(file.model, {"revision": file.revision, "files": 0, "bytes": 0, "verified": 0})
        entry["files"] += 1
        entry["bytes"] += file.size
        entry["verified"] = work.verified.get(file.model, 0)
    return {
        "verification": "full" if work.full else "new",
        "models": told,
        "quarantined": work.quarantined,
        "strays": _strays(work, files),
        "bytes_read": work.bytes_read,
        "seconds_s": round(seconds, 3),
    }


def main() -> None:
    """Arguments, one pass over the files, one result."""
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "dict", "required": True},
            "models": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "path", "default": "/srv/bundle/models"},
            "target": {"type": "path", "default": "/srv/models"},
            "verify": {"type": "str", "choices": ["new", "full"], "default": "new"},
            "threads": {"type": "int", "default": 4},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the engines' users read the files
    params, started = module.params, time.monotonic()
    unknown = sorted(set(params["models"]) - set(params["lock"]))
    if unknown:
        module.fail_json(msg=f"models.lock.json has no {', '.join(unknown)}. Fix: lock the model's files first.")
    wanted = {name: entry for name, entry in params["lock"].items() if not params["models"] or name in params["models"]}
    try:
        files = models.locked_files(wanted)
    except models.ModelFileError as error:
        module.fail_json(msg=str(error))
    target = Path(params["target"])
    work = Work(target, Path(params["source"]), params["verify"] == "full", module.check_mode, {})
    work.stamps = _read_stamps(target / STAMPS)
    if not module.check_mode:
        target.mkdir(parents=True, exist_ok=True)
        _refuse_full_disk(module, work, files)
    _bring_all(module, work, files)
    module.exit_json(
        changed=bool(work.copied or work.quarantined),
        copied=work.copied,
        quarantined=work.quarantined,
        altered_models=sorted({Path(path).relative_to(target).parts[0] for path in work.quarantined}),
        reading=_reading(work, files, time.monotonic() - started),
        diff=[{"before_header": path, "after_header": path, "before": "", "after": "locked\n"} for path in work.copied],
    )


if __name__ == "__main__":
    main()
