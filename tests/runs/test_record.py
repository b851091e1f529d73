"""The lock and the record of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gpu_cutover.runs.record import (
    Result,
    Run,
    SiteBusy,
    SiteLock,
    make_runs_dir,
    newest_first,
    prune,
    read_run,
    running,
)

ABOUT = {"id": "x", "title": "day 4, inference stack", "by": "ana", "since": "2026-12-24T10:00:00.000Z", "pid": 7}


def a_run(run_id: str = "20261224T100000-day04-1", **changes: object) -> Run:
    run = Run(
        run_id, "day04_inference_stack", 4, False, "ana", 7, "2026-12-24T10:00:00.000Z", "2026-12-24T10:03:00.000Z"
    )
    for key, value in changes.items():
        setattr(run, key, value)
    return run


def test_a_second_taker_is_told_who_holds_the_site(tmp_path: Path) -> None:
    lock = SiteLock(tmp_path, ABOUT)
    with pytest.raises(
        SiteBusy, match=r"day 4, inference stack is running .* by ana at 2026-12-24T10:00:00.000Z, process 7"
    ):
        SiteLock(tmp_path, {})
    assert running(tmp_path) == ABOUT
    lock.release()
    lock.release()
    assert running(tmp_path) is None
    SiteLock(tmp_path, ABOUT).release()


def test_the_lock_is_gone_with_a_killed_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    assert running(tmp_path) == {"pid": holder.pid}
    holder.kill()
    holder.wait(10)
    assert running(tmp_path) is None


_HOLD = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from gpu_cutover.runs.record import SiteLock
    lock = SiteLock(Path(sys.argv[1]), {"pid": os.getpid()})
    print("held", flush=True)
    time.sleep(60)
    """
)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = a_run(timeline=[["router: Write the table", 1.5]], result=Result("done", "hold", ok=3, changed=1))
    folder = make_runs_dir(tmp_path) / run.id
    run.write(folder, durable=True)
    assert read_run(folder) == run
    assert (folder / "run.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".state").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 1}', '{"result": {"nonsense": 1}}'])
def test_a_broken_record_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert read_run(tmp_path) is None


def test_runs_come_newest_first_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    for second in range(5):
        run = a_run(f"20261224T10000{second}-day04-1")
        run.write(make_runs_dir(tmp_path) / run.id)
    prune(tmp_path, keep=2)
    assert [run.id for run in newest_first(tmp_path)] == ["20261224T100004-day04-1", "20261224T100003-day04-1"]
