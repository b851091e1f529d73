"""What a gateway's records say about the mirror: scores, latencies, coverage. Stdlib only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..compare.kinds import primary
from .log_files import rotated

Rows = list[dict[str, Any]]
MAX_SCORES = 5000  # per route, the newest; the gate's bound needs hundreds


def read_since(path: Path, since: float) -> Rows:
    """Records of a log's files that are not older than `since` (epoch s), oldest first; not the log's own lines."""
    return list(each_since(path, since))


def each_since(path: Path, since: float) -> Iterator[dict[str, Any]]:
    """As `read_since`, one at a time: all files of a log do not fit into memory."""
    for one in (*reversed(rotated(path)), path):
        try:
            with one.open("rb") as handle:
                if os.fstat(handle.fileno()).st_mtime < since:
                    continue
                for record in map(_decoded, handle):
                    if record is not None and record.get("t", 0) >= since:
                        yield record
        except OSError:
            continue


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and "entry" not in data else None


def comparisons_by_route(comparisons: Iterable[Mapping[str, Any]], routes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{route: {n, scores, means, critical, latencies in s}} of the mirror's comparisons."""
    by_route: dict[str, Rows] = {route: [] for route in routes}
    for record in comparisons:
        by_route.setdefault(str(record.get("route")), []).append(dict(record))
    return {route: _summary(rows) for route, rows in by_route.items()}


def _summary(rows: Rows) -> dict[str, Any]:
    scores = [float(row["scores"].get(primary(row["kind"]), 0.0)) for row in rows]
    critical: dict[str, int] = {}
    for row in rows:
        for name in row.get("critical") or []:
            critical[name] = critical.get(name, 0) + 1
    answered = [row for row in rows if row.get("onprem_ms") is not None]
    return {
        "n": len(rows),
        "unanswered": len(rows) - len(answered),
        "scores": scores[-MAX_SCORES:],
        "critical": critical,
        "cloud_s": quantiles([row["cloud_ms"] / 1000 for row in answered]),
        "onprem_s": quantiles([row["onprem_ms"] / 1000 for row in answered]),
        "onprem_first_byte_s": quantiles([row["onprem_first_byte_ms"] / 1000 for row in answered]),
    }


def latency_by_workload(requests: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{workload: {n, p50_s, p95_s, p99_s, first_byte_p95_s}} of the copies that on-prem engines answered."""
    total: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    for record in requests:
        if record.get("why") == "mirror" and record.get("outcome") == "ok":
            workload = str(record.get("workload"))
            total.setdefault(workload, []).append(float(record["total_ms"]) / 1000)
            first.setdefault(workload, []).append(float(record["first_byte_ms"]) / 1000)
    return {
        name: {"n": len(values), **quantiles(values), "first_byte_p95_s": quantiles(first[name])["p95_s"]}
        for name, values in total.items()
    }


def coverage(
    requests: Iterable[Mapping[str, Any]], comparisons: Iterable[Mapping[str, Any]], pending: int
) -> dict[str, Any]:
    """How many requests that should have been compared were: `{eligible, compared, pending, share}`.

    Eligible: answered by the cloud while the route was in mirror, less the copies that are still under way (`pending`).
    """
    compared = {(record["request_id"], record["route"]) for record in comparisons}
    answered = [record for record in requests if record.get("state") == "mirror" and record.get("leg") == "cloud"]
    eligible = {(one["request_id"], one["route"]) for one in answered if one.get("outcome") == "ok"}
    done = len(eligible & compared)
    due = max(done, len(eligible) - pending)
    return {"eligible": due, "compared": done, "pending": pending, "share": done / due if due else None}


def quantiles(values: list[float]) -> dict[str, float | None]:
    """p50, p95, p99 by nearest rank; None of nothing."""
    ordered = sorted(values)

    def at(share: float) -> float | None:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) if ordered else None

    return {"p50_s": at(0.50), "p95_s": at(0.95), "p99_s": at(0.99)}
