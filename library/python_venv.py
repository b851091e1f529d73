#!/usr/bin/python
"""Ansible module: one Python environment from a hash lock, offline."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.stack import venv

DOCUMENTATION = r"""
module: python_venv
short_description: One Python environment from a hash lock, offline
description:
  - Builds the environment beside O(path) in a release directory named by the digest of the lock and the interpreter,
    with every hash checked and bytecode compiled, then switches the symbolic link O(path) to it. The release before it
    is kept.
  - Uses the C(uv) of the offline bundle. Nothing is downloaded. A lock whose wheels are not all in the bundle is
    refused before anything is changed.
  - An interrupted build is thrown away by the next run.
author: gpu-cutover
options:
  path:
    description: The environment, for example V(/opt/litellm). It becomes a symbolic link.
    type: path
    required: true
  lock:
    description: Requirements file with a hash for every distribution.
    type: path
  wheels:
    description: Directory with the wheels.
    type: path
  uv:
    description: The installer's binary.
    type: path
    default: /srv/bundle/bin/uv
  python:
    description: The interpreter of the environment.
    type: path
    default: /usr/bin/python3
  links:
    description: Symbolic links made inside the environment after the installation, path to target.
    type: dict
    default: {}
  state:
    description: V(present) installs the lock, V(previous) switches back to the release before.
    type: str
    choices: [present, previous]
    default: present
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Install the engine from the bundle
  python_venv:
    path: /opt/vllm
    lock: /srv/bundle/locks/vllm.lock
    wheels: /srv/bundle/wheels/vllm
"""

RETURN = r"""
release:
  description: The directory that the link points to (or would point to).
  type: str
  returned: always
previous:
  description: The release before, or an empty string.
  type: str
  returned: always
"""


STAMP = "gpu-cutover-release"


def _target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else ""


def _switch(link: Path, target: str) -> None:
    """Point the link elsewhere by one rename, so that no moment exists without it."""
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _interpreter(module: AnsibleModule) -> str:
    code = "import sys; print(sys.implementation.name, '.'.join(map(str, sys.version_info[:3])))"
    rc, out, err = module.run_command([module.params["python"], "-I", "-c", code])
    if rc:
        module.fail_json(msg=f"{module.params['python']} does not run: {err.strip()}")
    return f"{module.params['python']} {out.strip()}"


def _digest(module: AnsibleModule, lock: bytes) -> str:
    links = module.params["links"]
    return str(venv.release_digest(lock, _interpreter(module), links))


def _read_lock(module: AnsibleModule) -> bytes | None:
    """The lock's bytes after checking that the bundle can satisfy it; None when a dry run finds no bundle yet."""
    lock, wheels, uv = (Path(module.params[key]) for key in ("lock", "wheels", "uv"))
    absent = [str(path) for path in (lock, wheels, uv) if not path.exists()]
    if absent and module.check_mode:
        module.warn(f"not here yet, so only predicted: {', '.join(absent)}")
        return None
    if absent:
        module.fail_json(msg=f"the bundle lacks {', '.join(absent)}. Fix: rebuild or remount the bundle.")
    content = lock.read_bytes()
    missing = venv.missing_wheels(content.decode(), [entry.name for entry in wheels.iterdir()])
    if missing:
        module.fail_json(
            msg=f"{wheels} has no wheel for {', '.join(missing)}, which {lock} asks for. Fix: rebuild the bundle.",
            missing=missing,
        )
    return content


def _build(module: AnsibleModule, release: Path) -> None:
    cache = release.with_name(release.name + ".cache")
    environment = {"PYTHONDONTWRITEBYTECODE": "", "HOME": "/nonexistent", "UV_NO_PROGRESS": "1"}
    params = module.params
    steps = [
        venv.create_command(params["uv"], params["python"], str(release)),
        venv.install_command(params["uv"], str(release), params["wheels"], params["lock"], str(cache)),
    ]
    try:
        for step in steps:
            rc, out, err = module.run_command(step, environ_update=environment)
            if rc:
                shutil.rmtree(release, ignore_errors=True)
                module.fail_json(msg=f"{' '.join(step[1:3])} failed: {(err or out).strip()[-2000:]}", rc=rc)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    for name, target in params["links"].items():
        (release / name).symlink_to(target)
    (release / STAMP).write_text(release.name + "\n")


def _prune(link: Path, keep: set[str]) -> None:
    """Remove releases that are neither current nor previous."""
    for entry in link.parent.glob(link.name + "-" + "?" * venv.DIGEST_LENGTH):
        if str(entry) not in keep and (entry / STAMP).exists():
            shutil.rmtree(entry)


def _present(module: AnsibleModule, link: Path, previous_link: Path) -> dict[str, object]:
    content = _read_lock(module)
    before = _target(link)
    if content is None:
        return {"changed": not before, "release": before, "previous": _target(previous_link)}
    release = Path(venv.release_path(str(link), _digest(module, content)))
    built = (release / STAMP).exists()
    result: dict[str, object] = {
        "changed": before != str(release) or not built,
        "release": str(release),
        "previous": before if before != str(release) else _target(previous_link),
        "diff": {"before": f"{before}\n", "after": f"{release}\n"},
    }
    if not result["changed"] or module.check_mode:
        return result
    if link.exists() and not link.is_symlink():
        module.fail_json(msg=f"{link} is there and is no link of this module. Fix: move it away.")
    if not built:
        shutil.rmtree(release, ignore_errors=True)
        _build(module, release)
    if before and before != str(release):
        _switch(previous_link, before)
    _switch(link, str(release))
    _prune(link, {str(release), _target(previous_link)})
    return result


def _previous(module: AnsibleModule, link: Path, previous_link: Path) -> dict[str, object]:
    current, previous = _target(link), _target(previous_link)
    if not previous or not (Path(previous) / STAMP).exists():
        module.fail_json(msg=f"{link} has no previous release to go back to.")
    if not module.check_mode:
        _switch(link, previous)
        _switch(previous_link, current)
    diff = {"before": f"{current}\n", "after": f"{previous}\n"}
    return {"changed": True, "release": previous, "previous": current, "diff": diff}


def main() -> None:
    """Arguments, one decision, one result."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "path"},
            "wheels": {"type": "path"},
            "uv": {"type": "path", "default": "/srv/bundle/bin/uv"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "links": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "previous"], "default": "present"},
        },
        required_if=[("state", "present", ["lock", "wheels"])],
        supports_check_mode=True,
    )
    os.umask(0o022)  # daemons of other users read the environment
    link = Path(module.params["path"])
    act = _present if module.params["state"] == "present" else _previous
    module.exit_json(**act(module, link, link.with_name(link.name + ".previous")))


if __name__ == "__main__":
    main()
