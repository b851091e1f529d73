"""All gateways of a site at once: sessions opened side by side and held, orders sent and answers read side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from .reach import Way, ways
from .session import COMMAND, LostError, Session, import_paramiko, open_socket

ANSWER_S = 11.0  # an order waits at most 4 s for the gateway's lock, 3 s for legs and 2 s for its routers
OPEN_S = 20.0  # connection, handshake, login and channel, each bounded by itself
Answers = dict[str, dict[str, Any]]


class Gateways:
    """A context: inside it every reachable gateway of the site has a session. `lost` says which have none, and why.

    >>> with Gateways(site_dir) as gateways:
    ...     answers = gateways.ask({"do": "show"})
    """

    def __init__(
        self,
        site_dir: Path,
        command: str = COMMAND,
        find: Callable[[Path], list[Way]] = ways,
        open_s: float = OPEN_S,
    ) -> None:
        """`open_s`: how many seconds the sessions may take to open; who is not there by then is lost."""
        self._site_dir, self._command, self._find, self._open_s = site_dir, command, find, open_s
        self._sessions: dict[str, Session] = {}
        self.hosts: list[str] = []
        self.lost: dict[str, str] = {}

    def __enter__(self) -> Gateways:
        found = self._find(self._site_dir)
        self.hosts = [way.host for way in found]
        ready = threading.Event()
        deadline = time.monotonic() + self._open_s

        def connect(way: Way) -> Session:
            opened = open_socket(way)  # while paramiko is being imported
            ready.wait()
            return Session(way, opened, import_paramiko(), self._command)

        waiting = _Side({way.host: partial(connect, way) for way in found})
        import_paramiko()
        ready.set()
        self._sessions, self.lost = waiting.results(deadline)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions.values():
            session.close()

    @property
    def reached(self) -> list[str]:
        """Gateways with a session, in the inventory's order."""
        return [host for host in self.hosts if host in self._sessions]

    def ask(self, order: Mapping[str, Any], timeout_s: float = ANSWER_S) -> Answers:
        """The answer of every reached gateway to one order."""
        return self.ask_each(dict.fromkeys(self.reached, order), timeout_s)

    def ask_each(self, orders: Mapping[str, Mapping[str, Any]], timeout_s: float = ANSWER_S) -> Answers:
        """The answers to an order for each gateway. One that does not answer in time has no session any more.

        Its answer is then `{ok: false, error: "lost", message}`: nobody can say whether it did what it was told.
        """
        acts = {host: partial(self._sessions[host].ask, dict(order), timeout_s) for host, order in orders.items()}
        answers, lost = _Side(acts).results(time.monotonic() + timeout_s + 1.0)
        for host, why in lost.items():
            self._sessions.pop(host).abandon()
            self.lost[host] = why
            answers[host] = {"ok": False, "error": "lost", "message": why}
        return {host: answers[host] for host in orders}


class _Side:
    """Several acts side by side, each in a thread of its own; daemons, so that Ctrl-C ends the program at once."""

    def __init__(self, acts: Mapping[str, Callable[[], Any]]) -> None:
        self._done: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        self._threads = {
            name: threading.Thread(target=self._run, args=(name, act), daemon=True) for name, act in acts.items()
        }
        for thread in self._threads.values():
            thread.start()

    def _run(self, name: str, act: Callable[[], Any]) -> None:
        try:
            self._done[name] = act()
        except LostError as error:
            self._failed[name] = str(error)
        except Exception as error:  # a defect here is told as a lost gateway, never as silence
            self._failed[name] = f"{type(error).__name__}: {error}"

    def results(self, deadline: float) -> tuple[dict[str, Any], dict[str, str]]:
        """(results, why not) once all have ended, or at the deadline (monotonic seconds)."""
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        done, failed = dict(self._done), dict(self._failed)
        for name in self._threads:
            if name not in done:
                failed.setdefault(name, "did not end in time")
        return done, failed
