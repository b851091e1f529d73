"""The guard's speed and cost, and what its decisions do in random lives of a host. Prints; asserts nothing.

Real processes: the guard over the simulated NVML, a router, upstreams on loopback. What NVML itself costs on a board is
not in these figures. `python bench/guard.py [--seconds 100] [--histories 2500] [--rounds 20]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from printing import at_most, heading, machine, show

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]
TICKS = os.sysconf("SC_CLK_TCK")
GPUS, POLLERS, STEPS = 8, 4, 400
DAY = 86400


def run(seconds: float = 100.0, histories: int = 2500, rounds: int = 20) -> None:
    """Measure and print."""
    heading("Guard")
    machine()
    with tempfile.TemporaryDirectory() as folder, nvml(Path(folder)):
        cost(Path(folder), seconds, busy=0)
        cost(Path(folder), seconds, busy=os.cpu_count() or 1)
        act(Path(folder), rounds)
    telemetry()
    decisions(histories)


@contextlib.contextmanager
def nvml(folder: Path) -> Iterator[None]:
    """The simulated library in the environment of what is started from here on."""
    from tests.guard.real_guard import build_nvml

    os.environ["LD_LIBRARY_PATH"] = str(build_nvml(folder))
    yield
    del os.environ["LD_LIBRARY_PATH"]


# --- what it costs ---------------------------------------------------------------------------------------------------


def cost(folder: Path, seconds: float, busy: int) -> None:
    """CPU and memory of the guard and its NVML child at 1 Hz, four routers listening; how even its samples are."""
    from tests.guard.real_guard import Board, Guard

    place = folder / f"cost{busy}"
    place.mkdir()
    os.environ["NVML_STANDIN_STATE"] = str(place / "nvml.state")
    Board(place / "nvml.state", GPUS)
    guard = Guard(place, gpus=GPUS, interval_s=1.0)
    guard.start()
    process = guard.child.pid if guard.child else 0
    ending = threading.Event()
    listeners = [threading.Thread(target=listen, args=(guard, ending), daemon=True) for _ in range(POLLERS)]
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        for listener in listeners:
            listener.start()
        time.sleep(3.0)
        family = [process, *children(process)]
        for pid in family:
            os.setpriority(os.PRIO_PROCESS, pid, -10)  # as its unit does
        before = [cpu_s(pid) for pid in family]
        time.sleep(seconds)
        own, asking = ((cpu_s(pid) - was) / seconds * 100 for pid, was in zip(family, before, strict=True))
        memory = sum(map(pss_mib, family))
        times = [row["t"] for row in guard.get(f"/history?seconds={seconds:.0f}")["samples"]]
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
        ending.set()
        guard.kill()
    what = f", {busy} processes burn" if busy else ""
    told = f"{own:.2f} deciding and answering, {asking:.2f} asking NVML"
    at_most(f"guard{what}: of one core ({told})", own + asking, 0.3, "%")
    at_most(f"guard and its NVML child{what}: memory (PSS)", memory, 40, "MiB", 1)
    at_most(f"sampling jitter{what}, p99 of {len(times)}", jitter_ms(times), 50, "ms", 1)


def listen(guard: Any, ending: threading.Event) -> None:
    """What a router asks, again and again."""
    tag = ""
    while not ending.is_set():
        with contextlib.suppress(OSError):
            tag = guard.get(f"/placement?after={tag}&wait=3")["tag"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_mib(pid: int) -> float:
    line = next(ln for ln in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if ln.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def jitter_ms(times: list[float]) -> float:
    """Distance of each sample from its place on the best grid of a second."""
    offsets = [t - times[0] - number for number, t in enumerate(times)]
    middle = statistics.median(offsets)
    return sorted(abs(offset - middle) for offset in offsets)[int(0.99 * (len(offsets) - 1))] * 1000


# --- how fast it acts ------------------------------------------------------------------------------------------------


def act(folder: Path, rounds: int) -> None:
    """From the alarm to the last request for a model of the hot GPU, and to the first answer from elsewhere."""
    place = folder / "act"
    place.mkdir()
    found = asyncio.run(alarms(place, rounds))
    for name, limit in (("last request to the hot GPU's model", 1000.0), ("first answer from elsewhere", 2000.0)):
        values = sorted(one[name] for one in found)
        at_most(f"alarm (Xid 79) → {name}, median of {rounds}", statistics.median(values), limit, "ms", 0)
        at_most(f"alarm (Xid 79) → {name}, worst", values[-1], limit, "ms", 0)
    show(f"requests of a permitted tenant in {rounds} de-rates", f"{sum(one['asked'] for one in found):.0f}")
    at_most("of these failed", sum(one["failed"] for one in found), 0, "", 0)


async def alarms(place: Path, rounds: int) -> list[dict[str, float]]:
    import aiohttp
    from tests.guard.real_guard import Board, Engines, Guard
    from tests.guard.test_routers_follow import becomes, route_table, router

    from router.upstreams import Upstream

    os.environ["NVML_STANDIN_STATE"] = str(place / "nvml.state")
    board, engines = Board(place / "nvml.state"), Engines(place)
    policy = {"cool_down_s": 0.3, "max_actions": 10**6}
    guard = Guard(place, interval_s=1.0, drain_s=2.0, policy=policy)
    engines.place(guard.placements)
    guard.start()
    found = []
    try:
        async with (
            Upstream("own") as own,
            Upstream("cloud") as cloud,
            router(place, route_table("hybrid", own.url, cloud.url, guard)) as url,
            aiohttp.ClientSession() as client,
        ):
            for _ in range(rounds):
                engines.healthy.set()
                await becomes(client, url, (200, "onprem", ""))
                await asyncio.sleep(random.uniform(1.0, 2.0))  # anywhere between two samples
                engines.healthy.clear()  # a 70B takes minutes to be back
                found.append(await one_alarm(client, url, board, guard))
    finally:
        guard.kill()
        engines.close()
    return found


async def one_alarm(client: Any, url: str, board: Any, guard: Any) -> dict[str, float]:
    from tests.guard.test_routers_follow import ask

    answers: list[tuple[float, float, int, str]] = []
    ending = asyncio.Event()

    async def caller() -> None:
        while not ending.is_set():
            began = time.monotonic()
            status, by, _ = await ask(client, url)
            answers.append((began, time.monotonic(), status, by))
            await asyncio.sleep(0.02)

    callers = [asyncio.create_task(caller()) for _ in range(4)]
    await asyncio.sleep(0.3)
    alarm = time.monotonic()
    board.xid(2, 79)
    await asyncio.sleep(3.0)
    ending.set()
    await asyncio.gather(*callers)
    last = max((began for began, _, _, by in answers if by == "onprem"), default=alarm)
    first = min((ended for began, ended, _, by in answers if by == "cloud" and began > alarm), default=float("inf"))
    while not (await asyncio.to_thread(guard.ask, "restore"))["ok"]:
        await asyncio.sleep(0.2)
    return {
        "last request to the hot GPU's model": max(0.0, last - alarm) * 1000,
        "first answer from elsewhere": (first - alarm) * 1000,
        "asked": len(answers),
        "failed": sum(status != 200 for _, _, status, _ in answers),
    }


# --- a day of telemetry ----------------------------------------------------------------------------------------------


def telemetry() -> None:
    """24 hours of four GPUs: on disk, and judged."""
    from gpu_cutover.burn_in import summary
    from gpu_cutover.burn_in import telemetry as files

    state = {"started": 1.79e9, "duration_s": DAY, "interval_s": 1.0, "gpus": 4}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "telemetry.jsonl"
        writer = files.Writer(path, sync_every=10**9)
        counters: dict[int, list[Any]] = {}
        for second in range(DAY):
            load = {gpu: {"tflops": round(random.gauss(260, 2), 2), "errors": 0} for gpu in range(4)}
            writer.append(files.row(sample(second), load, "0f1e2d3c", counters, 5000.0 + second))
        writer.close()
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        wall, began = time.perf_counter(), time.process_time()
        rows = files.read_file(path)
        found = summary.summarise(rows, state, 5.0)
        summary.curves(rows, state, "gpu1", 5.0)
        took, wall = time.process_time() - began, time.perf_counter() - wall
    at_most(f"24 h of telemetry, 4 GPUs, {len(rows)} samples, coverage {found['coverage']:.3f}", size, 20, "MB", 1)
    at_most("read and judged, CPU", took, 3, "s")
    at_most("read and judged, wall", wall, 3, "s")


def sample(second: int) -> dict[str, Any]:
    gpus = [
        {
            "index": gpu, "temperature_celsius": random.randrange(60, 70), "margin_celsius": random.randrange(18, 28),
            "power_w": round(random.gauss(345, 3), 3), "clocks_event_bits": 4, "utilisation_percent": 100,
            "limit_w": 350.0, "ecc_uncorrected": 0, "remap_uncorrected": 0, "remap_pending": 0, "remap_failure": 0,
            "pcie_replays": second // 7000,
        }
        for gpu in range(4)
    ]  # fmt: skip
    return {"t": 1.79e9 + second + random.uniform(0, 0.01), "gpus": gpus, "xids": []}


# --- what it decides -------------------------------------------------------------------------------------------------


def decisions(histories: int) -> None:
    """Random lives of a host, `STEPS` samples each."""
    from tests.guard.histories import live

    began = time.process_time()
    lives = [live(seed, STEPS) for seed in range(histories)]
    steps = sum(life.steps for life in lives)
    cost_us = (time.process_time() - began) / steps * 1e6
    derates, restores = sum(life.derates for life in lives), sum(life.restores for life in lives)
    show(
        f"{histories} random lives, {steps:,} samples, with {derates} de-rates and {restores} restores",
        f"{cost_us:.0f} µs each",
    )
    at_most("more than one de-rate per cool-down, or one on top of another", sum(len(x.flaps) for x in lives), 0, "", 0)
    at_most(
        "a GPU at its limit for longer than the bound, not out and nobody called",
        sum(len(x.missed) for x in lives),
        0,
        "",
        0,
    )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=100.0, help="of each cost measurement")
    parser.add_argument("--histories", type=int, default=2500, help=f"random lives of {STEPS} samples")
    parser.add_argument("--rounds", type=int, default=20, help="alarms")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run(arguments.seconds, arguments.histories, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
