"""The ledger's verdicts as metrics: a file that the monitor's node exporter reads."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ..evidence.records import Record

PATH = "/var/lib/prometheus/node-exporter/gpu-cutover-gates.prom"


def exposition(records: Iterable[Record]) -> str:
    """The last verdict of each day, when it was reached, and how much the ledger holds."""
    last: dict[int, Record] = {}
    count = 0
    for record in records:
        count += 1
        if record.kind == "gate":
            last[int(record.data["day"])] = record
    lines = [
        "# HELP gpu_cutover_gate_promoted 1 when the day's last verdict is promote.",
        "# TYPE gpu_cutover_gate_promoted gauge",
        *(_promoted(day, str(record.data["verdict"])) for day, record in sorted(last.items())),
        "# HELP gpu_cutover_gate_finished_seconds When that verdict was reached, epoch seconds.",
        "# TYPE gpu_cutover_gate_finished_seconds gauge",
        *(
            f'gpu_cutover_gate_finished_seconds{{day="{day}"}} {_epoch(str(record.data["finished"]))}'
            for day, record in sorted(last.items())
        ),
        "# HELP gpu_cutover_ledger_records Records in the ledger when this was written.",
        "# TYPE gpu_cutover_ledger_records gauge",
        f"gpu_cutover_ledger_records {count}",
    ]
    return "\n".join([*lines, ""])


def _promoted(day: int, verdict: str) -> str:
    return f'gpu_cutover_gate_promoted{{day="{day}",verdict="{verdict}"}} {int(verdict == "promote")}'


def _epoch(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())
