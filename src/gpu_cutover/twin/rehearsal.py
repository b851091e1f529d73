"""The ten days, an alarm, a de-rate, a restore, two rollbacks and a report: what `make rehearse` runs after set-up.

Nothing here knows how a day works: days and verbs run as `gpu-cutover day` and `gpu-cutover play` run them.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, EXIT_FAIL, EXIT_HOLD, EXIT_USAGE, InputError, Refused
from ..evidence import audit
from ..evidence.days import day_states
from ..evidence.ledger import Ledger
from ..evidence.records import FOLDER, read_status
from ..report.command import write_report
from ..runs.day_command import run_day
from ..runs.days import DAYS
from ..runs.eta import clock
from ..runs.play_command import run_verb
from ..runs.record import stamp, write_private
from ..runs.start import tell
from ..site import Site, load_site
from . import base, faults, network, standins
from .lab import load_lab
from .meter import MemoryMeter

HOT_GPU = 2
CLINICS_MOVE_ON = 8  # its mirror needs the clinics' traffic; earlier it would disturb what days 5 to 7 measure
CLOUD_LOG = "/var/lib/twin/cloud.jsonl"
GUARD_STATUS = ("/opt/gpu-cutover/bin/gpu-cutover-guard", "ctl", "status")
TIMINGS = Path(".state/rehearsal.json")
DISK_MIN_GIB = 6  # base tree, bundle, five disks: 4.1 GiB measured, and room for logs
COOL_MAX_S = 120.0
POLL_S = 1.0
CHILD_END_S = 60.0


class StepError(Exception):
    """A step that did not end well: its exit code and why."""

    def __init__(self, code: int, why: str) -> None:
        self.code = code
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the rehearsal: its name and what it does; `act` returns a few words for the summary or raises."""

    name: str
    act: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken: seconds and words."""

    name: str
    seconds: float
    words: str
    code: int = EXIT_DONE


class Rehearsal:
    """One rehearsal of a site of stage twin."""

    def __init__(self, site_dir: Path, output: Path, *, keep: bool, resume: bool) -> None:
        self._site_dir, self._output = site_dir, output
        self._keep, self._resume = keep, resume
        self._site: Site = load_site(site_dir)
        self._done: list[Done] = []
        self._began = time.monotonic()
        self._earlier = _earlier(site_dir)

    def run(self) -> int:
        """Take all steps; print the summary; return the exit code. Hosts go down at the end unless they are to be kept.

        Raises InputError for a site that is no twin.
        """
        if self._site.spec.stage != "twin":
            problem = f"a rehearsal breaks and removes its hosts, and this site's stage is {self._site.spec.stage}"
            raise InputError(str(self._site_dir), "site.stage", problem, "rehearse inventory/twin, or a copy of it")
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with MemoryMeter() as meter:
                code = self._all()
            self._summary(code, meter.peak_mib)
        finally:
            signal.signal(signal.SIGTERM, before)
        return code

    def _all(self) -> int:
        try:
            code = self._take(self._steps())
        except KeyboardInterrupt:
            print("interrupted; go on with: gpu-cutover rehearse --resume --keep", flush=True)
            code = EXIT_ERROR
        last = [Step("report", self._report)]
        last += [] if self._keep else [Step("twin down", lambda: self._tool("twin", "down"))]
        ends = [self._take([step]) for step in last]  # both, also when the first of them fails
        return code or max(ends)

    def _take(self, steps: Sequence[Step]) -> int:
        for step in steps:
            began = time.monotonic()
            print(f"\n== {step.name} · {clock(began - self._began)}{self._left(step.name)}", flush=True)
            code, words = _outcome(step)
            self._done.append(Done(step.name, time.monotonic() - began, words, code))
            if code:
                print(f"gpu-cutover: {step.name}: {words}", file=sys.stderr, flush=True)
                return code
        return EXIT_DONE

    def _left(self, name: str) -> str:
        """What the last complete rehearsal still had to do from here on."""
        names = [entry["name"] for entry in self._earlier]
        if name not in names:
            return ""
        return f" · about {clock(sum(entry['seconds'] for entry in self._earlier[names.index(name) :]))} left"

    # --- the steps

    def _steps(self) -> list[Step]:
        behind = self._behind() if self._resume else set()
        steps = [Step("prerequisites", self._prerequisites)]
        if not self._resume:
            steps.append(Step("old evidence", self._archive))
        steps.append(Step("bundle", lambda: self._tool("bundle", "build")))
        if not self._resume:
            steps.append(Step("twin down first", lambda: self._tool("twin", "down")))
        steps.append(Step("twin up", lambda: self._tool("twin", "up")))
        for day in (day for day in DAYS if day not in behind):
            if day == CLINICS_MOVE_ON:
                steps.append(Step("clinics use the edge", self._connect_clinics))
            steps.append(Step(f"day {day}, {DAYS[day]}", partial(self._day, day)))
        first = self._site.spec.first_tenant
        model = next(iter(self._site.spec.routes.values())).model
        return [
            *steps,
            Step(f"thermal alarm, GPU {HOT_GPU}", self._alarm),
            Step("record the de-rate", lambda: self._verb("derate")),
            Step("cool down", self._cool),
            Step("restore", lambda: self._verb("restore")),
            Step(f"roll back {first}", lambda: self._verb("rollback", tenant=first)),
            Step(f"roll back {model}", lambda: self._verb("rollback", model=model)),
            Step("what the cloud saw", self._leaks),
            Step("evidence verify", self._verify),
        ]

    def _behind(self) -> set[int]:
        states = day_states(read_status(self._site_dir))
        promoted = {day for day, state in states.items() if state.verdict == "promote"}
        return {day for day in promoted if all(earlier in promoted for earlier in range(1, day))}

    def _prerequisites(self) -> str:
        base.check_machine()
        cache = base.CACHE if base.CACHE.exists() else Path("/var")
        free_gib = shutil.disk_usage(cache).free / 2**30
        if free_gib < DISK_MIN_GIB:
            problem = f"{free_gib:.1f} GiB free under {cache}"
            raise InputError("this machine", "disk", problem, f"make room for {DISK_MIN_GIB} GiB")
        return f"{free_gib:.0f} GiB of disk free"

    def _archive(self) -> str:
        """Put an earlier rehearsal's evidence aside, with the key that proves it: the new one starts at record 1."""
        names = (FOLDER, audit.STATE_KEY, audit.STATE_SEEN, ".state/audit")
        present = [name for name in names if (self._site_dir / name).exists()]
        if not present:
            return "none"
        aside = self._site_dir / ".state" / "archive" / stamp(time.time()).replace(":", "")
        aside.mkdir(mode=0o700, parents=True)
        for name in present:
            target = aside / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            (self._site_dir / name).rename(target)
        return f"put aside as {aside}"

    def _tool(self, *words: str) -> str:
        """Another command of this tool as its own process in the foreground: it sees Ctrl-C and ends in order."""
        argv = [sys.executable, "-m", "gpu_cutover.cli", *words, "-i", str(self._site_dir)]
        with subprocess.Popen(argv) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(CHILD_END_S)
                raise
        if code:
            raise StepError(code, f"gpu-cutover {' '.join(words)} ended with {code}")
        return "done"

    def _day(self, day: int) -> str:
        durations = self._site.spec.durations.model_dump()
        finished, subject = run_day(self._site_dir, day, durations, sys.stdout)
        code = tell(finished, subject, self._site_dir, False, sys.stdout)
        if finished.interrupted:
            raise KeyboardInterrupt
        if code:
            verdict = finished.run.result.verdict if finished.run.result else None
            raise StepError(code, f"day {day} says {verdict}" if verdict else f"day {day} did not reach its gate")
        return "promote"

    def _connect_clinics(self) -> str:
        """What happens outside the site before day 8: each clinic gets its certificate and sends to the edge."""
        return ", ".join(standins.deliver_client_certificates(load_lab(self._site_dir).name, self._site_dir))

    def _verb(self, verb: str, **variables: str) -> str:
        finished, subject = run_verb(self._site_dir, verb, variables, sys.stdout)
        code = tell(finished, subject, self._site_dir, False, sys.stdout)
        if finished.interrupted:
            raise KeyboardInterrupt
        if code:
            raise StepError(code, f"{verb} ended with {code}")
        newest = [record for record in read_status(self._site_dir) if record.kind == verb]
        if not newest:
            raise StepError(EXIT_FAIL, f"{verb} left no record")
        return f"record {newest[-1].sequence}"

    def _alarm(self) -> str:
        faults.inject(self._site_dir, "fan-failure", [str(HOT_GPU)])
        limit_s = float(self._site.spec.gates.derate_max_s)
        print(f"   GPU {HOT_GPU}'s fan stands still; waiting for the guard (at most {limit_s:.0f} s)", flush=True)
        took_s = self._until(lambda guard: guard.get("derated") == HOT_GPU and not guard.get("changing"), limit_s)
        if took_s is None:
            raise StepError(EXIT_FAIL, f"the guard did not take GPU {HOT_GPU} out within {limit_s:.0f} s")
        return f"the guard took GPU {HOT_GPU} out after {took_s:.1f} s"

    def _cool(self) -> str:
        faults.inject(self._site_dir, "clear")
        took_s = self._until(
            lambda guard: guard.get("derated") is not None and not guard.get("not_restorable"), COOL_MAX_S
        )
        if took_s is None:
            why = self._guard().get("not_restorable", "the guard does not answer")
            raise StepError(EXIT_FAIL, f"GPU {HOT_GPU} may not return after {COOL_MAX_S:.0f} s: {why}")
        return f"cool enough after {took_s:.1f} s"

    def _until(self, reached: Callable[[Mapping[str, Any]], bool], limit_s: float) -> float | None:
        began = time.monotonic()
        while (passed := time.monotonic() - began) <= limit_s:
            if reached(self._guard()):
                return passed
            time.sleep(POLL_S)
        return None

    def _guard(self) -> dict[str, Any]:
        """The guard's own view; empty while it does not answer."""
        asked = network.run_in_host(load_lab(self._site_dir).name, self._site.gpu_host(), GUARD_STATUS)
        try:
            told = json.loads(asked.stdout)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def _leaks(self) -> str:
        """Count what the cloud's stand-in saw, by tenant, and record it: a sensitive tenant's request is a failure."""
        read = network.run_in_host(load_lab(self._site_dir).name, "cloud", ["cat", CLOUD_LOG])
        seen = count_cloud(read.stdout.decode(errors="replace"))
        tenants = self._site.spec.tenants
        sensitive = sorted(name for name, tenant in tenants.items() if tenant.policy == "sensitive")
        leaked = {name: seen["by_tenant"][name] for name in sensitive if name in seen["by_tenant"]}
        data = {
            **seen,
            "sensitive": sensitive,
            "leaked": leaked,
            "question": "what the cloud saw in the whole rehearsal",
        }
        Ledger.open(self._site_dir).append("drill", "cloud-leak", data)
        if leaked:
            raise StepError(EXIT_FAIL, f"the cloud saw a sensitive tenant: {leaked}")
        if not seen["requests"]:
            raise StepError(EXIT_HOLD, "the cloud saw no request at all, so nothing is shown about leaks")
        return f"{seen['requests']} requests, none of {', '.join(sensitive)}"

    def _verify(self) -> str:
        damage = audit.broken(audit.verify(self._site_dir))
        if damage:
            raise StepError(EXIT_FAIL, str(damage[0]))
        return f"{len(read_status(self._site_dir))} records, whole and unchanged"

    def _report(self) -> str:
        return str(write_report(self._site_dir, self._output))

    # --- the end

    def _summary(self, code: int, peak_mib: float) -> None:
        wall_s = time.monotonic() - self._began
        print(f"\n{'step':<34}{'took':>8}  result")
        for done in self._done:
            trouble = f"[{done.code}] " if done.code else ""
            print(f"{done.name:<34}{clock(done.seconds):>8}  {trouble}{done.words}")
        print(f"{'all':<34}{clock(wall_s):>8}  peak memory {peak_mib / 1024:.2f} GiB")
        stopped = next((f" at {done.name}: {done.words}" for done in self._done if done.code), "")
        print(f"\nrehearsal: {f'stopped with {code}{stopped}' if code else 'promoted'}")
        print(f"report: {self._output.absolute()}")
        if code == EXIT_DONE and not self._resume:
            steps = [{"name": done.name, "seconds": round(done.seconds, 2)} for done in self._done]
            last = {"at": stamp(time.time()), "wall_s": round(wall_s, 1), "peak_mib": round(peak_mib), "steps": steps}
            write_private(self._site_dir / TIMINGS, json.dumps(last))


def _outcome(step: Step) -> tuple[int, str]:
    try:
        return EXIT_DONE, step.act()
    except StepError as stopped:
        return stopped.code, str(stopped)
    except Refused as refusal:
        return EXIT_HOLD, f"refused: {refusal}"
    except InputError as error:
        return EXIT_USAGE, str(error)
    except (OSError, subprocess.SubprocessError) as error:
        return EXIT_ERROR, str(error)


def _earlier(site_dir: Path) -> list[dict[str, Any]]:
    """The steps of the last complete rehearsal, or none."""
    try:
        found = json.loads((site_dir / TIMINGS).read_text())["steps"]
        return [{"name": str(entry["name"]), "seconds": float(entry["seconds"])} for entry in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def count_cloud(log: str) -> dict[str, Any]:
    """Connections, requests and requests by tenant in the log of the cloud's stand-in (JSON lines)."""
    connections, requests, by_tenant = 0, 0, dict[str, int]()
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("event") == "connection":
            connections += 1
            continue
        requests += 1
        tenant = str(entry.get("tenant") or "unnamed")
        by_tenant[tenant] = by_tenant.get(tenant, 0) + 1
    return {"connections": connections, "requests": requests, "by_tenant": dict(sorted(by_tenant.items()))}
