"""One playbook through ansible-runner: the Ansible, ansible.cfg and gates of a run by hand; plus progress and a log."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from ..errors import InputError
from .days import Subject, subject_of
from .eta import remaining_s
from .progress import EventFeed, progress_for
from .record import Result, Run, SiteBusy, make_runs_dir, new_id, newest_first, read_run, running, stamp, who
from .tie import PARENT_VARIABLE

GRACE_S = 15.0  # from Ctrl-C to SIGKILL: Ansible stops its workers and their SSH in that time
KEPT_LOG_TAIL = 12


@dataclass(frozen=True, slots=True)
class Order:
    """What to run on which site."""

    checkout: Path
    site_dir: Path
    playbook: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    check: bool = False
    declared_s: float | None = None  # waits the site declares for this day, seconds


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended: its record, and its log."""

    run: Run
    log: Path
    interrupted: bool


def execute(order: Order, stream: IO[str]) -> Finished:
    """Run the order's playbook to its end and show it on `stream`.

    Raises Refused while another run holds the site, InputError for a playbook that is no day and no verb. Ctrl-C and
    SIGTERM stop Ansible (its workers first); the run is then recorded as interrupted.
    """
    subject = subject_of(order.playbook)
    if subject is None:
        raise InputError(str(order.playbook), "playbook", "neither a day nor a verb", "run it with ansible-playbook")
    holder = running(order.site_dir)
    if holder is not None:
        raise SiteBusy(holder)
    began = time.time()
    run_id = new_id(subject.name, began, os.getpid())
    folder = make_runs_dir(order.site_dir) / run_id
    folder.mkdir(mode=0o700)
    log = folder / "log.txt"
    earlier = last_complete(order.site_dir, subject, order.check)
    progress = progress_for(stream)
    with log.open("w", encoding="utf-8") as log_stream:
        feed = EventFeed(subject.title, progress, log_stream, _eta(order, earlier, began), time.monotonic)
        try:
            with _stoppable(folder) as stop:
                _ansible(order, run_id, folder, feed, stop.expired)
        finally:
            progress.close()
    run = read_run(folder) or _never_begun(run_id, subject, order, began)
    return Finished(_settled(run, folder, log, stop.asked), log, stop.asked)


def last_complete(site_dir: Path, subject: Subject, check: bool) -> Run | None:
    """The site's last run of the same playbook that went to its end."""
    for run in newest_first(site_dir):
        if run.name == subject.name and run.check == check and run.result and run.result.state == "done":
            return run
    return None


def _eta(order: Order, earlier: Run | None, began: float) -> Callable[[int], float | None]:
    timeline = earlier.timeline if earlier else None
    total_s = earlier.duration_s if earlier else 0.0
    return lambda index: remaining_s(time.time() - began, index, timeline, total_s, order.declared_s)


def _ansible(order: Order, run_id: str, folder: Path, feed: EventFeed, cancelled: Callable[[], bool]) -> None:
    import ansible_runner  # late: only a run pays for it

    runner = ansible_runner.interface.init_runner(
        private_data_dir=str(folder),
        project_dir=str(order.checkout),
        ident="ansible",
        playbook=str(order.playbook),
        inventory=str(order.site_dir),
        extravars=dict(order.variables) or None,
        cmdline="--check --diff" if order.check else None,
        envvars=_environment(order, run_id),
        settings={"pexpect_timeout": 1, "suppress_ansible_output": True, "suppress_output_file": True},
        fact_cache_type="memory",
        event_handler=feed,
        cancel_callback=cancelled,
    )
    runner.run()


def _environment(order: Order, run_id: str) -> dict[str, str]:
    return {
        # The ansible-playbook of this tool's own environment, whatever else is installed.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(order.checkout / "ansible.cfg"),
        # The runner's own callback directory is put beside this one; it would otherwise replace the one of ansible.cfg.
        "ANSIBLE_CALLBACK_PLUGINS": str(order.checkout / "plugins" / "callback"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # the runner's default is False
        "ANSIBLE_FORCE_COLOR": "False",
        "ANSIBLE_NOCOLOR": "True",
        "GPU_CUTOVER_RUN": run_id,
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }


class _Stop:
    """Somebody asked the run to end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._deadline: float | None = None

    @property
    def asked(self) -> bool:
        return self._deadline is not None

    def expired(self) -> bool:
        """True once Ansible had its time to end by itself; the runner then kills it."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first time asks Ansible to end, the second time ends it."""
        if self._deadline is not None:
            self._deadline = 0.0
            return
        self._deadline = time.monotonic() + GRACE_S
        run = read_run(self._folder)
        if run is None:
            self._deadline = 0.0  # it has not begun: nothing to end in an orderly way
        elif run.finished is None:
            os.kill(run.pid, signal.SIGINT)


@contextmanager
def _stoppable(folder: Path) -> Iterator[_Stop]:
    stop = _Stop(folder)
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _never_begun(run_id: str, subject: Subject, order: Order, began: float) -> Run:
    now = stamp(time.time())
    return Run(run_id, subject.name, subject.day, order.check, who(), os.getpid(), started=stamp(began), updated=now)


def _settled(run: Run, folder: Path, log: Path, stopped: bool) -> Run:
    """The record with a result, also where Ansible wrote none (it never began, was killed) or only that it ended."""
    if run.result is None or (run.result.state == "interrupted" and not stopped):
        run.result = Result("interrupted") if stopped else Result("error", message=_tail(log))
        run.finished = run.updated = stamp(time.time())
        run.write(folder, durable=True)
    return run


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-KEPT_LOG_TAIL:])
