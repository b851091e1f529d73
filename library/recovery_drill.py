#!/usr/bin/python
"""Ansible module: kill a unit's main process on purpose and time how it comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.guard import systemd
from ansible.module_utils.gpu_cutover.probes import monitoring, web

DOCUMENTATION = r"""
module: recovery_drill
short_description: Kill a unit's main process on purpose and time how it comes back
description:
  - For each drill sends SIGKILL to the unit's main process, then times three things. The death is noticed, meaning that
    systemd knows another process or the health check fails. The unit is active again with a new process and its health
    check answers. The alert for it is active in Alertmanager.
  - A unit that is not healthy beforehand is not killed, and nothing is while Alertmanager does not answer; such a drill
    has an C(error) and the gate stays unproven.
  - All units are killed and recovered one after the other, then the alerts are waited for together.
author: gpu-cutover
options:
  drills:
    description: What to kill.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the drill., type: str, required: true}
      unit: {description: The unit., type: str, required: true}
      url: {description: Address that answers 200 while the unit serves., type: str, required: true}
      bound: {description: Seconds within which it must be back., type: float, required: true}
      alert: {description: Name of the alert that must fire., type: str, required: true}
      labels: {description: Labels that the alert must carry., type: dict, default: {}}
  alertmanager:
    description: Alertmanager's address.
    type: str
    required: true
  alert_bound:
    description: Seconds within which an alert must be active.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
    details: Nothing is killed; the reading is an error, so the gate predicts unproven.
"""

EXAMPLES = r"""
- name: Kill an engine
  recovery_drill:
    alertmanager: http://10.0.0.3:9093
    drills:
      - name: engine
        unit: vllm@bge-m3.service
        url: http://127.0.0.1:8101/health
        bound: 300
        alert: UnitRestarted
        labels: {name: vllm@bge-m3.service}
  register: reading_recovery
"""

RETURN = r"""
reading:
  description: Per drill C(detection_s, recovery_s, bound_s, alert, alert_s, alert_bound_s) or C(error).
  type: dict
  returned: always
"""

POLL_S = 0.1


@dataclass
class Drill:
    """One drill's declaration and what was timed; times in seconds from the kill."""

    name: str
    unit: str
    url: str
    bound: float
    alert: str
    labels: dict[str, str]
    killed_at: float = 0.0
    error: str = ""
    times: dict[str, float] = field(default_factory=dict)

    def reading(self, alert_bound_s: float) -> dict[str, Any]:
        base = {"unit": self.unit, "bound_s": self.bound, "alert": self.alert, "alert_bound_s": alert_bound_s}
        told = {f"{what}_s": round(seconds, 2) for what, seconds in self.times.items()}
        return base | told | {"t": self.killed_at} | ({"error": self.error} if self.error else {})


def _properties(unit: str) -> dict[str, str]:
    return dict(systemd.show([unit]).get(unit, {}))


def _serving(drill: Drill, old_pid: str) -> bool:
    found = _properties(drill.unit)
    pid = found.get("MainPID", "0")
    return found.get("ActiveState") == "active" and pid not in ("0", old_pid) and web.answers(drill.url)


def _kill_and_time(drill: Drill) -> None:
    """Kill, then wait until it is noticed and until it serves again. Raises OSError from systemd."""
    before = _properties(drill.unit)
    pid = before.get("MainPID", "0")
    if before.get("ActiveState") != "active" or pid == "0" or not web.answers(drill.url):
        drill.error = f"{drill.unit} was not healthy before the drill, so it was not killed"
        return
    systemd.systemctl(["kill", "--signal=KILL", "--kill-whom=main", drill.unit], 10.0)
    drill.killed_at = time.time()
    began = time.monotonic()
    # Twice the bound: a recovery that is too slow is a figure, not a blank.
    while time.monotonic() - began < 2 * drill.bound:
        if "detection" not in drill.times and _properties(drill.unit).get("MainPID") != pid:
            drill.times["detection"] = time.monotonic() - began
        if _serving(drill, pid):
            drill.times["recovery"] = time.monotonic() - began
            drill.times.setdefault("detection", drill.times["recovery"])
            return
        time.sleep(POLL_S)
    drill.error = f"not back within {2 * drill.bound:g} s"


def _active_since(drill: Drill, alertmanager: str) -> list[float]:
    try:
        return list(monitoring.alerts(alertmanager, drill.alert, drill.labels))
    except (OSError, KeyError, TypeError, ValueError):
        return []


def _wait_for_alerts(drills: list[Drill], alertmanager: str, bound_s: float) -> None:
    """An alert counts when it is active after the kill; one from an earlier drill was waited out before."""
    deadline = time.monotonic() + bound_s
    waiting = [drill for drill in drills if drill.killed_at]
    while waiting and time.monotonic() < deadline:
        for drill in list(waiting):
            if _active_since(drill, alertmanager):
                drill.times["alert"] = time.time() - drill.killed_at
                waiting.remove(drill)
        time.sleep(POLL_S if waiting else 0)


def _wait_for_silence(drills: list[Drill], alertmanager: str, bound_s: float) -> None:
    """Let alerts of an earlier drill end, so that the timed one is of this drill. Nobody listening: no drill."""
    deadline = time.monotonic() + bound_s
    if not web.answers(f"{alertmanager}/-/ready"):
        for drill in drills:
            drill.error = f"{alertmanager} does not answer, so nothing was killed"
        return
    for drill in drills:
        while _active_since(drill, alertmanager):
            if time.monotonic() >= deadline:
                drill.error = f"{drill.alert} was active before the drill, so it was not killed"
                break
            time.sleep(0.5)


def main() -> None:
    """Arguments, the drills one by one, one reading."""
    module = AnsibleModule(
        argument_spec={
            "drills": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "unit": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "bound": {"type": "float", "required": True},
                    "alert": {"type": "str", "required": True},
                    "labels": {"type": "dict", "default": {}},
                },
            },
            "alertmanager": {"type": "str", "required": True},
            "alert_bound": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=True, reading={"error": "not run: a dry run"})
    drills = [Drill(**entry) for entry in params["drills"]]
    _wait_for_silence(drills, params["alertmanager"], 2 * params["alert_bound"])
    for drill in drills:
        if not drill.error:
            try:
                _kill_and_time(drill)
            except OSError as error:
                drill.error = str(error)
    _wait_for_alerts(drills, params["alertmanager"], params["alert_bound"])
    reading = {"drills": {drill.name: drill.reading(params["alert_bound"]) for drill in drills}}
    module.exit_json(changed=True, reading=reading)


if __name__ == "__main__":
    main()
