"""Record what the gateways' journals tell and the ledger does not yet. Documented in library/record_changes.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence.playbook import plain, site_dir_of
from gpu_cutover.evidence.records import read_status
from gpu_cutover.traffic.recorder import record, recorded


class ActionModule(ActionBase):
    """Controller only: no host is asked."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        spec = {
            "changes": {"type": "dict", "required": True},
            "refused": {"type": "list", "elements": "str", "default": []},
        }
        _, arguments = self.validate_argument_spec(spec)
        result.update(changed=False, files=[], recorded=[])
        if self._task.check_mode:
            return result
        site_dir, changes = site_dir_of(task_vars or {}), plain(arguments["changes"])
        try:
            done = record(site_dir, changes)
            known = {change for change, _ in recorded(read_status(site_dir))}
        except (InputError, Refused) as error:
            result.update(failed=True, msg=f"Not recorded, the gateways keep it: {error}")
            return result
        files = [one.file for one in done]
        told = sorted({entry["id"] for entries in changes.values() for entry in entries} & known)
        result.update(files=files, recorded=told, msg=", ".join(files) or "All was recorded")
        if arguments["refused"]:
            result.update(failed=True, refused=True, msg="; ".join(map(str, arguments["refused"])))
        return result
