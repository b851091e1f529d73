"""What the controller keeps of every log, read from the ledger: checkpoints, the keys they pin, accepted losses. Pure.

Statements of the kind `checkpoint`: `{host: {log name: {log, name, t, covers, head, key, sig, public}}}`, and
`{accepted: {host, name, log, covers, by, reason}}` for lines that a named person knows to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..evidence.records import Record
from ..router.chain import Finding, Verifier, checkpoint_holds
from .store import LogName

KIND = "checkpoint"


@dataclass(slots=True)
class Kept:
    """One log as the controller knows it. `heads`: number of a line → its hash."""

    heads: dict[int, str] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    public: str = ""
    accepted: int = 0  # lines up to here are known to be gone
    accepted_words: str = ""

    @property
    def last(self) -> int:
        return max(self.heads, default=0)

    @property
    def last_t(self) -> float:
        return self.times.get(self.last, 0.0)


def kept_checkpoints(records: Iterable[Record], verifier: Verifier) -> tuple[dict[LogName, Kept], list[Finding]]:
    """(what is kept of each log, what contradicts itself)."""
    kept: dict[LogName, Kept] = {}
    findings: list[Finding] = []
    for record in records:
        if record.kind != KIND:
            continue
        if "accepted" in record.data:
            _accept(kept, record.data["accepted"])
            continue
        for host, logs in record.data.items():
            for name, checkpoint in dict(logs).items():
                log = LogName(host, name, str(checkpoint.get("log")))
                problem = _keep(kept.setdefault(log, Kept()), checkpoint, verifier)
                if problem:
                    findings.append(Finding("broken", record.file, 0, f"{log}: {problem}"))
    return kept, findings


def _keep(one: Kept, checkpoint: Mapping[str, Any], verifier: Verifier) -> str | None:
    """Add a checkpoint; returns what is wrong with it."""
    covers, head, public = int(checkpoint["covers"]), str(checkpoint["head"]), str(checkpoint["public"])
    one.public = one.public or public
    if public != one.public:
        return "shows another key than the first time"
    if not checkpoint_holds(checkpoint, public, verifier):
        return "the checkpoint's signature does not match"
    if one.heads.get(covers, head) != head:
        return f"line {covers} has another hash than an earlier checkpoint says: the log was rewritten"
    one.heads[covers] = head
    one.times[covers] = float(checkpoint["t"])
    return None


def _accept(kept: dict[LogName, Kept], accepted: Mapping[str, Any]) -> None:
    log = LogName(str(accepted["host"]), str(accepted["name"]), str(accepted["log"]))
    one = kept.setdefault(log, Kept())
    one.accepted = max(one.accepted, int(accepted["covers"]))
    one.accepted_words = f"accepted by {accepted['by']}: {accepted['reason']}"
