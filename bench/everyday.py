"""What a person waits for every day: command lines, a ledger's verification, the last rehearsal."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from printing import at_most, seconds

ROOT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).with_name("gpu-cutover"))
RECORDS, REPEAT = 1000, 7
FIRST_TASK = """# Day 1: first task
- hosts: localhost
  connection: local
  gather_facts: false
  tasks: [{debug: {msg: here}}]
"""


def run(site_dir: Path) -> None:
    """Measure and print."""
    seconds("status", median_s(REPEAT, command("status", "-i", str(site_dir))), 0.3)
    seconds("first task of a day", statistics.median(first_task_s(site_dir) for _ in range(3)), 2)
    seconds("site check", median_s(REPEAT, command("site", "check", "-i", str(site_dir))))
    report = Path(tempfile.gettempdir()) / "gpu-cutover-bench.html"
    seconds("report", median_s(3, command("report", "-i", str(site_dir), "-o", str(report))))
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        ledger = ledger_of(Path(folder), RECORDS)
        seconds(f"evidence verify, {RECORDS} records", median_s(3, command("evidence", "verify", "-i", str(ledger))))
    last_rehearsal(site_dir)


def median_s(repeat: int, act: Callable[[], object]) -> float:
    """The median wall time of `act` in seconds."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def command(*words: str) -> Callable[[], object]:
    """The command line as a person runs it; its exit code is not judged (a held site is measured too)."""
    return lambda: subprocess.run([COMMAND, *words], cwd=ROOT, capture_output=True, check=False)


def first_task_s(site_dir: Path) -> float:
    """Seconds from the command to the first task of a day: site loaded, Ansible started, lock taken.

    A one-task day in a checkout of its own: no host is touched. The start is the process's, the end is in run.json.
    """
    from gpu_cutover.runs.record import epoch, newest_first

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout" / "inventory" / "bench"
        shutil.copytree(site_dir, copy, ignore=shutil.ignore_patterns(".state", "evidence"))
        checkout = copy.parents[1]
        for name in ("ansible.cfg", "plugins", "library", "roles", "src"):
            (checkout / name).symlink_to(ROOT / name)
        (checkout / "playbooks").mkdir()
        (checkout / "playbooks" / "day01_bench.yml").write_text(FIRST_TASK)
        began = time.time()
        command("day", "1", "-i", str(copy), "--yes")()
        run = next(iter(newest_first(copy)), None)
        return epoch(run.started) + float(run.timeline[0][1]) - began if run and run.timeline else float("nan")


def ledger_of(folder: Path, records: int) -> Path:
    """A site directory with a ledger of that many drills."""
    from gpu_cutover.evidence import audit
    from gpu_cutover.evidence.ledger import Ledger

    site_dir = folder / "site"
    site_dir.mkdir()
    ledger = Ledger.open(site_dir)
    with patch.object(audit, "verify", lambda _: []):  # an append verifies the whole chain: too slow to build with
        for number in range(records):
            ledger.append("drill", f"n{number}", {"n": number})
    return site_dir


def last_rehearsal(site_dir: Path) -> None:
    """What the last complete rehearsal measured of itself."""
    try:
        last = json.loads((site_dir / ".state" / "rehearsal.json").read_text())
    except (OSError, ValueError):
        print("last rehearsal: none on this site yet (make rehearse)")
        return
    at_most(f"rehearsal of {last['at'][:16]} (warm; 900 s cold)", last["wall_s"], 360, "s", 0)
    at_most("its peak memory", last["peak_mib"] / 1024, 6, "GiB")
