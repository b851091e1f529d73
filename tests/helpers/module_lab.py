"""Run an Ansible module of `library/` in this process, as the target would."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

import gpu_cutover

ROOT = Path(__file__).parents[2]
# Ansible copies the package to the target under this name.
PACKAGE = "ansible.module_utils.gpu_cutover"
sys.modules.setdefault(PACKAGE, gpu_cutover)
ansible.module_utils.gpu_cutover = gpu_cutover


class FailedModuleError(Exception):
    """The module said `failed`; the message is its `msg`."""


def run_module(name: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The module's result. Raises FailedModuleError."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "library" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    output = io.StringIO()
    arguments |= {"_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(arguments), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(output.getvalue())
    if result.get("failed"):
        raise FailedModuleError(result["msg"])
    return result
