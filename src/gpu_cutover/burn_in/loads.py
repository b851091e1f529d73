"""The load of a burn-in: one program per GPU, restarted when it dies, and requests to the engines beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RESTART_AFTER_S = 2.0


def expand(command: Sequence[str], gpu: int, seconds: float) -> list[str]:
    """The command with its placeholders filled in."""
    return [part.replace("{gpu}", str(gpu)).replace("{seconds}", f"{seconds:.0f}") for part in command]


class GpuLoad(threading.Thread):
    """Keeps one GPU's load program running for `seconds` (by a clock that nobody sets) and keeps its latest line."""

    def __init__(self, command: Sequence[str], gpu: int, seconds: float) -> None:
        super().__init__(name=f"load-{gpu}", daemon=True)
        self.command, self.gpu, self.until = command, gpu, time.monotonic() + seconds
        self.failures: list[str] = []
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._tflops: list[float] = []
        self._errors = 0
        self._child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while not self._ending.is_set() and time.monotonic() < self.until:
            code = self._one_run()
            if code and not self._ending.is_set():
                self.failures.append(f"GPU {self.gpu}: the load ended with {code}")
                self._ending.wait(RESTART_AFTER_S)

    def _one_run(self) -> int:
        command = expand(self.command, self.gpu, max(1.0, self.until - time.monotonic()))
        try:
            self._child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
            )
        except OSError as error:
            self.failures.append(f"GPU {self.gpu}: {command[0]}: {error.strerror}")
            self._ending.wait(RESTART_AFTER_S)
            return 0
        for line in self._child.stdout or ():
            self._take(line)
        return self._child.wait()

    def _take(self, line: str) -> None:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            seen = json.loads(line)
            with self._lock:
                self._tflops.append(float(seen["tflops"]))
                self._errors += int(seen.get("errors", 0))

    def latest(self) -> Mapping[str, Any] | None:
        """Mean TFLOPS and summed errors since the last call; None when the program said nothing."""
        with self._lock:
            values, self._tflops = self._tflops, []
            errors, self._errors = self._errors, 0
        return {"tflops": round(sum(values) / len(values), 2), "errors": errors} if values else None

    def end(self) -> None:
        """Stop the program and everything it started."""
        self._ending.set()
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)


class EngineLoad(threading.Thread):
    """Sends the configured requests in turn; counts answers and errors."""

    def __init__(self, requests: Sequence[Mapping[str, Any]], interval_s: float) -> None:
        super().__init__(name="engines", daemon=True)
        self.requests, self.interval_s = list(requests), interval_s
        self.sent: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        turn = 0
        while self.requests and not self._ending.wait(self.interval_s):
            self._send(self.requests[turn % len(self.requests)])
            turn += 1

    def _send(self, wanted: Mapping[str, Any]) -> None:
        url = str(wanted["url"])
        self.sent[url] = self.sent.get(url, 0) + 1
        request = urllib.request.Request(url, json.dumps(wanted["body"]).encode(), {"Content-Type": "application/json"})
        try:
            with _NO_PROXY.open(request, timeout=120) as answer:
                answer.read()
        except (OSError, ValueError):
            self.failed[url] = self.failed.get(url, 0) + 1

    def end(self) -> None:
        self._ending.set()
