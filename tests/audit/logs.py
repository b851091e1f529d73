"""Logs for the tests: written by the product's own writer, forged with the product's own chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_cutover.router import log_files, log_key
from gpu_cutover.router.chain import START, Link, Walk, entry_of, linked, signed_payload
from gpu_cutover.router.record import RecordLog


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A request record as the router writes it."""
    return {
        "t": 1795300000.0 + number,
        "request_id": f"r{number}",
        "tenant": "doc-zam",
        "route": "chat",
        "workload": "soap",
        "state": "onprem",
        "leg": "onprem",
        "why": "policy",
        "model": "llama-3.1-70b-instruct",
        "version": "ab" * 32,
        "gpus": [2, 3],
        "status": 200,
        "outcome": "ok",
        "first_byte_ms": 20.0,
        "total_ms": 40.0,
        "bytes_in": 100,
        "bytes_out": 200,
        "request_sha256": "cd" * 32,
        "tokens": 12,
        **changes,
    }


class Clock:
    """Seconds that only pass when told to."""

    def __init__(self, start: float = 1795300000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def new_key(folder: Path) -> Path:
    """The key of the log in this folder."""
    path = folder / "hybrid.key"
    log_key.make(path)
    return path


def new_log(folder: Path, name: str = "requests-hybrid", **settings: Any) -> RecordLog:
    """A signed log in this folder; opened again, the same one."""
    return RecordLog(folder / f"{name}.jsonl", key=new_key(folder), **settings)


def public(folder: Path) -> str:
    """The public key of the folder's log."""
    return (folder / "hybrid.pub").read_text().strip()


def files(path: Path) -> list[Path]:
    """The log's files, oldest first."""
    return [*reversed(log_files.rotated(path)), *([path] if path.exists() else [])]


def walk(path: Path, kept: Mapping[int, str] | None = None) -> Walk:
    """What verifying finds in the log."""
    found = Walk(log_key.verifies, frozenset([public(path.parent)]), kept or {})
    for file in files(path):
        with file.open("rb") as handle:
            found.follow(file.name, handle)
    return found


def damage(path: Path, kept: Mapping[int, str] | None = None) -> list[str]:
    """Everything broken, as words."""
    return [str(finding) for finding in walk(path, kept).findings if finding.level == "broken"]


def records(path: Path) -> list[dict[str, Any]]:
    """The log's records, its own lines left out."""
    lines = [json.loads(line) for file in files(path) for line in file.read_bytes().splitlines()]
    return [line for line in lines if "entry" not in line]


def entries(path: Path, kind: str) -> list[dict[str, Any]]:
    """The log's own lines of a kind."""
    lines = [entry_of(line) for file in files(path) for line in file.read_bytes().splitlines()]
    return [line for line in lines if line is not None and line["entry"] == kind]


def checkpoints(path: Path) -> dict[int, str]:
    """What the controller keeps of the log: number of a line → its hash."""
    return {one["covers"]: one["head"] for one in entries(path, "checkpoint")}


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Forge a log of one file: change its lines, chain them again, sign again with the gateway's own key."""
    key = log_key.load(next(path.parent.rglob("hybrid.key")))
    lines = change([json.loads(line) for line in path.read_bytes().splitlines()])
    path.write_bytes(b"".join(_chained(lines, key)))


def _chained(lines: list[dict[str, Any]], key: log_key.LogKey) -> Iterator[bytes]:
    at: Link = START
    for data in lines:
        plain = {name: value for name, value in data.items() if name not in ("n", "h")}
        if plain.get("entry") == "checkpoint":
            plain.update(covers=at.n, head=at.h)
            payload = signed_payload(plain["log"], plain["name"], plain["t"], at.n, at.h)
            plain["sig"] = key.sign(payload)
        line, at = linked(at, json.dumps(plain, separators=(",", ":")))
        yield line
