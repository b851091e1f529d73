"""A run as it goes: one live line on a terminal, one plain line a milestone elsewhere (logs, CI)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from .eta import clock

SLOW_TASK_S = 15.0
_ARGUMENT_CHECK = "Validating arguments against arg spec"


@dataclass(slots=True)
class Position:
    """Where a run is now. `at_s` and `eta_s` are seconds; `index` counts tasks from 0."""

    title: str
    role: str = ""
    task: str = ""
    pattern: str = ""
    hosts: list[str] = field(default_factory=list)
    index: int = -1
    eta_s: float | None = None

    def sentence(self) -> str:
        """For people: role, task and hosts."""
        where = f"{self.role}: {self.task}" if self.role else self.task
        hosts = " ".join(self.hosts) or self.pattern
        return f"{where} · {hosts}" if hosts else where


class Progress(Protocol):
    """What shows a run."""

    def task(self, position: Position, first_of_role: bool) -> None: ...
    def host(self, position: Position) -> None: ...
    def trouble(self, host: str, words: str) -> None: ...
    def close(self) -> None: ...


class PlainProgress:
    """One line when a role begins, one when a task took long, one for each trouble."""

    def __init__(self, stream: IO[str], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, clock_s
        self._begun = self._task_begun = clock_s()
        self._last = ""

    def task(self, position: Position, first_of_role: bool) -> None:
        took = self._now() - self._task_begun
        if self._last and took >= SLOW_TASK_S:
            self._line(f"took {clock(took)}: {self._last}")
        self._task_begun, self._last = self._now(), position.sentence()
        if first_of_role:
            left = f" · about {clock(position.eta_s)} left" if position.eta_s is not None else ""
            self._line(f"{position.title} · {self._last}{left}")

    def host(self, position: Position) -> None:
        pass

    def trouble(self, host: str, words: str) -> None:
        self._line(f"! {host}: {' '.join(words.split())[:300]}")

    def close(self) -> None:
        pass

    def _line(self, text: str) -> None:
        print(f"[{clock(self._now() - self._begun):>5}] {text}", file=self._stream, flush=True)


class LiveProgress:
    """One line that lives at the bottom of the terminal; finished roles scroll up above it."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console  # late: a run without a terminal does not pay for it
        from rich.live import Live

        self._console = Console(file=stream, highlight=False)
        self._begun, self._position, self._eta_set = time.monotonic(), Position(""), time.monotonic()
        self._role, self._role_begun = "", time.monotonic()
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
        self._live.start()

    def task(self, position: Position, first_of_role: bool) -> None:
        if first_of_role:
            self._role_done()
            self._role, self._role_begun = position.role or position.task, time.monotonic()
        self._position, self._eta_set = position, time.monotonic()

    def host(self, position: Position) -> None:
        self._position = position

    def trouble(self, host: str, words: str) -> None:
        self._console.print(f"! {host}: {words}", style="red", markup=False)

    def close(self) -> None:
        self._role_done()
        self._live.stop()

    def _role_done(self) -> None:
        if self._role:
            took = clock(time.monotonic() - self._role_begun)
            self._console.print(f"  {self._role}  {took}", style="dim", markup=False)
            self._role = ""

    def _render(self) -> Any:
        from rich.text import Text

        now, position = time.monotonic(), self._position
        left = ""
        if position.eta_s is not None:
            left = f" · about {clock(max(position.eta_s - (now - self._eta_set), 0))} left"

        return Text(
            f"· {position.title} · {clock(now - self._begun)}{left} · {position.sentence()}",
            overflow="ellipsis",
            no_wrap=True,
        )


def _purpose(task: str) -> str:
    """A task's name; of Ansible's own first task of a role only the role's description, which says what is coming."""
    return task.partition(" - ")[2] if task.startswith(_ARGUMENT_CHECK) and " - " in task else task


def progress_for(stream: IO[str]) -> Progress:
    """The live line on a terminal, plain lines elsewhere."""
    return LiveProgress(stream) if stream.isatty() else PlainProgress(stream)


class EventFeed:
    """Turns ansible-runner's events into positions. Stores nothing: the log has the text, run.json has the state."""

    def __init__(
        self,
        title: str,
        progress: Progress,
        log: IO[str],
        eta: Callable[[int], float | None],
        clock_s: Callable[[], float],
    ) -> None:
        self._position, self._progress, self._log, self._eta = Position(title), progress, log, eta
        self._begun, self._now = clock_s(), clock_s
        self._role, self._new_play = "", True

    def __call__(self, event: dict[str, Any]) -> bool:
        """Handle one event; False tells the runner not to store it."""
        text = str(event.get("stdout") or "")
        if text:
            self._log.write(f"[{clock(self._now() - self._begun)}] {text}\n")
            self._log.flush()
        data = event.get("event_data") or {}
        handler = getattr(self, f"_{event.get('event')}", None)
        if handler:
            handler(data)
        return False

    def _playbook_on_play_start(self, data: dict[str, Any]) -> None:
        self._new_play = True

    def _playbook_on_task_start(self, data: dict[str, Any]) -> None:
        role, task = str(data.get("role") or ""), _purpose(str(data.get("task") or ""))
        first = self._new_play or role != self._role
        index = self._position.index + 1
        self._role, self._new_play = role, False
        pattern = str(data.get("play_pattern") or "")
        self._position = Position(self._position.title, role, task, pattern, [], index, self._eta(index))
        self._progress.task(self._position, first)

    def _playbook_on_handler_task_start(self, data: dict[str, Any]) -> None:
        self._playbook_on_task_start(data)

    def _runner_on_start(self, data: dict[str, Any]) -> None:
        self._position.hosts.append(str(data.get("host")))
        self._progress.host(self._position)

    def _runner_on_failed(self, data: dict[str, Any]) -> None:
        if not data.get("ignore_errors"):
            self._trouble(data)

    def _runner_on_unreachable(self, data: dict[str, Any]) -> None:
        self._trouble(data)

    def _trouble(self, data: dict[str, Any]) -> None:
        result = data.get("res") or {}
        words = str(result.get("msg") or result.get("censored") or "failed")
        if "gate_verdict" in result:
            words = words.partition("\n")[0]  # its checks are printed at the end
        self._progress.trouble(str(data.get("host")), words)
