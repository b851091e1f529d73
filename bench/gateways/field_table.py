"""Every gateway of the field at the same work: latency, processor time, memory, throughput. Interleaved rounds."""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field

import printing

from . import install
from .contestants import Contestant, Field
from .figures import percentile
from .jobs import JOBS, TITLES
from .processes import OTHER_CORES

ROUNDS, AUDIO_ROUNDS, SEED, CONNECTIONS = 3, 2, 1, 4
SECONDS = {"chat": 0.6, "think": 0.8, "stream": 0.8, "embed": 0.5}
AUDIO_COUNT = 3
WRK_CONNECTIONS, WRK_S = 32, 3
ENOUGH = 5 * WRK_CONNECTIONS
QUIET_S, SETTLE_S, SETTLE_LIMIT_S = 0.003, 0.1, 3.0
OURS, EDGE, LITELLM = "our router", "HAProxy + our router (TLS)", "LiteLLM"
MIRRORED = "our router, with mirror"


@dataclass(slots=True)
class Cell:
    """One gateway at one job: what all rounds gave."""

    ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # a request, by round
    bad: int = 0
    copies: int = 0

    def cpu(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.cpu_ms) if self.cpu_ms else float("nan")


Cells = dict[tuple[str, str], Cell]


def measure(arena: Field, found: list[Contestant]) -> Cells:
    """All gateways at all jobs, in an order shuffled anew each round."""
    cells: Cells = {}
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        began = time.monotonic()
        turns = [(one, job) for one in found for job in JOBS if job in one.requests and job not in one.missing]
        chance.shuffle(turns)
        for one, job in turns:
            if job != "audio" or number < AUDIO_ROUNDS:
                _turn(arena, one, job, cells.setdefault((one.name, job), Cell()))
        print(f"round {number + 1} of {ROUNDS}: {time.monotonic() - began:.0f} s", flush=True)
    return cells


def _turn(arena: Field, one: Contestant, job: str, cell: Cell) -> None:
    """One gateway at one job for one round. What it does for the request after the answer counts as well."""
    bound = {"count": AUDIO_COUNT} if job == "audio" else {"seconds": SECONDS[job]}
    connections = 1 if job == "audio" else CONNECTIONS
    if job != "audio":
        arena.load.run(one.order("closed", job, connections=connections, count=20))
    _settle(one)
    before, copies = one.cpu_s(), arena.posts("onprem")
    told = arena.load.run(one.order("closed", job, connections=connections, **bound))
    _settle(one)
    answers = len(told["ms"])
    cell.ms += told["ms"]
    cell.first_ms += told["first_ms"]
    cell.bad += told["bad"]
    if answers:
        cell.cpu_ms.append((one.cpu_s() - before) * 1000 / answers)
    if one.mirrors:
        cell.copies += arena.posts("onprem") - copies


def _settle(one: Contestant) -> None:
    """Until it does nothing any more: copies are made after the answer."""
    deadline = time.monotonic() + (SETTLE_LIMIT_S if one.mirrors else 0.0)
    before = one.cpu_s()
    while time.monotonic() < deadline:
        time.sleep(SETTLE_S)
        now = one.cpu_s()
        if now - before < QUIET_S:
            return
        before = now


def tell(arena: Field, found: list[Contestant], cells: Cells) -> None:
    """The tables, then what was asked of us."""
    for job in JOBS:
        _tell_job(job, found, cells)
    for one in found:
        for job, why in one.missing.items():
            print(f"{one.name}, {TITLES[job]}: not at hand: {why[:120]}")
    for name, why in arena.absent.items():
        print(f"{name}: not at hand: {why}")
    _tell_targets(cells)


def _tell_job(job: str, found: list[Contestant], cells: Cells) -> None:
    connections = 1 if job == "audio" else CONNECTIONS
    print(f"\n{TITLES[job]}; {connections} at once, ms")
    head = ("p50", "p95", "p99", "first p50", "CPU/request", "RSS MiB", "answers", "failed", "copied")
    print(f"{'':<44}" + "".join(f"{word:>12}" for word in head))
    for one in found:
        cell = cells.get((one.name, job))
        if cell is None:
            continue
        values = [percentile(cell.ms, share) for share in (0.5, 0.95, 0.99)] + [percentile(cell.first_ms, 0.5)]
        cpu = f"{cell.cpu():.3f}" if one.processes else "–"
        memory = f"{sum(sum(process.rss_mib()) for process in one.processes):.0f}" if one.processes else "–"
        copied = f"{cell.copies / max(1, len(cell.ms)):.0%}" if one.mirrors else ""
        line = "".join(f"{value:>12.2f}" for value in values) + f"{cpu:>12}{memory:>12}{len(cell.ms):>12}{cell.bad:>12}"
        print(f"{one.name:<44}{line}{copied:>12}", flush=True)


