#!/usr/bin/python
"""Ansible module: start or join the burn-in of a GPU host, wait for it, read its evidence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.burn_in import state as states
from ansible.module_utils.gpu_cutover.burn_in import summary, telemetry
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.gates import day06
from ansible.module_utils.gpu_cutover.gates.check import Verdict, verdict_of

DOCUMENTATION = r"""
module: burn_in
short_description: Start or join the burn-in of a GPU host, wait for it, read its evidence
description:
  - Starts the unit when no burn-in with this configuration runs or has passed. One that runs is joined, one that
    finished and passes the gate's limits is read again, one that finished and does not pass is run anew and kept aside.
  - Waits at most O(wait) seconds; RV(finished) says whether the evidence is complete. Call it again until it is.
author: gpu-cutover
options:
  config:
    description: Configuration that the unit runs with.
    type: path
    default: /etc/gpu-cutover/burn-in.json
  unit:
    description: The unit.
    type: str
    default: gpu-cutover-burn-in.service
  limits:
    description: The gate's limits, C(site_plan.gates). They decide whether a finished burn-in has to run anew.
    type: dict
    required: true
  again:
    description: Run anew although the last one passed.
    type: bool
    default: false
  may_start:
    description: Whether to start one; V(false) only joins and reads.
    type: bool
    default: true
  wait:
    description: Seconds to wait for the end.
    type: float
    default: 300
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Burn in
  burn_in:
    limits: "{{ site_plan.gates }}"
  register: reading_burn_in
  until: reading_burn_in.finished
  retries: 300
"""

RETURN = r"""
finished:
  description: Whether the evidence is complete.
  type: bool
  returned: always
share:
  description: How much of the time has passed, 0 to 1.
  type: float
  returned: always
reading:
  description: Figures for the gate of day 6, with the thinned-out telemetry as C(attachment).
  type: dict
  returned: always
"""

POLL_S = 0.5


def _reading(directory: Path, host: str) -> dict[str, Any]:
    """The evidence as the gate wants it; an error while there is none."""
    evidence, state = states.read_json(directory / states.EVIDENCE), states.read_json(directory / states.STATE)
    if evidence is None or state is None or evidence["id"] != state["id"]:
        return {"error": "the burn-in has not finished"}
    rows = telemetry.read_file(directory / states.TELEMETRY)
    failures = [text for session in evidence["sessions"] for text in session.get("load_failures", [])]
    curves = summary.curves(rows, state, host, state["margin_floor_celsius"])
    attachment = {"name": f"telemetry-{host}", "content": curves}
    told = {"id": evidence["id"], "finished": evidence["finished"], "sessions": len(evidence["sessions"])}
    return {**evidence["summary"], **told, "load_failures": failures, "attachment": attachment}


def _passes(config: states.Config, limits: dict[str, Any], reading: dict[str, Any]) -> bool:
    plan = {
        "hosts": {"gpu": ["here"]},
        "gates": limits,
        "durations": {"burn_in_s": config.duration_s},
        "tier": {"profile": {"gpu_count": config.gpus}},
    }
    return bool(verdict_of(day06.checks(plan, {"burn_in": {"here": reading}})) is Verdict.PROMOTE)


def _must_start(module: AnsibleModule, config: states.Config, directory: Path) -> str | None:
    """Why a burn-in has to be started; None when one runs or has passed."""
    if not module.params["may_start"]:
        return None
    found = states.progress(directory, time.time())
    if found["status"] == "absent" or found["config"] != config.digest:
        return "no burn-in with this configuration"
    if found["status"] == "running":
        return None if _unit_state(module) in ("active", "activating") else "the unit does not run"
    if module.params["again"]:
        return "asked for"
    passed = _passes(config, module.params["limits"], _reading(directory, "here"))
    return None if passed else "the last one did not pass"


def _unit_state(module: AnsibleModule) -> str:
    _, out, _ = module.run_command(["systemctl", "show", "--property=ActiveState", "--value", module.params["unit"]])
    return str(out).strip()


def _start(module: AnsibleModule, config: states.Config, directory: Path) -> None:
    found = states.progress(directory, time.time())
    if found["status"] == "finished" and found["config"] == config.digest:
        states.write_json(directory / states.REQUEST, {"replaces": found["id"]})
    unit = module.params["unit"]
    # Enabled, so that a reboot does not end it; a burn-in that is complete just exits at the next boot.
    for command in (["systemctl", "enable", "--quiet", unit], ["systemctl", "restart", unit]):
        rc, out, err = module.run_command(command)
        if rc:
            module.fail_json(msg=f"{' '.join(command)}: {(err or out).strip()}", rc=rc)


def _wait(module: AnsibleModule, config: states.Config, directory: Path) -> dict[str, Any]:
    """Until finished, the unit fails, or the time for this call is over."""
    deadline = time.monotonic() + float(module.params["wait"])
    while True:
        found: dict[str, Any] = states.progress(directory, time.time())
        if found["status"] == "finished" and found["config"] == config.digest:
            return found
        if _unit_state(module) == "failed":
            module.fail_json(msg=f"{module.params['unit']} failed; see its journal on the host")
        if time.monotonic() >= deadline:
            return found
        time.sleep(POLL_S)


def main() -> None:
    """Arguments, one decision, one wait, one reading."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": str(states.CONFIG_FILE)},
            "unit": {"type": "str", "default": "gpu-cutover-burn-in.service"},
            "limits": {"type": "dict", "required": True},
            "again": {"type": "bool", "default": False},
            "may_start": {"type": "bool", "default": True},
            "wait": {"type": "float", "default": 300.0},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["config"])
    if module.check_mode and not path.exists():
        module.exit_json(changed=True, finished=True, share=0.0, reading={"error": "not run: a dry run"})
    try:
        config = states.load_config(path)
    except InputError as error:
        module.fail_json(msg=str(error))
    directory = Path(config.directory)
    reason = _must_start(module, config, directory)
    host = _host_name()
    if module.check_mode:
        reading = {"error": "not run: a dry run"} if reason else _reading(directory, host)
        module.exit_json(changed=reason is not None, finished=True, share=0.0, reading=reading)
    if reason:
        _start(module, config, directory)
    found = _wait(module, config, directory)
    finished = found["status"] == "finished"
    module.exit_json(
        changed=reason is not None,
        reason=reason or "",
        finished=finished,
        share=found["share"],
        left_s=found["left_s"],
        reading=_reading(directory, host),
    )


def _host_name() -> str:
    return Path("/proc/sys/kernel/hostname").read_text().strip()


if __name__ == "__main__":
    main()
