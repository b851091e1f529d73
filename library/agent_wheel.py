#!/usr/bin/python
"""Ansible module: this project's own wheel in its environment, offline."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: agent_wheel
short_description: This project's own wheel in its environment, offline
description:
  - Installs the one wheel that O(pattern) matches into the environment O(path), with bytecode, without
    resolving anything.
  - The digest of the installed wheel is kept in the environment, so a rebuilt wheel of the same version is installed
    again and an unchanged one is not touched.
author: gpu-cutover
options:
  path:
    description: The environment.
    type: path
    default: /opt/gpu-cutover
  pattern:
    description: Where the wheel lies, as a glob pattern that matches exactly one file.
    type: str
    default: /srv/bundle/gpu_cutover-*.whl
  uv:
    description: The installer's binary.
    type: path
    default: /srv/bundle/bin/uv
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install the daemons
  agent_wheel:
    path: /opt/gpu-cutover
"""

RETURN = r"""
sha256:
  description: Digest of the wheel that is (or would be) installed; empty when a dry run finds no bundle yet.
  type: str
  returned: always
"""

STAMP = "gpu-cutover-wheel"


def _wheel(module: AnsibleModule) -> Path | None:
    pattern = Path(module.params["pattern"])
    found = sorted(pattern.parent.glob(pattern.name)) if pattern.parent.is_dir() else []
    if not found and module.check_mode:
        module.warn(f"{pattern} is not here yet, so only predicted")
        return None
    if len(found) != 1:
        module.fail_json(
            msg=f"{pattern} matches {len(found)} files instead of one. Fix: rebuild or remount the bundle."
        )
    return found[0]


def _install(module: AnsibleModule, wheel: Path) -> None:
    command = [
        module.params["uv"], "pip", "install", "--quiet", "--offline", "--no-config", "--no-index", "--no-cache",
        "--no-deps", "--reinstall", "--compile-bytecode",
        "--python", f"{module.params['path']}/bin/python", str(wheel),
    ]  # fmt: skip
    environment = {"PYTHONDONTWRITEBYTECODE": "", "HOME": "/nonexistent", "UV_NO_PROGRESS": "1"}
    rc, out, err = module.run_command(command, environ_update=environment)
    if rc:
        module.fail_json(msg=f"installing {wheel.name} failed: {(err or out).strip()[-2000:]}", rc=rc)


def main() -> None:
    """Arguments, one decision, one result."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/opt/gpu-cutover"},
            "pattern": {"type": "str", "default": "/srv/bundle/gpu_cutover-*.whl"},
            "uv": {"type": "path", "default": "/srv/bundle/bin/uv"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # daemons of other users read the environment
    stamp = Path(module.params["path"]) / STAMP
    before = stamp.read_text().strip() if stamp.exists() else ""
    wheel = _wheel(module)
    if wheel is None:
        module.exit_json(changed=not before, sha256=before)
        return
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != before and not module.check_mode:
        _install(module, wheel)
        stamp.write_text(digest + "\n")
    module.exit_json(changed=digest != before, sha256=digest, diff={"before": f"{before}\n", "after": f"{digest}\n"})


if __name__ == "__main__":
    main()
