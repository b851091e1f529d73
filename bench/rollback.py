"""How long a rollback of everybody on two gateways takes, on this machine; part of `make bench`.

The gateways are directories on loopback: real `gpu-cutover-route` processes, tables, journals and fsyncs; stand-ins for
sshd (paramiko's server, in Python), routers and legs. A real sshd answers faster, a real network slower.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateways.figures import percentile
from printing import at_most, show

ROOT = Path(__file__).parents[1]
COLD, OPEN = 7, 40


def run() -> None:
    """Measure and print: cold command lines, and changes through sessions held open."""
    sys.path.insert(0, str(ROOT / "tests"))
    from traffic.two_gateways import fill, running_site

    with tempfile.TemporaryDirectory() as folder, running_site(Path(folder)) as site:
        cold = []
        for _ in range(COLD):
            for gateway in site.gateways.values():
                fill(gateway)
            cold.append(_cold_s(site.directory))
        held = _held_s(site)
    at_most(
        "rollback --all, two gateways, cold command until confirmed (median)",
        statistics.median(cold) * 1e3,
        800,
        "ms",
        0,
    )
    show("  the same, 90th percentile", f"{percentile(cold, 0.9) * 1e3:.0f} ms")
    show("rollback of all, sessions open, asked and written (median)", f"{statistics.median(held) * 1e3:.1f} ms")
    at_most("  the same, 95th percentile", percentile(held, 0.95) * 1e3, 100, "ms", 1)


def _cold_s(site_dir: Path) -> float:
    """From the start of the process to the line that says it is confirmed; recording follows and is not counted."""
    command = [sys.executable, "-u", "-m", "gpu_cutover.cli", "rollback", "--all", "-i", str(site_dir)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline() if process.stdout else ""
        took = time.perf_counter() - began
        process.communicate()
    if "confirmed by the routers" not in first:
        raise RuntimeError(f"the rollback was not confirmed: {first}")
    return took


def _held_s(site: Any) -> list[float]:
    from gpu_cutover.traffic import judge
    from gpu_cutover.traffic.direct import new_order
    from gpu_cutover.traffic.gateways import Gateways
    from traffic.two_gateways import fill

    times = []
    with Gateways(site.directory) as gateways:
        for _ in range(OPEN):
            for gateway in site.gateways.values():
                fill(gateway)
            began = time.perf_counter()
            order = new_order("roll_back")
            plan = judge.plan(order, gateways.ask({**order, "write": False}), gateways.lost, False)
            answers = gateways.ask_each(plan.orders)
            times.append(time.perf_counter() - began)
            if judge.ending(answers, {}).code or not all(one["changed"] for one in answers.values()):
                raise RuntimeError(f"not rolled back: {answers}")
    return times
