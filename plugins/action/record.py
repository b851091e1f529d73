"""Append one record to the site's ledger from a playbook. Documented in library/record.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.evidence.playbook import plain, site_dir_of

ARGUMENTS = {
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "data": {"type": "dict", "required": True},
    "attachments": {"type": "list", "elements": "dict", "default": []},
}


class ActionModule(ActionBase):
    """Controller only: no host is asked."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(ARGUMENTS)
        kind, name = str(arguments["kind"]), str(arguments["name"])
        result["changed"] = False
        if self._task.check_mode:
            result.update(msg=f"Would record {kind} {name}", sequence=None, file=None)
            return result
        try:
            ledger = Ledger.open(site_dir_of(task_vars or {}))
            record = ledger.append(kind, name, plain(arguments["data"]), plain(arguments["attachments"]))
        except (InputError, Refused) as error:
            result.update(failed=True, msg=f"Not recorded: {error}")
            return result
        result.update(msg=f"Recorded {record.file}", sequence=record.sequence, file=record.file)
        return result
