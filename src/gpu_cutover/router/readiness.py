"""Do the two sides of a route answer now? Asked on the gateway before traffic moves. Standard library only, fast.

A leg is `silent` when the server at its address does not answer HTTP, when the router holds its breaker open, or, for
a cloud leg, when everything it was asked in the last minute failed: LiteLLM answers while the cloud does not.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Silent = dict[str, dict[str, str]]  # {"cloud" | "onprem": {route: why}}

ANSWER_S = 1.0  # the router of this host
LEG_S = 3.0  # a leg that is only busy answers within it
ASK_S = 10.0  # one small question to a model
EXPERIENCE_S = 60.0
EXPERIENCE_BYTES = 256 * 1024
EXPERIENCE_MIN = 3
READY_PATH = "/health/readiness"  # LiteLLM's; an engine answers 404 to it, which is an answer


def http_get(url: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """(status, body) of a plain GET, at most `timeout_s` seconds in all. Raises OSError or ValueError.

    By hand, because importing http.client costs more than the whole change (about 40 ms).
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout_s
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while chunk := _receive(connection, deadline):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("no HTTP answer")
    return int(words[1]), body


def _receive(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left)
    return connection.recv(65536)


def health(port: int, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """What the router with this metrics port says of itself. Raises OSError or ValueError."""
    data = json.loads(http_get(f"http://127.0.0.1:{port}", "/health", timeout_s)[1])
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def silent_legs(
    table: Mapping[str, Any], router: Mapping[str, Any], records: Path, now: float, routes: Iterable[str] | None = None
) -> Silent:
    """The legs of a raw hybrid table that do not answer, with the reason. `router`: its /health, {} if down."""
    legs = {
        "cloud": dict(table.get("cloud", {})),
        "onprem": dict(table["onprem"].get(router.get("placement"), table["onprem"][table["placement"]])),
    }
    if routes is not None:
        legs = {side: {route: leg for route, leg in found.items() if route in routes} for side, found in legs.items()}
    answers = _each({leg["url"] for found in legs.values() for leg in found.values()}, _problem_of)
    silent: Silent = {
        side: {route: problem for route, leg in found.items() if (problem := answers[leg["url"]])}
        for side, found in legs.items()
    }
    for route, leg in legs["onprem"].items():
        if leg["model"] in router.get("breakers_open", ()):
            silent["onprem"].setdefault(route, f"the breaker of {leg['model']} is open")
    for route, count in _failing_cloud(records, now).items():
        if route in legs["cloud"]:
            silent["cloud"].setdefault(route, f"the last {count} questions to it in {EXPERIENCE_S:.0f} s all failed")
    return silent


def ask_legs(
    table: Mapping[str, Any], router: Mapping[str, Any], side: str, routes: Iterable[str], timeout_s: float = ASK_S
) -> dict[str, str]:
    """{route: why} of the legs of one side that do not answer a real small question."""
    from . import probing  # late: only who asks pays for it

    onprem = table["onprem"].get(router.get("placement"), table["onprem"][table["placement"]])
    legs = {route: leg for route, leg in (table["cloud"] if side == "cloud" else onprem).items() if route in routes}
    probes = [probing.Probe(leg["url"], leg["path"], route, leg["model"], {}, timeout_s) for route, leg in legs.items()]
    answers = zip(legs, probing.ask_all(probes), strict=True)
    return {route: f"{legs[route]['url']} {answer['error']}" for route, answer in answers if not answer["ok"]}


def _problem_of(url: str) -> str:
    parts = urlsplit(url)
    try:
        if parts.scheme == "https":  # a handshake would cost more than it tells
            socket.create_connection((parts.hostname or "", parts.port or 443), LEG_S).close()
            return ""
        status, _ = http_get(url, READY_PATH, LEG_S)
    except (OSError, ValueError) as error:
        return f"{url} does not answer: {error}"
    return f"{url} answers {status}" if status >= 500 else ""


def _each(urls: Iterable[str], ask: Any) -> dict[str, str]:
    """{url: answer}, all asked at once."""
    found: dict[str, str] = {}

    def one(url: str) -> None:
        found[url] = ask(url)

    threads = [threading.Thread(target=one, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _failing_cloud(records: Path, now: float) -> dict[str, int]:
    """{route: count} of routes whose cloud attempts of the last minute, at least three, all failed."""
    counts: dict[str, list[int]] = {}
    for record in _recent(records):
        if record.get("leg") == "cloud" and float(record.get("t", 0)) > now - EXPERIENCE_S:
            good, bad = counts.setdefault(str(record.get("route")), [0, 0])
            failed = record.get("outcome") in ("error", "timeout")
            counts[str(record.get("route"))] = [good + (not failed), bad + failed]
    return {route: bad for route, (good, bad) in counts.items() if not good and bad >= EXPERIENCE_MIN}


def _recent(records: Path) -> list[dict[str, Any]]:
    """The end of the hybrid router's record."""
    try:
        with (records / "requests-hybrid.jsonl").open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - EXPERIENCE_BYTES))
            lines = handle.read().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        if b'"cloud"' in line:
            try:
                data = json.loads(line)
            except ValueError:
                continue  # the first line was cut by the seek
            found.append(data)
    return [data for data in found if isinstance(data, dict)]
