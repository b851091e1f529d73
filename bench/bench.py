"""`make bench`: how fast and how light, beside everything else in the field. Prints each figure with its target and
whether it is met; asserts nothing. What is measured, how, and the last figures: docs/benchmarks.md.

Run on a quiet machine: durations are wall clocks and other programs count. `--only` takes the parts' names.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import everyday
import planner
import printing
import records
import rollback
from gateways import endurance, field_table, flips, install, mirror
from gateways.contestants import Contestant, Field

ROOT = Path(__file__).parents[1]


class Parts:
    """What can be measured. The field of gateways is started once, when the first part needs it."""

    def __init__(self, site_dir: Path, full: bool, stack: ExitStack) -> None:
        self._site_dir, self._stack = site_dir, stack
        self._requests = 1_000_000 if full else 100_000
        self._lines = 1_000_000 if full else 200_000
        self._arena: Field | None = None
        self._found: list[Contestant] | None = None
        self.all: dict[str, tuple[str, Callable[[], None]]] = {
            "everyday": ("Command lines", lambda: everyday.run(site_dir)),
            "planner": ("The planner", planner.run),
            "records": ("Records", lambda: records.run(self._lines)),
            "rollback": ("Everybody back to the cloud, two gateways", rollback.run),
            "gateways": ("The field: same questions, same engine", self._gateways),
            "mirror": ("Mirror on against off", self._mirror),
            "flips": ("Flips under load, through the edge", lambda: flips.run(self._field())),
            "worker": (
                "One router: table size, reload, memory",
                lambda: endurance.run(self._field(), self._requests, full),
            ),
        }

    def _field(self) -> Field:
        if self._arena is None:
            install.HOME.mkdir(parents=True, exist_ok=True)
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-cutover-bench-"))
            self._arena = self._stack.enter_context(Field(Path(folder)))
        return self._arena

    def _contestants(self) -> list[Contestant]:
        if self._found is None:
            self._found = self._field().gather()
        return self._found

    def _gateways(self) -> None:
        found = self._contestants()
        field_table.tell(self._field(), found, field_table.measure(self._field(), found))
        field_table.saturation(self._field(), found)

    def _mirror(self) -> None:
        mirror.run(self._field(), {one.name: one.port for one in self._contestants()})


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Exit code 2 for an unknown part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "twin")
    parser.add_argument("--only", default="", help="parts, by commas; all without it")
    parser.add_argument("--full", action="store_true", help="a million requests and records")
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        parts = Parts(arguments.inventory, arguments.full, stack)
        wanted = [name for name in arguments.only.split(",") if name] or list(parts.all)
        if unknown := set(wanted) - set(parts.all):
            parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts.all)}")
        printing.machine()
        for name in wanted:
            title, measure = parts.all[name]
            printing.heading(title)
            began = time.monotonic()
            measure()
            print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
        printing.machine()
    return 0


if __name__ == "__main__":
    sys.exit(main())