def _tell_targets(cells: Cells) -> None:
    print()
    for name in (OURS, EDGE):
        for job in ("think", "chat"):
            for share, limit in ((0.5, 1.0), (0.99, 5.0)):
                if (name, job) in cells and ("direct", job) in cells:
                    added = percentile(cells[name, job].ms, share) - percentile(cells["direct", job].ms, share)
                    printing.at_most(
                        f"{name}: added p{share * 100:.0f}, {TITLES[job]}, c = {CONNECTIONS}", added, limit, "ms"
                    )
    for job in ("think", "chat", "stream"):
        if (OURS, job) in cells:
            printing.at_most(f"{OURS}: CPU a request, {TITLES[job]}", cells[OURS, job].cpu(), 0.4, "ms", 3)
    for job in ("think", "chat", "stream", "embed"):
        if (OURS, job) in cells and (LITELLM, job) in cells:
            times = cells[LITELLM, job].cpu() / cells[OURS, job].cpu()
            printing.show(
                f"LiteLLM's CPU a request against ours, {TITLES[job]}", f"{times:.1f} ×", "≥ 20 ×", times >= 20
            )
    if (MIRRORED, "think") in cells:
        cell = cells[MIRRORED, "think"]
        made = f"{cell.copies / max(1, len(cell.ms)):.0%} copied"
        printing.at_most(f"{OURS}: CPU a request with mirror, {TITLES['think']} ({made})", cell.cpu(), 0.6, "ms", 3)


# --- throughput ---------------------------------------------------------------------------------------------------


def saturation(arena: Field, found: list[Contestant]) -> None:
    """Requests a second where every gateway has one core and more to do than it can: chats, 32 connections."""
    rates = {}
    print(f"\n{'throughput, chat, one core, ' + str(WRK_CONNECTIONS) + ' connections':<44}", end="")
    print("".join(f"{word:>12}" for word in ("requests/s", "core busy", "per CPU s", "failed")) + "   measured with")
    for one in found:
        if one.mirrors or "chat" in one.missing or not one.processes:
            continue
        before, began = one.cpu_s(), time.monotonic()
        count, bad, with_what = _flood(arena, one)
        wall, cpu = time.monotonic() - began, one.cpu_s() - before
        if count >= ENOUGH:  # of fewer, most of the processor time went into requests that were never answered in time
            rates[one.name] = count / cpu
        figures = f"{count / wall:>12.0f}{cpu / wall:>12.0%}{count / cpu:>12.0f}{bad:>12}"
        print(f"{one.name:<44}{figures}   {with_what}", flush=True)
    print()
    for name in (OURS, EDGE):
        if name in rates and LITELLM in rates:
            times = rates[name] / rates[LITELLM]
            printing.show(f"{name}: throughput per core against LiteLLM's", f"{times:.1f} ×", "≥ 20 ×", times >= 20)
        else:
            printing.show(
                f"{name}: throughput per core against LiteLLM's (under {ENOUGH} answers)", "unproven", "≥ 20 ×"
            )


def _flood(arena: Field, one: Contestant) -> tuple[int, int, str]:
    """(answers, failures, tool): wrk, or our load where a client certificate is asked for."""
    if one.wrk:
        try:
            return (*_wrk(arena, one), "wrk")
        except install.NotAtHandError as reason:
            printing.show(f"wrk: not at hand: {reason}", "")
    told = arena.load.run(one.order("closed", "chat", connections=WRK_CONNECTIONS, seconds=WRK_S))
    return len(told["ms"]), told["bad"], "bench/gateways/load.py"


def _wrk(arena: Field, one: Contestant) -> tuple[int, int]:
    program, environment = install.wrk()
    script = arena.folder / "post.lua"
    request = one.requests["chat"]
    script.write_text(_lua(request["json"], request["headers"]))
    cores = ",".join(map(str, OTHER_CORES))
    url = f"http://127.0.0.1:{one.port}{request['path']}"
    words = ["taskset", "-c", cores, str(program), "-t1", f"-c{WRK_CONNECTIONS}", f"-d{WRK_S}s", "--timeout", "30s"]
    words += ["-s", str(script), url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, check=True)
    count = re.search(r"(\d+) requests in", done.stdout)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    bad = int(failed[1]) if failed else 0
    return (int(count[1]) if count else 0) - bad, bad


def _lua(body: object, headers: dict[str, str]) -> str:
    lines = ['wrk.method = "POST"', f"wrk.body = [==[{json.dumps(body)}]==]"]
    for name, value in {"content-type": "application/json", **headers}.items():
        lines.append(f'wrk.headers["{name}"] = [==[{value}]==]')
    return "\n".join(lines) + "\n"
