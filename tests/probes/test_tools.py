"""A tool that is absent, fails or hangs becomes a reason, in bounded time, and leaves no process behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from gpu_cutover.probes.tools import run_tool


def test_output_of_a_good_run() -> None:
    answer = run_tool([sys.executable, "-c", "print('hello')"], 20)
    assert (answer.stdout, answer.error) == ("hello\n", "")


def test_an_absent_tool_is_named() -> None:
    assert run_tool(["dcgmi-that-is-not-here"], 5).error == "dcgmi-that-is-not-here: not installed"


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("text")
    assert run_tool([str(tmp_path / "tool")], 5).error == "tool: Permission denied"


def test_a_failed_run_carries_its_last_words() -> None:
    answer = run_tool([sys.executable, "-c", "import sys; print('GPU is lost', file=sys.stderr); sys.exit(15)"], 20)
    assert answer.error.endswith("exit status 15: GPU is lost")


def test_an_accepted_exit_status_is_no_error() -> None:
    assert run_tool([sys.executable, "-c", "print('report'); raise SystemExit(226)"], 20, ok=(0, 226)).error == ""


def test_a_hung_tool_is_given_up_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = (
        "import subprocess; child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid)); child.wait()"
    )
    started = time.monotonic()
    answer = run_tool([sys.executable, "-c", script], 3)
    assert "no answer in 3 s" in answer.error
    assert time.monotonic() - started < 15
    deadline = time.monotonic() + 10
    while _alive(int(mark.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(mark.read_text()))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
