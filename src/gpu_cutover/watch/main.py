"""`gpu-cutover-watch`: one process per tenant under watch; ends with the watch."""

from __future__ import annotations

import argparse
import functools
import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import EXIT_DONE, EXIT_ERROR, InputError
from ..router.change import change, rolled_back
from ..router.files import read_table
from . import state as states
from .decide import Counts, Drift, Limits, count, count_critical, decide

TICK_S = 0.5
TABLES = Path("/etc/gpu-cutover/router")
LOGS = Path("/var/log/gpu-cutover")


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the deadline or a bad end. 30 when there is no state to begin from."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-watch", description=__doc__)
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--state", type=Path, default=states.DIRECTORY)
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--logs", type=Path, default=LOGS)
    arguments = parser.parse_args(argv)
    os.umask(0o002)
    path = states.path_of(arguments.tenant, arguments.state)
    state = states.read(path)
    if state is None:
        print(f"gpu-cutover-watch: no state in {path}", file=sys.stderr)
        return EXIT_ERROR
    watch = Watch(state, arguments.tables, arguments.logs)
    while watch.state["verdict"] == states.RUNNING:
        watch.tick(time.time())
        states.write(path, watch.state)
        if watch.state["verdict"] == states.RUNNING:
            time.sleep(TICK_S)
    print(f"watch of {arguments.tenant}: {watch.state['verdict']}: {watch.state['reason']}")
    return EXIT_DONE


class Watch:
    """Sample → decide → act, once per tick; `state` is all that lives on."""

    def __init__(self, state: dict[str, Any], tables: Path, logs: Path) -> None:
        self.state, self.tables = state, tables
        settings = state["settings"]
        self.limits = Limits(settings["requests_min"], settings["error_rate_max"], settings["slow_s"])
        self.counts = Counts.from_dict(state["counts"]) if state["counts"] else _new_counts(self.limits)
        names = ("requests-hybrid", "requests-sealed", "comparisons-hybrid")
        self.tails = {name: states.Tail(logs / f"{name}.jsonl", state["positions"].get(name)) for name in names}

    def tick(self, now: float) -> None:
        """One look."""
        tenant, since = self.state["tenant"], float(self.state["started"])
        for name, tail in self.tails.items():
            if name.startswith("requests"):
                count(self.counts, tail.lines(), tenant, since, self.limits)
            else:
                count_critical(self.counts, tail.lines(), tenant, since)
        deadline, longest = float(self.state["deadline"]), float(self.state.get("longest", self.state["deadline"]))
        verdict, reason = decide(self.counts, self.limits, now, deadline, longest)
        if verdict == "bad":
            verdict, reason = self._take_back(reason, now)
        self.state.update(
            verdict=verdict,
            reason=reason,
            counts=self.counts.as_dict(),
            positions={name: tail.position for name, tail in self.tails.items()},
            ended=None if verdict == states.RUNNING else now,
        )

    def _take_back(self, reason: str, now: float) -> tuple[str, str]:
        """Roll the tenant back in the local table. In observe-only the verdict is told and nothing is done."""
        if self.state["settings"]["observe_only"]:
            return "bad", f"{reason}; observe-only, nothing was changed"
        started = time.monotonic()
        kept: list[str] = []
        try:
            changed = self._roll_back(f"watch: {reason}", now, kept)
        except (InputError, OSError) as error:
            return states.RUNNING, f"{reason}; the rollback failed and is tried again: {error}"
        if not changed.changed:
            return "bad", f"{reason}; nothing could be taken back ({'; '.join(kept) or 'no route is on-prem'})"
        name = self.state["tenant"]
        self.state["rollback"] = {
            "at": now,
            "took_s": round(time.monotonic() - started, 4),
            "before": {name: (changed.before or {})["tenants"][name]["routes"]},
            "after": {name: changed.after["tenants"][name]["routes"]},
            "kept": kept,
        }
        return "rolled_back", reason

    def _roll_back(self, reason: str, now: float, kept: list[str]) -> Any:
        tenant = self.state["tenant"]
        paths = [self.tables / f"{pool}.json" for pool in ("hybrid", "sealed")]
        path = next(path for path in paths if path.exists() and tenant in read_table(path).tenants)
        table = read_table(path)
        ready = [route for route, leg in table.cloud.items() if reachable(leg.url)]
        mutate = functools.partial(rolled_back, tenant=tenant, accept_off=False, ready=ready, kept=kept)
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return change(path, lambda raw: mutate(raw or {}), reason, stamp)


def _new_counts(limits: Limits) -> Counts:
    return Counts(error_drift=Drift(limits.error_rate_max))


def reachable(url: str, timeout_s: float = 1.0) -> bool:
    """Does anything listen there? The target of a rollback is looked at before traffic moves."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
