"""`gpu-cutover-burn-in run` is the unit on the GPU host; `retest` loads one GPU for a short time."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_FAIL, EXIT_USAGE, InputError
from ..guard.notify import notify
from ..probes import nvml
from . import state as states
from . import summary, telemetry
from .loads import EngineLoad, GpuLoad

log = logging.getLogger("burn-in")
READ_TIMEOUT_S = 3.0
SHORTEST_WAIT_S = 0.05


class BurnIn:
    """One session of a burn-in: from the start of the process to its end or the deadline."""

    def __init__(self, config: states.Config, reader: nvml.Reader) -> None:
        self.config, self.reader = config, reader
        self.directory = Path(config.directory)
        self.stopping = threading.Event()
        self.state = self._resume_or_begin()
        passed = states.elapsed_s(self.state, states.boot_id(), states.uptime_s(), time.time())
        self.began = time.monotonic() - passed
        left = config.duration_s - passed
        self.loads = [GpuLoad(config.load_command, gpu, left) for gpu in range(config.gpus)]
        self.engines = EngineLoad(config.engine_load, config.engine_load_interval_s)

    def _resume_or_begin(self) -> dict[str, Any]:
        """The burn-in that runs already, or a new one when none does or a new one was asked for."""
        now = time.time()
        state = states.read_json(self.directory / states.STATE)
        request = states.read_json(self.directory / states.REQUEST)
        again = request is not None and (state is None or request.get("replaces") == state["id"])
        if state is None or state["config"] != self.config.digest or again:
            self._set_aside()
            state = states.begin(self.config, now)
        state["sessions"].append({"started": now, "boot": states.boot_id(), "pid": os.getpid()})
        states.write_json(self.directory / states.STATE, state)
        return state

    def _set_aside(self) -> None:
        """Keep the one before, out of the way: evidence is never overwritten."""
        previous = states.read_json(self.directory / states.STATE)
        if previous is None:
            return
        kept = self.directory / f"before-{previous['id']}"
        kept.mkdir(exist_ok=True)
        segments = [path.name for path in telemetry.segments(self.directory / states.TELEMETRY)]
        for name in (states.EVIDENCE, *segments, states.TELEMETRY, states.STATE):
            if (self.directory / name).exists():
                (self.directory / name).replace(kept / name)

    @property
    def finished(self) -> bool:
        evidence = states.read_json(self.directory / states.EVIDENCE)
        return evidence is not None and evidence.get("id") == self.state["id"]

    def run(self) -> None:
        """Load and record until the deadline, then write the evidence. Stops early, without evidence, on a signal."""
        if not self.finished:
            self._record()
        if not self.stopping.is_set() and not self.finished:
            self._conclude()
        self.reader.close()

    def _record(self) -> None:
        writer = telemetry.Writer(self.directory / states.TELEMETRY)
        for load_thread in self.loads:
            load_thread.start()
        self.engines.start()
        counters: dict[int, list[Any]] = {}
        boot, ready, due = states.boot_id(), False, time.monotonic()
        while time.monotonic() - self.began < self.config.duration_s and not self.stopping.is_set():
            sample = self.reader.read(READ_TIMEOUT_S)
            load = {thread.gpu: seen for thread in self.loads if (seen := thread.latest())}
            writer.append(telemetry.row(sample, load, boot, counters, states.uptime_s()))
            notify("WATCHDOG=1" if ready else "READY=1\nWATCHDOG=1")
            ready = True
            due = max(due + self.config.interval_s, time.monotonic() + SHORTEST_WAIT_S)
            self.stopping.wait(due - time.monotonic())
        for load_thread in self.loads:
            load_thread.end()
        self.engines.end()
        writer.close()
        self.state["sessions"][-1] |= {
            "ended": time.time(),
            "reached_s": round(time.monotonic() - self.began, 2),
            "load_failures": [text for thread in self.loads for text in thread.failures][:50],
            "engine_requests": self.engines.sent,
            "engine_failures": self.engines.failed,
        }
        states.write_json(self.directory / states.STATE, self.state)

    def _conclude(self) -> None:
        rows = telemetry.read_file(self.directory / states.TELEMETRY)
        evidence = {
            "id": self.state["id"],
            "config": self.state["config"],
            "finished": time.time(),
            "sessions": self.state["sessions"],
            "summary": summary.summarise(rows, self.state, self.config.margin_floor_celsius),
        }
        states.write_json(self.directory / states.EVIDENCE, evidence)
        log.info("burn-in %s is complete", self.state["id"])


def _run(path: Path) -> int:
    burn_in = BurnIn(states.load_config(path), nvml.Reader())
    signal.signal(signal.SIGTERM, lambda *_: burn_in.stopping.set())
    signal.signal(signal.SIGINT, lambda *_: burn_in.stopping.set())
    notify("READY=1")
    burn_in.run()
    return EXIT_DONE


def retest(config: states.Config, gpu: int, seconds: float, reader: nvml.Reader) -> dict[str, Any]:
    """Load one GPU for `seconds`; what it showed. `passed` needs throughput, readings and no forbidden bit or Xid."""
    load = GpuLoad(config.load_command, gpu, seconds)
    load.start()
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    counters: dict[int, list[Any]] = {}
    state = {"started": time.time(), "duration_s": seconds, "interval_s": config.interval_s, "gpus": config.gpus}
    while time.monotonic() - began < seconds:
        sample = reader.read(READ_TIMEOUT_S)
        seen = load.latest()
        row = telemetry.row(sample, {gpu: seen} if seen else {}, "retest", counters, states.uptime_s())
        rows.append(json.loads(json.dumps(row)))
        time.sleep(config.interval_s)
    load.end()
    found = summary.summarise(rows, state, config.margin_floor_celsius)
    figures = found["gpus"][str(gpu)]
    hardware = [event for event in found["xids_hardware"] if event[1] == gpu]
    reasons = [
        reason
        for reason, bad in {
            "no throughput figure": figures["tflops_median"] is None,
            "no temperature margin": figures["margin_min_celsius"] is None,
            "thermal margin under its floor": (figures["below_floor_celsius_s"] or 0) > 0,
            "a slowdown bit": bool(figures["forbidden_bits"]),
            "a hardware Xid": bool(hardware),
            "an uncorrectable memory error": bool(figures["ecc_uncorrected_delta"]),
            "wrong results": figures["compute_errors"] > 0,
        }.items()
        if bad
    ]
    return {"gpu": gpu, "seconds": seconds, "passed": not reasons, "reasons": reasons, "figures": figures}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done (retest: passed), 2 wrong configuration, 20 the retest was not passed."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-burn-in", description="Burn-in of a GPU host.")
    parser.add_argument("--config", type=Path, default=states.CONFIG_FILE)
    subparsers = parser.add_subparsers(dest="verb", required=True)
    subparsers.add_parser("run", help="be the unit")
    again = subparsers.add_parser("retest", help="load one GPU for a short time")
    again.add_argument("--gpu", type=int, required=True)
    again.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if arguments.verb == "run":
            return _run(arguments.config)
        result = retest(states.load_config(arguments.config), arguments.gpu, arguments.seconds, nvml.Reader())
    except InputError as error:
        print(f"gpu-cutover-burn-in: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(json.dumps(result))
    return EXIT_DONE if result["passed"] else EXIT_FAIL


if __name__ == "__main__":
    sys.exit(main())
