"""One run at a time on a site, and a record of where it is: the lock and `run.json` (gpu_cutover.runs.record)."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

from gpu_cutover.errors import EXIT_ERROR, EXIT_HOLD
from gpu_cutover.runs.days import Subject, subject_of
from gpu_cutover.runs.record import Result, Run, SiteBusy, SiteLock, new_id, prune, runs_dir, stamp, who
from gpu_cutover.runs.tie import tie_to_controller

DOCUMENTATION = """
name: run_state
type: aggregate
short_description: one run at a time on a site, and a record of where it is
description:
  - Active for the ten days and the verbs of an inventory that is a site (has group_vars/all/site.yml), nowhere else.
  - Takes the site's lock in C(.state/runs/lock); a second run ends at once with exit code 10 and says who holds it.
  - Writes C(.state/runs/<id>/run.json) at every task and the result at the end. No host is asked, no content is kept.
  - Puts the run's id into the environment variable C(GPU_CUTOVER_RUN), where the action plugins find it.
requirements:
  - enabled in ansible.cfg (callbacks_enabled)
"""

MESSAGE_LENGTH = 2000


class CallbackModule(CallbackBase):
    """An ordinary exception in a callback refuses nothing (Ansible warns and goes on); SystemExit is let through."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "run_state"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._lock: SiteLock | None = None
        self._run: Run | None = None
        self._folder = Path()
        self._started = 0.0
        self._failures: dict[str, dict[str, str]] = {}
        self._unreachable: dict[str, str] = {}
        self._wrong_input: set[str] = set()
        self._verdict: str | None = None
        self._refusal = ""
        if not tie_to_controller():
            raise SystemExit(EXIT_ERROR)

    # --- Ansible calls these

    def v2_playbook_on_start(self, playbook: Any) -> None:
        site_dir = _site_dir()
        subject = subject_of(Path(playbook._file_name))
        if site_dir is None or subject is None:
            return
        try:
            self._begin(site_dir, subject)
        except SiteBusy as busy:
            self._display.error(f"refused: {busy}. Wait for it, or look with: gpu-cutover status -i {site_dir}")
            raise SystemExit(EXIT_HOLD) from busy
        atexit.register(self._ended_without_result)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if self._run:
            self._run.play = play.get_name().strip()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._run:
            role = task._role.get_name() if task._role else ""
            self._run.role, self._run.task, self._run.hosts = role, task.name or task.action, []
            self._run.timeline.append([f"{role}: {self._run.task}" if role else self._run.task, self._elapsed()])
            self._save()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._run:
            self._run.hosts.append(host.get_name())
            self._save()

    def v2_runner_retry(self, result: Any) -> None:
        if self._run:
            self._save()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._host_done(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._host_done(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._host_done(result)
        if self._run:
            host = result.host.get_name()
            if result.result.get("wrong_input") is True:
                self._wrong_input.add(host)
            self._failures[host] = {
                "host": host,
                "role": self._run.role,
                "task": self._run.task,
                "message": _message(result.result),
            }

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._host_done(result)
        if self._run:
            self._unreachable[result.host.get_name()] = _message(result.result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._run is None:
            return
        totals = [stats.summarize(host) for host in stats.processed]
        failed_hosts = {host for host in stats.processed if stats.summarize(host)["failures"]}
        failures = [failure for host, failure in self._failures.items() if host in failed_hosts]
        self._end(
            Result(
                state=self._state({failure["host"] for failure in failures}),
                verdict=self._verdict,
                message=self._refusal or (failures[0]["message"] if failures else ""),
                failures=failures,
                unreachable=self._unreachable,
                ok=sum(total["ok"] for total in totals),
                changed=sum(total["changed"] for total in totals),
            )
        )

    # --- our own

    def _begin(self, site_dir: Path, subject: Subject) -> None:
        self._started = time.time()
        run_id = os.environ.get("GPU_CUTOVER_RUN") or new_id(subject.name, self._started, self._pid)
        now = stamp(self._started)
        about = {"id": run_id, "title": subject.title, "by": who(), "since": now, "pid": self._pid}
        self._lock = SiteLock(site_dir, about)
        os.environ["GPU_CUTOVER_RUN"] = run_id
        self._failures, self._unreachable, self._verdict, self._refusal = {}, {}, None, ""
        self._wrong_input = set()
        check = bool(context.CLIARGS.get("check"))
        self._run = Run(run_id, subject.name, subject.day, check, who(), self._pid, started=now, updated=now)
        self._folder = runs_dir(site_dir) / run_id
        self._save()
        prune(site_dir)

    def _host_done(self, result: Any) -> None:
        if self._run is None:
            return
        name = result.host.get_name()
        if name in self._run.hosts:
            self._run.hosts.remove(name)
        self._run.tasks_done += 1
        data = result.result
        if isinstance(data.get("gate_verdict"), str):
            self._verdict = data["gate_verdict"]
        if data.get("refused") is True:
            self._refusal = _message(data)

    def _state(self, failed: set[str]) -> str:
        if self._refusal:
            return "refused"
        if self._unreachable:
            return "unreachable"
        if failed and failed <= self._wrong_input:
            return "wrong_input"
        return "failed" if failed and self._verdict is None else "done"

    def _elapsed(self) -> float:
        return round(time.time() - self._started, 2)

    def _save(self) -> None:
        if self._run:
            self._run.updated = stamp(time.time())
            self._run.write(self._folder)

    def _end(self, result: Result) -> None:
        """Write the result, then give the site back; a second call does nothing."""
        if self._run is None or os.getpid() != self._pid:
            return
        self._run.finished = self._run.updated = stamp(time.time())
        self._run.result = result
        self._run.write(self._folder, durable=True)
        self._run = None
        os.environ.pop("GPU_CUTOVER_RUN", None)  # the next playbook of this command line is another run
        if self._lock:
            self._lock.release()

    def _ended_without_result(self) -> None:
        self._end(Result(state="interrupted", message="Ansible ended before the run did"))


def _site_dir() -> Path | None:
    """The inventory source that is a site."""
    for source in context.CLIARGS.get("inventory") or ():
        folder = Path(str(source))
        if (folder / "group_vars" / "all" / "site.yml").is_file():
            return folder.absolute()
    return None


def _message(data: Any) -> str:
    """The result's own words, cut; a censored result (no_log) stays censored."""
    words = data.get("msg") or data.get("censored") or data.get("reason") or "failed without a message"
    return str(words)[:MESSAGE_LENGTH]
