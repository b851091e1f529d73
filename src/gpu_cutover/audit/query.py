"""Asking the collected request records, and what an answer proves. The proof's limits come with every answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import store
from .proof import Proof, Proven, moment

PREFIX = "requests-"
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Filter:
    """Which attempts. `since` and `until` in epoch seconds, both included; everything else is compared as text."""

    tenant: str | None = None
    route: str | None = None
    leg: str | None = None
    why: str | None = None
    outcome: str | None = None
    model: str | None = None
    request_id: str | None = None
    since: float | None = None
    until: float | None = None

    @property
    def words(self) -> dict[str, str]:
        """The filters that compare text."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("since", "until")}
        return {name: value for name, value in named.items() if value is not None}

    def matches(self, record: dict[str, Any]) -> bool:
        t = float(record.get("t", 0.0))
        if (self.since is not None and t < self.since) or (self.until is not None and t > self.until):
            return False
        return all(str(record.get(name) or "none") == value for name, value in self.words.items())


@dataclass(slots=True)
class Answer:
    """What was found. `totals`: tenant → leg → number of attempts; a refusal has the leg `none`."""

    found: int = 0
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Nothing is broken and nothing is uncertain in the asked time."""
        return not self.broken and not self.limits


def parse_time(text: str, option: str) -> float:
    """Epoch seconds of an ISO 8601 time (UTC where it names no zone). Raises InputError."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        problem = f"{text!r} is no time"
        raise InputError("audit query", option, problem, "write for example 2026-12-30T10:00:00Z") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def ask(site_dir: Path, wanted: Filter, proof: Proof, gateways: Iterable[str], shown: int = SHOWN) -> Answer:
    """Every attempt that matches, counted; the newest `shown` of them are kept whole."""
    answer = Answer(broken=[str(finding) for finding in proof.broken])
    for host, record in _records(site_dir, wanted):
        if wanted.matches(record):
            answer.found += 1
            legs = answer.totals.setdefault(str(record.get("tenant") or "none"), {})
            leg = str(record.get("leg") or "none")
            legs[leg] = legs.get(leg, 0) + 1
            answer.records.append({"host": host, **record})
            if len(answer.records) > 4 * shown + 100:
                answer.records = _newest(answer.records, shown)
    answer.records = _newest(answer.records, shown)
    answer.limits = limits(proof, wanted, gateways)
    return answer


def _newest(records: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: float(record.get("t", 0.0)))[-count:] if count else []


def _records(site_dir: Path, wanted: Filter) -> Iterator[tuple[str, dict[str, Any]]]:
    """Candidates: lines that hold every wanted word somewhere. Parsing only those makes a million lines bearable."""
    needles = [json.dumps(value).encode() for value in wanted.words.values() if value != "none"]
    for log in store.logs(site_dir):
        if not log.name.startswith(PREFIX):
            continue
        for path in store.copies(site_dir, log):
            with path.open("rb") as handle:
                for line in handle:
                    if all(needle in line for needle in needles):
                        record = _decoded(line)
                        if record is not None:
                            yield log.host, record


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and "entry" not in data else None


def limits(proof: Proof, wanted: Filter, gateways: Iterable[str]) -> list[str]:
    """What the answer does not prove: in the asked time, gateway by gateway."""
    asked = [one for one in proof.logs if one.log.name.startswith(PREFIX)]
    found = [
        f"{host}: no request log was collected" for host in gateways if host not in {one.log.host for one in asked}
    ]
    for name in sorted({(one.log.host, one.log.name) for one in asked}):
        logs = sorted((one for one in asked if (one.log.host, one.log.name) == name), key=lambda one: one.begun_t)
        found += _of_one(logs, wanted)
    return found


def _of_one(logs: list[Proven], wanted: Filter) -> Iterator[str]:
    """The limits of one gateway's log of one pool (several logs, where it was begun anew)."""
    where = f"{logs[0].log.host} {logs[0].log.name}"
    if wanted.since is None or wanted.since < logs[0].begun_t or logs[0].first > 1:
        yield f"{where}: nothing before {moment(logs[0].begun_t)} (line {logs[0].first})"
    end_t = logs[-1].anchored_t
    if wanted.until is None or wanted.until > end_t:
        kept = f"after {moment(end_t)} (line {logs[-1].anchored})" if end_t else "at all"
        yield f"{where}: the controller keeps no checkpoint {kept}; later lines rest on the gateway's own key"
    for earlier, later in pairwise(logs):
        yield f"{where}: begun anew at {moment(later.begun_t)}; the log before ends at line {earlier.last}"
    for hole in (hole for one in logs for hole in one.holes):
        if (wanted.until is None or hole.since <= wanted.until) and (
            wanted.since is None or hole.until >= wanted.since
        ):
            number = "some" if hole.lost is None else str(hole.lost)
            span = f"between {moment(hole.since)} and {moment(hole.until)}"
            yield f"{where}: {number} records missing {span} ({hole.why})"


ALWAYS = (
    "The record is written by the router: a request that never passed a router, or passed something else in its "
    "place, is not in it. Against that: the seal's packet counters, the edge's counts, the cloud's own bill."
)


def sentences(answer: Answer, wanted: Filter) -> Iterator[str]:
    """The answer in words."""
    since = moment(wanted.since) if wanted.since is not None else "the beginning"
    until = moment(wanted.until) if wanted.until is not None else "the last record"
    tenants = [wanted.tenant] if wanted.tenant else sorted(answer.totals)
    for tenant in tenants:
        legs = answer.totals.get(tenant, {})
        counted = ", ".join(f"{legs.get(leg, 0)} {leg}" for leg in ("cloud", "onprem", "none"))
        yield f"{tenant}: {counted} attempts between {since} and {until}"
    if answer.broken:
        yield f"NOT PROVEN: the logs are not whole ({len(answer.broken)} findings; gpu-cutover audit verify)"
    elif answer.limits:
        yield "Proven within these limits:"
        yield from (f"  - {limit}" for limit in answer.limits)
    else:
        yield "Proven: chain, signatures and the controller's checkpoints agree for all of this time."
    yield ALWAYS
