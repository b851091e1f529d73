"""What the monitor is told of a gateway's routes: do the gateways agree, is a change missing in the ledger, how did
each tenant's watch end. Prometheus text; pure, standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HELP = {
    "gpu_cutover_peer_answers": "1 when the other gateway told its tables when last asked.",
    "gpu_cutover_peer_agrees": "1 when it sends everybody the same way; absent while it does not answer.",
    "gpu_cutover_route_changes_unrecorded": "Route changes of this gateway that nobody said are in the ledger.",
    "gpu_cutover_route_change_unrecorded_since_seconds": "When the oldest of them ended, epoch s; absent without one.",
    "gpu_cutover_watch": "1 for how a tenant's latest watch stands: running, clean, rolled_back or bad.",
}


def exposition(
    peers: Mapping[str, Mapping[str, Any]],
    unrecorded: Sequence[Mapping[str, Any]],
    watches: Iterable[Mapping[str, Any]],
) -> str:
    """`peers`: what this gateway knows of the others; `unrecorded`: entries of its journal; `watches`: their states."""
    rows: dict[str, list[str]] = {name: [] for name in HELP}
    for name, known in sorted(peers.items()):
        label = f'{{peer="{_escaped(name)}"}}'
        rows["gpu_cutover_peer_answers"].append(f"{label} {int(not known['problem'])}")
        if known["agrees"] is not None:
            rows["gpu_cutover_peer_agrees"].append(f"{label} {int(known['agrees'])}")
    rows["gpu_cutover_route_changes_unrecorded"].append(f" {len(unrecorded)}")
    if unrecorded:
        oldest = min(float(entry["t"]) for entry in unrecorded)
        rows["gpu_cutover_route_change_unrecorded_since_seconds"].append(f" {oldest}")
    for watch in watches:
        tenant, verdict = _escaped(watch["tenant"]), _escaped(watch["verdict"])
        rows["gpu_cutover_watch"].append(f'{{tenant="{tenant}",verdict="{verdict}"}} 1')
    lines = [
        line
        for name, found in rows.items()
        for line in (f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge", *(f"{name}{row}" for row in found))
    ]
    return "\n".join([*lines, ""])


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
