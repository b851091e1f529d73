#!/usr/bin/python
"""Ansible module: ask the guard of a GPU host to de-rate or restore, and wait until it is done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.guard import control
from ansible.module_utils.gpu_cutover.probes import web

DOCUMENTATION = r"""
module: gpu_guard
short_description: Ask the guard of a GPU host to de-rate or restore, and wait until it is done
description:
  - V(derated) takes one GPU out of service, or confirms what the guard did by itself.
  - V(restored) waits for the cool-down, loads the GPU for a short time, then brings the healthy placement back.
  - V(recorded) tells the guard that the ledger has O(changes).
  - V(accepted) binds the site's GPUs to the boards that answer now, after a board was replaced or moved.
  - V(read) only reads.
author: gpu-cutover
options:
  state:
    description: What to reach.
    type: str
    choices: [derated, restored, recorded, accepted, read]
    default: read
  gpu:
    description: The GPU to take out. Without it, the one that the guard has taken out already.
    type: int
  cause:
    description: Why, for the record.
    type: str
    default: asked for by a person
  changes:
    description: Identifiers of the changes that the ledger has (V(state=recorded)).
    type: list
    elements: str
  wait:
    description: Seconds within which the placement must be complete.
    type: float
    default: 1200
  cool_down_wait:
    description: Seconds to wait for a GPU to be cool enough to return.
    type: float
    default: 600
  retest_command:
    description: >-
      Command of the short load on the GPU that returns; C({gpu}) and C({seconds}) are filled in. Empty to
      skip.
    type: list
    elements: str
    default: [/opt/gpu-cutover/bin/gpu-cutover-burn-in, retest, --gpu, "{gpu}", --seconds, "{seconds}"]
  retest_seconds:
    description: Length of that load.
    type: float
    default: 60
  socket:
    description: The guard's control socket.
    type: path
    default: /run/gpu-guard/control
  url:
    description: The guard's HTTP address.
    type: str
    default: http://127.0.0.1:9401
  history:
    description: Seconds of telemetry before the change that are attached.
    type: float
    default: 300
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Take GPU 2 out
  gpu_guard:
    state: derated
    gpu: 2
    cause: replaced fan
"""

RETURN = r"""
placement:
  description: The placement in force.
  type: str
  returned: always
changes:
  description: Changes that the ledger does not have yet, oldest first, each with C(data) and C(attachments) for it.
  type: list
  returned: always
reading:
  description: State of the guard for the gates.
  type: dict
  returned: always
