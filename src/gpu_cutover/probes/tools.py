"""Running a tool that may be absent, fail or hang: the answer is its output or the reason there is none."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KILL_GRACE_S = 1.0  # a process stuck in the kernel survives SIGKILL: it is left alone after this long
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True)
class Answer:
    """What a tool said. `error` is "" when it ended well, else one sentence; `hung` when it had to be given up."""

    stdout: str
    error: str = ""
    hung: bool = False


def run_tool(
    argv: Sequence[str], timeout_s: float, ok: Sequence[int] = (0,), environment: Mapping[str, str] | None = None
) -> Answer:
    """Run `argv` and return within `timeout_s` + 1 s, whatever it does. Exit statuses in `ok` are no error."""
    name = argv[0].rsplit("/", 1)[-1]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
        )
    except FileNotFoundError:
        return Answer("", f"{name}: not installed")
    except OSError as error:
        return Answer("", f"{name}: {error.strerror or error}")
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Answer("", f"{name}: no answer in {timeout_s:g} s", hung=True)
    if process.returncode not in ok:
        words = " ".join((stderr or stdout).split())[-200:]
        return Answer(stdout, f"{name}: exit status {process.returncode}: {words}")
    return Answer(stdout)


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.communicate(timeout=KILL_GRACE_S)
    except subprocess.TimeoutExpired:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
