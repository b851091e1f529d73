"""What a mirror does to the answers that callers wait for: off and on in paired rounds, at a steady pace.

The primary takes 20 ms (20 MB recordings: as long as they take); its copy goes to an engine that is healthy, takes 4 s,
or is not there. Off and on are the same process, one right after the other, first one first and then the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import printing

from . import configs
from .contestants import Field
from .figures import Change, paired_change, percentile
from .jobs import AUDIO_MB, OPENAI, Request, request

CONDITIONS = {
    "healthy": "healthy",
    "slow": "takes 4 s",
    "dead": "not there",
    "20mb": f"healthy, {AUDIO_MB} MB recordings",
}
LIMIT = 0.02
SECONDS, AUDIO_S, AUDIO_RATE = 1.4, 2.0, 2.0
WARM_S = 0.3


@dataclass(slots=True)
class Mirrored:
    """A gateway: its port, requests with the mirror off and on by condition, and how hard it is asked."""

    name: str
    port: int
    off: Mapping[str, Request]
    on: Mapping[str, Request]
    rate: float  # chats a second: a share of what it can
    rounds: int
    results: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)


def run(arena: Field, ports: Mapping[str, int]) -> None:
    """Measure and print. `ports`: of nginx, Envoy and LiteLLM where they run."""
    gateways = _gateways(arena, ports)
    before = {name: arena.posts(name) for name in ("onprem", "slow")}
    for number in range(max(one.rounds for one in gateways)):
        for condition in CONDITIONS:
            for one in gateways:
                if number < one.rounds and condition in one.on:
                    _pair(arena, one, condition, number)
    copies = {name: arena.posts(name) - before[name] for name in before}
    for condition, title in CONDITIONS.items():
        print(f"\nmirror on against off; the copy's engine: {title}")
        head = ("p50 off", "p50 on", "p95 off", "p95 on", "failed on", "p50 change, 95 % interval", "p95 change")
        print(f"{'':<34}" + "".join(f"{word:>10}" for word in head[:5]) + f"{head[5]:>28}{head[6]:>28}")
        for one in gateways:
            if (condition, "on") in one.results:
                _tell(one, condition)
    print(f"copies that came: {copies['onprem']} to the healthy engine, {copies['slow']} to the slow one")


def _gateways(arena: Field, ports: Mapping[str, int]) -> list[Mirrored]:
    _, port, _, _ = arena.router("router-mirror", configs.mirror_table(arena.engines))
    routes = {"healthy": "/chat", "slow": "/reason", "dead": "/vision", "20mb": "/audio"}
    sides = {
        tenant: {name: request(_job(name), path, "m", {"x-tenant": tenant}) for name, path in routes.items()}
        for tenant in ("fern", "seri")
    }
    found = [Mirrored("our router", port, sides["fern"], sides["seri"], 50.0, 6)]
    paths = {name: f"/{name}" for name in CONDITIONS}
    for name in ("nginx", "Envoy"):
        if name in ports:
            off = {one: request(_job(one), "/20mb-off" if one == "20mb" else "/off", "m") for one in paths}
            on = {one: request(_job(one), path, "m") for one, path in paths.items()}
            found.append(Mirrored(f"{name} mirror", ports[name], off, on, 50.0, 3))
    if "LiteLLM" in ports:
        headers = {"authorization": f"Bearer {configs.KEY}"}
        chats = ("healthy", "slow", "dead")
        off = {name: request("think", OPENAI["think"], "off", headers) for name in chats}
        on = {name: request("think", OPENAI["think"], name, headers) for name in chats}
        found.append(Mirrored("LiteLLM silent_model", ports["LiteLLM"], off, on, 8.0, 3))
    return found


def _job(condition: str) -> str:
    return "audio" if condition == "20mb" else "think"


def _pair(arena: Field, one: Mirrored, condition: str, number: int) -> None:
    sides = {"off": one.off, "on": one.on}
    for side in ("off", "on") if number % 2 == 0 else ("on", "off"):
        loud = condition == "20mb"
        pace = {"rate": AUDIO_RATE if loud else one.rate, "seconds": AUDIO_S if loud else SECONDS}
        order = {"how": "paced", "port": one.port, "requests": [sides[side][condition]]}
        arena.load.run({**order, **pace, "seconds": WARM_S})
        one.results.setdefault((condition, side), []).append(arena.load.run({**order, **pace}))
        time.sleep(0.2)


def _tell(one: Mirrored, condition: str) -> None:
    off, on = one.results[condition, "off"], one.results[condition, "on"]
    failed = sum(told["bad"] for told in on)
    line, changes = "", []
    for share in (0.5, 0.95):
        sides = [[percentile(told["ms"], share) for told in side if told["ms"]] for side in (off, on)]
        whole = [percentile([ms for told in side for ms in told["ms"]], share) for side in (off, on)]
        line += "".join(f"{value:>10.2f}" for value in whole)
        if len(sides[0]) == len(sides[1]) == one.rounds:
            changes.append(paired_change(*sides))
    told = "".join(f"{_words(change):>28}" for change in changes) if changes else f"{'answers are missing':>28}"
    print(f"{one.name:<34}{line}{failed:>10}{told}", flush=True)
    if one.name == "our router":
        for change, name in zip(changes, ("p50", "p95"), strict=False):
            printing.change(f"  our router: change of primary {name}", *change, LIMIT)


def _words(change: Change) -> str:
    return f"{change.middle:+.1%} [{change.low:+.1%}, {change.high:+.1%}]"
