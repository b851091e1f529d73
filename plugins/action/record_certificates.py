"""Record which certificates were given out and which ended. Documented in library/record_certificates.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.evidence.playbook import plain, site_dir_of
from gpu_cutover.pki import register, told

ARGUMENTS = {
    "gateways": {"type": "list", "elements": "str", "required": True},
    "reason": {"type": "str", "default": "ordered"},
}


class ActionModule(ActionBase):
    """Controller only: no host is asked."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(ARGUMENTS)
        result.update(changed=False, file=None)
        site_dir = site_dir_of(task_vars or {})
        try:
            ledger = Ledger.open(site_dir)
            news = told.news(register.load(site_dir / ".state" / "pki"), ledger.records())
            if self._task.check_mode or not any(news.values()):
                return result
            record = ledger.append(told.KIND, told.name_of(news), {**news, **plain(arguments)})
        except (InputError, Refused) as error:
            result.update(failed=True, msg=f"Not recorded, the next run of the same playbook does it: {error}")
            return result
        result.update(msg=f"Recorded {record.file}", file=record.file)
        return result
