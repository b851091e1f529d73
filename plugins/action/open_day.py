"""Refuse a day whose day before is neither promoted nor waived. Documented in library/open_day.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence.days import refusal
from gpu_cutover.evidence.ledger import timestamp, utc_now
from gpu_cutover.evidence.playbook import site_dir_of
from gpu_cutover.evidence.records import read_status


class ActionModule(ActionBase):
    """Controller only: no host is asked."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"day": {"type": "int", "required": True}})
        day, now = arguments["day"], utc_now()
        result.update(changed=False, day=day, started=timestamp(now))
        try:
            reason = refusal(read_status(site_dir_of(task_vars or {})), day, now.date())
        except (InputError, Refused) as error:
            result.update(failed=True, wrong_input=isinstance(error, InputError), msg=str(error))
            return result
        if reason is None:
            result["msg"] = f"Day {day} may start"
        elif self._task.check_mode:
            result.update(msg=f"A real run would be refused. {reason}", warnings=[reason.splitlines()[0]])
        else:
            result.update(failed=True, refused=True, msg=reason)
        return result
