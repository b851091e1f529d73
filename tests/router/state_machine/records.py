"""What was asked, and whether the routers' records tell the same. Their chain is followed from its first line."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpu_cutover.router import chain

if TYPE_CHECKING:
    from .rig import Rig, RouterProcess

WRITTEN_S = 5.0


@dataclass
class Asked:
    """One request of a tenant to one gateway's router, and what came of it."""

    request_id: str
    gateway: str
    pool: str
    tenant: str
    kind: str
    outcome: str = ""
    told_in_log: bool = True  # a router that was killed right after may have lost its record
    at: float = field(default_factory=time.monotonic)


def check_records(rig: Rig, asked: list[Asked]) -> None:
    """Every request is on record with who answered it; every chain holds."""
    for name, gateway in rig.gateways.items():
        for pool, router in gateway.routers.items():
            mine = [one for one in asked if (one.gateway, one.pool) == (name, pool) and one.told_in_log]
            records = _records(router, mine)
            for one in mine:
                _agrees(one, records[one.request_id])


def _records(router: RouterProcess, asked: list[Asked]) -> dict[str, list[dict[str, Any]]]:
    """The records of these requests, once all are written."""
    deadline = time.monotonic() + WRITTEN_S
    while True:
        found: dict[str, list[dict[str, Any]]] = {}
        for line in _lines(router):
            record = json.loads(line)
            if record.get("why") not in ("mirror", "reverse"):
                found.setdefault(record.get("request_id", ""), []).append(record)
        if all(one.request_id in found for one in asked) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _lines(router: RouterProcess) -> list[bytes]:
    path = router.log / f"requests-{router.pool}.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    link = chain.START
    for line in lines:
        assert chain.follows(line, link), line
        link = chain.claimed(line) or link
    return lines


def _agrees(asked: Asked, records: list[dict[str, Any]]) -> None:
    last = records[-1]
    assert (last["tenant"], [one["attempt"] for one in records]) == (asked.tenant, list(range(len(records))))
    if asked.outcome in ("onprem", "cloud"):
        assert (last["leg"], last["outcome"]) == (asked.outcome, "ok"), (asked, records)
    elif asked.outcome == "refused":
        assert (last["leg"], last["why"]) == (None, "refused"), (asked, records)
    else:
        assert last["outcome"] in ("error", "timeout"), (asked, records)
