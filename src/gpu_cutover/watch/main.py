"""`gpu-cutover-watch`: one process per tenant under watch; ends with the watch."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, InputError, Refused
from ..peers import told
from ..router.journal import JOURNAL
from ..router.orders import Answer, Order, Place, carry_out
from . import state as states
from .decide import Counts, Drift, Limits, count, count_critical, decide

TICK_S = 0.5
TABLES = Path("/etc/gpu-cutover/router")
LOGS = Path("/var/log/gpu-cutover")
PORTS = {"hybrid": 9402, "sealed": 9403}


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the deadline or a bad end. 30 when there is no state to begin from."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-watch", description=__doc__)
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--state", type=Path, default=states.DIRECTORY)
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--logs", type=Path, default=LOGS)
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    arguments = parser.parse_args(argv)
    os.umask(0o002)
    path = states.path_of(arguments.tenant, arguments.state)
    state = states.read(path)
    if state is None:
        print(f"gpu-cutover-watch: no state in {path}", file=sys.stderr)
        return EXIT_ERROR
    place = Place(arguments.tables, arguments.journal, arguments.logs, PORTS)
    watch = Watch(state, place)
    while watch.state["verdict"] == states.RUNNING:
        watch.tick(time.time())
        states.write(path, watch.state)
        if watch.state["verdict"] == states.RUNNING:
            time.sleep(TICK_S)
    print(f"watch of {arguments.tenant}: {watch.state['verdict']}: {watch.state['reason']}")
    return EXIT_DONE


class Watch:
    """Sample → decide → act, once per tick; `state` is all that lives on."""

    def __init__(self, state: dict[str, Any], place: Place) -> None:
        self.state, self.place = state, place
        settings = state["settings"]
        self.limits = Limits(settings["requests_min"], settings["error_rate_max"], settings["slow_s"])
        self.counts = Counts.from_dict(state["counts"]) if state["counts"] else _new_counts(self.limits)
        names = ("requests-hybrid", "requests-sealed", "comparisons-hybrid")
        self.tails = {
            name: states.Tail(place.records / f"{name}.jsonl", state["positions"].get(name)) for name in names
        }

    def tick(self, now: float) -> None:
        """One look."""
        tenant, since = self.state["tenant"], float(self.state["started"])
        for name, tail in self.tails.items():
            if name.startswith("requests"):
                count(self.counts, tail.lines(), tenant, since, self.limits)
            else:
                count_critical(self.counts, tail.lines(), tenant, since)
        deadline, longest = float(self.state["deadline"]), float(self.state.get("longest", self.state["deadline"]))
        alone = now >= deadline and self.counts.requests < self.limits.requests_min
        elsewhere = told.watched_elsewhere(told.peers(), tenant, since) if alone else 0
        verdict, reason = decide(self.counts, self.limits, now, deadline, longest, elsewhere)
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
        try:
            changed = self._roll_back(reason, now)
        except (InputError, Refused, OSError) as error:
            return states.RUNNING, f"{reason}; the rollback failed and is tried again: {error}"
        if not changed["changed"]:
            kept = "; ".join(changed["kept"]) or "no route is on-prem"
            return "bad", f"{reason}; nothing could be taken back ({kept})"
        told = {key: changed[key] for key in ("id", "took_s", "before", "after", "kept")}
        self.state["rollback"] = {"at": now, **told}
        return "rolled_back", reason

    def _roll_back(self, reason: str, now: float) -> Answer:
        tenant = self.state["tenant"]
        order = Order(
            do="roll_back",
            id=f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-watch-{os.getpid()}-{tenant}",
            by="watch",
            path="watch",
            reason=f"watch: {reason}",
            record="rollback",
            check="fast",
            tenant=tenant,
        )
        return carry_out(order, self.place)


def _new_counts(limits: Limits) -> Counts:
    return Counts(error_drift=Drift(limits.error_rate_max))


if __name__ == "__main__":
    sys.exit(main())
