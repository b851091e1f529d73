"""`make bench`: medians of what should be fast, and the last rehearsal's time and memory. Prints; asserts nothing.

Run on a quiet machine: every figure is a wall clock and other programs count.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).with_name("gpu-cutover"))
RECORDS = 1000
FLEETS, FLEET_LOAD, ALTERNATIVE_S = (8, 16, 32, 64), 0.9, 15.0
FIRST_TASK = """# Day 1: first task
- hosts: localhost
  connection: local
  gather_facts: false
  tasks: [{debug: {msg: here}}]
"""


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


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "twin")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of the record log that is verified")
    arguments = parser.parse_args()
    site_dir, repeat = arguments.inventory, arguments.repeat
    print(f"{'what':<44}{'median':>10}   limit")
    show("status", median_s(repeat, command("status", "-i", str(site_dir))), "0.3 s")
    show("first task of a day", statistics.median(first_task_s(site_dir) for _ in range(3)), "2 s")
    show("site check", median_s(repeat, command("site", "check", "-i", str(site_dir))))
    report = Path(tempfile.gettempdir()) / "gpu-cutover-bench.html"
    show("report", median_s(3, command("report", "-i", str(site_dir), "-o", str(report))))
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        ledger = ledger_of(Path(folder), RECORDS)
        show(f"evidence verify, {RECORDS} records", median_s(3, command("evidence", "verify", "-i", str(ledger))))
    fleets()
    records(arguments.lines)
    rollbacks()
    last_rehearsal(site_dir)
    return 0


def rollbacks() -> None:
    """Everybody back on two gateways: from a cold command line, and through sessions held open."""
    import rollback

    for (what, seconds), limit in zip(rollback.rows(), ("0.8 s", "", "", "0.1 s"), strict=True):
        print(f"{what:<68}{seconds * 1000:>8.1f} ms  {limit}", flush=True)


def fleets() -> None:
    """Twenty models on ever more nodes: our time, what it proves, and the same question as one model of all nodes."""
    import fleet as cases

    from gpu_cutover.planning.fleet import place

    place(cases.nodes(2), cases.models(2), 1.0, 1)  # the solver's import is not a fleet's cost
    print(f"{'20 models on':<14}{'ours':>9}{'per node':>10}{'nodes':>7}{'bound':>7}{'served':>8}{'gap':>7}", end="")
    print(f"   | one model of all nodes, {ALTERNATIVE_S:.0f} s: nodes, served, proven")
    for count in FLEETS:
        nodes, models = cases.nodes(count), cases.models(count, FLEET_LOAD)
        began = time.perf_counter()
        plan = place(nodes, models, 30.0, 1)
        took = time.perf_counter() - began
        print(
            f"{count:>4} nodes    {took:>7.2f} s{took / count * 1000:>7.0f} ms{plan.nodes_used:>7}{plan.bound:>7}"
            f"{plan.served_share:>8.1%}{plan.gap:>7.1%}",
            end="",
            flush=True,
        )
        other = cases.naive(nodes, models, ALTERNATIVE_S, 2)
        print(f"   | {other['nodes']:>3}  {other['served']:>6.1%}  {'yes' if other['proven'] else 'no'}", flush=True)


RECORD = {
    **{"t": 1795300000.123, "request_id": "0123456789abcdef0123456789abcdef", "tenant": "doc-zam", "route": "chat"},
    **{"workload": "soap", "state": "onprem", "leg": "onprem", "why": "policy", "model": "llama-3.1-70b-instruct"},
    **{"version": "ab" * 32, "gpus": [2, 3], "status": 200, "outcome": "ok", "first_byte_ms": 20.1, "total_ms": 40.2},
    **{"bytes_in": 2000, "bytes_out": 1000, "request_sha256": "cd" * 32, "tokens": 321, "requested_model": "gpt-4o"},
    **{"engine": "vllm", "engine_version": "0.20.2", "gpu_uuids": ["GPU-8f9d1c2e-1111-2222-3333-444455556666"] * 2},
    "attempt": 0,
}
PER_FLUSH = 20  # 100 requests a second at five flushes a second


def records(lines: int) -> None:
    """What a record costs a router and how long verifying that many lines takes: both as CPU time of one process."""
    from gpu_cutover.router import log_key
    from gpu_cutover.router.chain import Walk
    from gpu_cutover.router.log_files import rotated
    from gpu_cutover.router.record import RecordLog

    with tempfile.TemporaryDirectory() as folder:
        log_key.make(Path(folder) / "hybrid.key")
        log = RecordLog(Path(folder) / "requests-hybrid.jsonl", key=Path(folder) / "hybrid.key")
        began = time.process_time()
        for number in range(lines):
            log.add(RECORD)
            if number % PER_FLUSH == 0:
                log.flush()
        cost_s = (time.process_time() - began) / lines
        log.close()
        print(f"{'record of a request, CPU, amortised':<44}{cost_s * 1e6:>8.1f} µs  30 µs", flush=True)
        began = time.process_time()
        public = (Path(folder) / "hybrid.pub").read_text().strip()
        walk = Walk(log_key.verifies, frozenset([public]))
        for file in (*reversed(rotated(log.path)), log.path):
            with file.open("rb") as handle:
                walk.follow(file.name, handle)
        state = "whole" if not walk.findings else "NOT whole"
        show(f"audit verify, {walk.lines:,} lines, {state}, CPU", time.process_time() - began)


def show(what: str, seconds: float, limit: str = "") -> None:
    """One line."""
    print(f"{what:<44}{seconds:>8.2f} s   {limit}", flush=True)


def last_rehearsal(site_dir: Path) -> None:
    """What the last complete rehearsal measured of itself."""
    try:
        last = json.loads((site_dir / ".state" / "rehearsal.json").read_text())
    except (OSError, ValueError):
        print("last rehearsal: none on this site yet (make rehearse)")
        return
    show(f"rehearsal of {last['at'][:16]}", last["wall_s"], "360 s warm, 900 s cold")
    print(f"{'its peak memory':<44}{last['peak_mib'] / 1024:>6.2f} GiB   6 GiB")


if __name__ == "__main__":
    sys.exit(main())
