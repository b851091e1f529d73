"""One router over many requests: memory and its slope; a table of 10,000 tenants beside a small one, and its reload."""

from __future__ import annotations

import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import printing

from . import configs
from .contestants import Field
from .figures import paired_change, slope
from .jobs import request
from .processes import Process, rss_mib

TENANTS, ROUNDS, COUNT, RELOADS = 10_000, 15, 600, 9
SLICE, PATIENCE_S = 5000, 90.0  # requests between two looks at the memory; after that long it ends early
CONNECTIONS = 4
CHANGE = 0.02  # of the processor time a request; less is no measurable cost


def run(arena: Field, requests: int, patient: bool) -> None:
    """Measure and print."""
    small, small_port, _, _ = arena.router("router-small", configs.table(arena.engines))
    large, large_port, _, file = arena.router("router-large", _large(arena))
    _cost(arena, {"small": (small, small_port), "large": (large, large_port)})
    _reload(arena, large_port, file)
    _memory(arena, small, small_port, requests, float("inf") if patient else PATIENCE_S)


def _large(arena: Field) -> dict[str, Any]:
    """10,000 tenants with six routes each, in a dozen patterns."""
    table = configs.table(arena.engines)
    for legs in (table["onprem"]["healthy"], table["cloud"]):
        legs["rerank"] = copy.deepcopy(legs["chat"])
    states = ("onprem", "mirror", "cloud")
    routes = list(table["cloud"])
    for number in range(TENANTS):
        chosen = {route: states[(number // 3**place) % 3] for place, route in enumerate(routes)}
        table["tenants"][f"tenant-{number:05}"] = {"policy": "standard", "routes": chosen}
    return table


def _chat(port: int, **more: Any) -> dict[str, Any]:
    asked = [request("chat", "/chat", "m", {"x-tenant": "zam"})]
    return {"how": "closed", "port": port, "requests": asked, "connections": CONNECTIONS, **more}


def _cost(arena: Field, routers: dict[str, tuple[Process, int]]) -> None:
    """Processor time a request, small and large table in turn."""
    spent: dict[str, list[float]] = {name: [] for name in routers}
    for number in range(ROUNDS + 1):
        for name, (process, port) in routers.items():
            before = process.cpu_s()
            told = arena.load.run(_chat(port, count=COUNT))
            if number:  # the first one warms up
                spent[name].append((process.cpu_s() - before) * 1000 / len(told["ms"]))
    change = paired_change(spent["small"], spent["large"])
    printing.change(f"table of {TENANTS:,} × 6 against 3 × 5: CPU a request", *change, CHANGE)
    printing.show("  CPU a request, large table", f"{statistics.median(spent['large']):.3f} ms")


def _reload(arena: Field, port: int, file: Path) -> None:
    """How much longer the first request after a new table takes than those around it."""
    data, extra = json.loads(file.read_bytes()), []
    for number in range(RELOADS):
        usual = statistics.median(arena.load.run(_chat(port, count=50) | {"connections": 1})["ms"])
        data["version"] += 1
        data["tenants"]["zam"]["routes"]["chat"] = ("cloud", "onprem")[number % 2]
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
        fresh.replace(file)
        extra.append(arena.load.run(_chat(port, count=1) | {"connections": 1})["ms"][0] - usual)
    printing.at_most(f"  reload of it ({file.stat().st_size / 1e6:.1f} MB): what the next request waits, median",
                     statistics.median(extra), 50.0, "ms", 1)  # fmt: skip
    printing.show("  the same, worst", f"{max(extra):.1f} ms")


def _memory(arena: Field, process: Process, port: int, requests: int, patience_s: float) -> None:
    """Resident memory of the process that serves while it answers so many requests."""
    points: list[tuple[float, float]] = []
    done = 0
    began = time.monotonic()
    while done < requests and time.monotonic() - began < patience_s:
        done += len(arena.load.run(_chat(port, count=SLICE) | {"connections": 16})["ms"])
        points.append((done / 1e6, max(rss_mib(pid) for pid in process.pids)))
    late = points[len(points) // 4 :]
    printing.at_most(
        f"memory of a worker after {done:,} requests ({time.monotonic() - began:.0f} s)", points[-1][1], 120, "MiB", 1
    )
    grown = late[-1][1] - late[0][1]
    flat = grown <= 2.0 or abs(slope(late)) * (late[-1][0] - late[0][0]) <= 2.0
    printing.show(
        f"  its slope over the last three quarters ({grown:+.1f} MiB)",
        f"{slope(late):+.1f} MiB/M",
        "flat (≤ 2 MiB)",
        flat,
    )
    printing.show("  all processes of that router", f"{sum(process.rss_mib()):.1f} MiB")
