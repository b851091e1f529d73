"""Do the two sides of a route answer now? Asked on the gateway before traffic moves. Standard library only, fast.

A leg is `silent` when the server at its address refuses or does not answer HTTP, when the router holds its breaker
open, or, for a cloud leg, when everything it was asked in the last minute failed: LiteLLM answers while the cloud does
not. It is `slow`, and counts as alive, when its server takes a connection, says nothing in time, and yet answered
somebody in the last minute: that is a busy one, and keeping traffic away from it for that would refuse a rollback.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Silent = dict[str, dict[str, str]]  # {"cloud" | "onprem": {route: why}}

ANSWER_S = 1.0  # the router of this host
LEG_S = 3.0  # nobody waits longer for a look at all legs
ASK_S = 10.0  # one small question to a model
EXPERIENCE_S = 60.0
EXPERIENCE_BYTES = 256 * 1024
EXPERIENCE_MIN = 3
READY_PATH = "/health/readiness"  # LiteLLM's; an engine answers 404 to it, which is an answer


@dataclass(frozen=True, slots=True)
class Legs:
    """Legs of a table that nobody should be sent to, and those that are only slow, each with the reason."""

    silent: Silent
    slow: Silent


class NoAnswerError(TimeoutError):
    """Connected, asked, and nothing came in time."""


def http_get(url: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """(status, body) of a plain GET, at most `timeout_s` seconds in all (a name is looked up besides).

    Raises OSError (NoAnswerError once it was connected) or ValueError.

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
        raise NoAnswerError("timed out")
    connection.settimeout(left)
    try:
        return connection.recv(65536)
    except TimeoutError as error:
        raise NoAnswerError("timed out") from error


def health(port: int, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """What the router with this metrics port says of itself. Raises OSError or ValueError."""
    data = json.loads(http_get(f"http://127.0.0.1:{port}", "/health", timeout_s)[1])
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def look(
    table: Mapping[str, Any], router: Mapping[str, Any], records: Path, now: float, routes: Iterable[str] | None = None
) -> Legs:
    """Which legs of a raw hybrid table do not answer, of these routes. `router`: its /health, {} if down."""
    legs = {
        "cloud": dict(table.get("cloud", {})),
        "onprem": dict(table["onprem"].get(router.get("placement"), table["onprem"][table["placement"]])),
    }
    recent = _recent(records, now)
    alive = {
        side: {leg["url"] for r, leg in found.items() if r in _answered(recent, side)} for side, found in legs.items()
    }
    if routes is not None:
        legs = {side: {route: leg for route, leg in found.items() if route in routes} for side, found in legs.items()}
    answers = _each({leg["url"] for found in legs.values() for leg in found.values()}, _problem_of)
    silent: Silent = {"cloud": {}, "onprem": {}}
    slow: Silent = {"cloud": {}, "onprem": {}}
    for side, found in legs.items():
        for route, leg in found.items():
            problem, connected = answers[leg["url"]]
            if problem and connected and leg["url"] in alive[side]:
                slow[side][route] = f"{problem}, but it answered others in the last {EXPERIENCE_S:.0f} s"
            elif problem:
                silent[side][route] = problem
    for route, leg in legs["onprem"].items():
        if leg["model"] in router.get("breakers_open", ()):
            silent["onprem"].setdefault(route, f"the breaker of {leg['model']} is open")
    for route, count in _failing_cloud(recent).items():
        if route in legs["cloud"]:
            silent["cloud"].setdefault(route, f"the last {count} questions to it in {EXPERIENCE_S:.0f} s all failed")
    return Legs(silent, {side: {r: why for r, why in slow[side].items() if r not in silent[side]} for side in slow})


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


def _problem_of(url: str) -> tuple[str, bool]:
    """What is wrong with the server there ("": nothing), and whether it took a connection and then said nothing."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "https":  # a handshake would cost more than it tells
            socket.create_connection((parts.hostname or "", parts.port or 443), LEG_S).close()
            return "", False
        status, _ = http_get(url, READY_PATH, LEG_S)
    except NoAnswerError:
        return f"{url} said nothing within {LEG_S:g} s", True
    except (OSError, ValueError) as error:
        return f"{url} does not answer: {error}", False
    return (f"{url} answers {status}" if status >= 500 else ""), False


def _each(urls: Iterable[str], ask: Callable[[str], tuple[str, bool]]) -> dict[str, tuple[str, bool]]:
    """{url: answer}, all asked at once; whoever is not done in time (a name that is not resolved) does not answer."""
    found = {url: (f"{url} does not answer: nothing came of it within {LEG_S:g} s", False) for url in urls}
    told: dict[str, tuple[str, bool]] = {}

    def one(url: str) -> None:
        told[url] = ask(url)

    threads = [threading.Thread(target=one, args=(url,), daemon=True) for url in found]
    deadline = time.monotonic() + LEG_S + 0.25
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {**found, **dict(told)}


def _answered(recent: Iterable[Mapping[str, Any]], side: str) -> set[str]:
    """Routes that this side answered lately."""
    return {str(one.get("route")) for one in recent if one.get("leg") == side and one.get("outcome") == "ok"}


def _failing_cloud(recent: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """{route: count} of routes whose latest cloud attempts, at least three, all failed."""
    counts: dict[str, list[int]] = {}
    for record in recent:
        if record.get("leg") == "cloud":
            good, bad = counts.setdefault(str(record.get("route")), [0, 0])
            failed = record.get("outcome") in ("error", "timeout")
            counts[str(record.get("route"))] = [good + (not failed), bad + failed]
    return {route: bad for route, (good, bad) in counts.items() if not good and bad >= EXPERIENCE_MIN}


def _recent(records: Path, now: float) -> list[dict[str, Any]]:
    """What the hybrid router recorded in the last minute (of the end of its file)."""
    try:
        with (records / "requests-hybrid.jsonl").open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - EXPERIENCE_BYTES))
            lines = handle.read().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            data = json.loads(line)
        except ValueError:
            continue  # the first line was cut by the seek
        if isinstance(data, dict) and float(data.get("t", 0)) > now - EXPERIENCE_S:
            found.append(data)
    return found