"""


class Run:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.params = module, module.params
        self.changed = False
        self.retest: dict[str, Any] | None = None

    def fail(self, message: str) -> NoReturn:
        self.module.fail_json(msg=message)
        raise SystemExit(1)

    def ask(self, command: str) -> dict[str, Any]:
        try:
            return dict(control.ask(command, Path(self.params["socket"])))
        except OSError as error:
            self.fail(f"the guard does not answer: {error}. Fix: systemctl status gpu-guard on the host.")

    def order(self, command: str) -> None:
        answer = self.ask(command)
        if not answer["ok"]:
            self.fail(f"the guard refuses: {answer['reason']}")
        self.changed = True

    def wait_until_complete(self) -> dict[str, Any]:
        deadline = time.monotonic() + float(self.params["wait"])
        while True:
            status = self.ask("status")
            if not status["changing"]:
                return status
            if time.monotonic() >= deadline:
                self.fail(f"{status['placement']} is not complete within {self.params['wait']:g} s")
            time.sleep(0.5)

    def derate(self) -> dict[str, Any]:
        status, gpu = self.ask("status"), self.params["gpu"]
        if status["derated"] is not None and gpu in (None, status["derated"]):
            return status if self.module.check_mode else self.wait_until_complete()
        if gpu is None:
            self.fail("the guard has taken no GPU out. Fix: name one with -e gpu=N.")
        if self.module.check_mode:
            self.changed = True
            return status
        self.order(f"derate {gpu} {' '.join(self.params['cause'].split())}")
        return self.wait_until_complete()

    def restore(self) -> dict[str, Any]:
        status = self.ask("status")
        if status["derated"] is None:
            return status if self.module.check_mode else self.wait_until_complete()
        if self.module.check_mode:
            self.changed = True
            return status
        self.wait_until_cool(status["derated"])
        self.test_again(status["derated"])
        self.wait_until_cool(status["derated"])
        self.order("restore")
        return self.wait_until_complete()

    def accept(self) -> dict[str, Any]:
        status = self.ask("status")
        found = {gpu.get("uuid"): gpu.get("bus_id") for gpu in status["boards"]}
        if found == {board["uuid"]: board["bus_id"] for board in status["roster"]}:
            return status
        self.changed = True
        if not self.module.check_mode:
            self.order("accept")
            return self.wait_until_complete()
        return status

    def wait_until_cool(self, gpu: int) -> None:
        deadline = time.monotonic() + float(self.params["cool_down_wait"])
        while True:
            refusal = self.ask("status")["not_restorable"]
            if refusal is None:
                return
            if time.monotonic() >= deadline:
                self.fail(f"GPU {gpu} may not return after {self.params['cool_down_wait']:g} s: {refusal}")
            time.sleep(0.5)

    def test_again(self, gpu: int) -> None:
        seconds = self.params["retest_seconds"]
        command = [
            part.replace("{gpu}", str(gpu)).replace("{seconds}", f"{seconds:g}")
            for part in self.params["retest_command"]
        ]
        if not command:
            return
        _, out, err = self.module.run_command(command)
        try:
            self.retest = dict(json.loads(out))
        except ValueError:
            self.fail(f"the re-test of GPU {gpu} gave no result: {(err or out).strip()[-500:]}")
        if not self.retest["passed"]:
            self.fail(f"GPU {gpu} stays out, it did not pass its re-test: {', '.join(self.retest['reasons'])}")


def _unrecorded(run: Run, status: dict[str, Any]) -> list[dict[str, Any]]:
    """Every finished change that the ledger does not have, oldest first: also one that nobody recorded at the time."""
    found = []
    for change in status["changes"]:
        if change["recorded"] or change["finished"] is None:
            continue
        data = {key: value for key, value in change.items() if key != "recorded"}
        is_new = change is status["changes"][-1]
        if is_new and run.retest is not None:
            data["retest"] = run.retest
        found.append({"data": data, "attachments": _telemetry(run, change)})
    return found


def _telemetry(run: Run, change: dict[str, Any]) -> list[dict[str, Any]]:
    """The guard's telemetry from some time before the change until some time after it, as it is attached."""
    seconds = time.time() - change["started"] + float(run.params["history"])
    try:
        rows = web.get_json(f"{run.params['url']}/history?seconds={seconds:.0f}")["samples"]
    except OSError:
        return []
    rows = [row for row in rows if row["t"] <= change["finished"] + float(run.params["history"])]
    rows = rows[:: max(1, len(rows) // 720)]
    indexes = range(len(rows[0]["gpus"])) if rows else range(0)
    columns = ("temperature_celsius", "margin_celsius", "power_w")
    host = Path("/proc/sys/kernel/hostname").read_text().strip()
    content = {
        "schema": 1,
        "host": host,
        "what": change["kind"],
        "t": [row["t"] for row in rows],
        "gpus": {str(i): {name: [row["gpus"][i][name] for row in rows] for name in columns} for i in indexes},
        "marks": change["timeline"],
    }
    return [{"name": f"telemetry-{host}", "content": content}]


def main() -> None:
    """Arguments, one wish, one result."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["derated", "restored", "recorded", "accepted", "read"],
                "default": "read",
            },
            "gpu": {"type": "int"},
            "cause": {"type": "str", "default": "asked for by a person"},
            "changes": {"type": "list", "elements": "str"},
            "wait": {"type": "float", "default": 1200.0},
            "cool_down_wait": {"type": "float", "default": 600.0},
            "retest_command": {
                "type": "list",
                "elements": "str",
                "default": [
                    "/opt/gpu-cutover/bin/gpu-cutover-burn-in", "retest", "--gpu", "{gpu}", "--seconds", "{seconds}",
                ],
            },
            "retest_seconds": {"type": "float", "default": 60.0},
            "socket": {"type": "path", "default": "/run/gpu-guard/control"},
            "url": {"type": "str", "default": "http://127.0.0.1:9401"},
            "history": {"type": "float", "default": 300.0},
        },
        required_if=[("state", "recorded", ["changes"])],
        supports_check_mode=True,
    )  # fmt: skip
    run, state = Run(module), module.params["state"]
    if module.check_mode and not Path(module.params["socket"]).exists():
        module.warn("the guard does not run yet, so only predicted")
        module.exit_json(changed=state != "read", placement="", changes=[], reading={"error": "dry run"})
    before = run.ask("status")["placement"]
    if state == "recorded":
        if not module.check_mode:
            run.order(f"recorded {' '.join(module.params['changes'])}")
        module.exit_json(changed=True, placement=before, changes=[], reading={})
    if state == "derated":
        status = run.derate()
    elif state == "restored":
        status = run.restore()
    elif state == "accepted":
        status = run.accept()
    else:
        status = run.ask("status")
    reading = {
        key: status[key]
        for key in ("placement", "changing", "derated", "observe_only", "pages", "sample_age_s", "roster")
    }
    module.exit_json(
        changed=run.changed,
        placement=status["placement"],
        changes=[] if state == "read" else _unrecorded(run, status),
        reading=reading | {"gpus": len(status["gpus"]), "engines": status["engines"]},
        diff={"before": f"{before}\n", "after": f"{status['placement']}\n"},
    )


if __name__ == "__main__":
    main()
