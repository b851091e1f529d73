"""Judge what the day's roles read and record the verdict. Documented in library/gate.py."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence.ledger import Ledger, timestamp, utc_now
from gpu_cutover.evidence.playbook import load_records, plain, site_dir_of
from gpu_cutover.gates.check import Verdict, verdict_of
from gpu_cutover.gates.closing import READING, collect, gate_data, judge, sentence

GROUPS = ("gpu", "gateway", "monitor")


class ActionModule(ActionBase):
    """Controller only: no host is asked."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"day": {"type": "int", "required": True}})
        try:
            result.update(self._close(arguments["day"], task_vars or {}))
        except (InputError, Refused) as error:
            result.update(failed=True, msg=f"The verdict of day {arguments['day']} was not recorded: {error}")
        return result

    def _close(self, day: int, task_vars: dict[str, Any]) -> dict[str, Any]:
        site_dir = site_dir_of(task_vars)
        hosts = {group: [str(name) for name in task_vars["groups"].get(group, [])] for group in GROUPS}
        plan = {
            **plain(task_vars["site_plan"]),
            "site": plain(task_vars["site"]),
            "hosts": hosts,
            "records": load_records(site_dir),
        }
        hostvars = {
            host: _readings(task_vars, host) for host in sorted({name for names in hosts.values() for name in names})
        }
        readings, attachments = collect(hostvars)
        checks = judge(day, plan, readings)
        verdict, predicted = verdict_of(checks), self._task.check_mode
        data = gate_data(
            day,
            checks,
            _started(task_vars),
            timestamp(utc_now()),
            plan.get("digest"),
            os.environ.get("GPU_CUTOVER_RUN"),
        )
        if not predicted:
            Ledger.open(site_dir).append("gate", f"day{day:02d}", data, attachments)
        return {
            "changed": False,
            "failed": verdict is not Verdict.PROMOTE and not predicted,
            "gate_verdict": str(verdict),
            "msg": sentence(day, checks, predicted=predicted),
            "_ansible_verbose_always": True,
        }


def _readings(task_vars: dict[str, Any], host: str) -> dict[str, Any]:
    variables = task_vars["hostvars"][host]
    return {str(name): plain(variables[name]) for name in variables if READING.fullmatch(str(name))}


def _started(task_vars: dict[str, Any]) -> str | None:
    opened = task_vars.get("day_opened")
    return str(opened["started"]) if isinstance(opened, dict) and "started" in opened else None
