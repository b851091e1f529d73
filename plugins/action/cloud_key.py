"""The cloud providers' keys are on the controller. Documented in library/cloud_key.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError
from gpu_cutover.evidence.playbook import plain, site_dir_of
from gpu_cutover.stack.cloud_key import FILE, ensure

ARGUMENTS = {
    "variables": {"type": "list", "elements": "str", "required": True},
    "stage": {"type": "str", "required": True},
}


class ActionModule(ActionBase):
    """Controller only: returns where the keys are, never a key."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(ARGUMENTS)
        given = plain(arguments)
        try:
            path = site_dir_of(task_vars or {}) / FILE
            made = ensure(path, given["variables"], given["stage"], write=not self._task.check_mode)
        except InputError as error:
            result.update(failed=True, msg=str(error))
            return result
        result.update(changed=made, path=str(path), present=path.exists())
        return result
