"""Twenty flips under 10,000 requests with 64 streams open, through the edge: what failed, what broke, who served."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import printing

from . import configs
from .contestants import Field
from .jobs import OPENAI, request

FLIPS, REQUESTS, STREAMS, CONNECTIONS = 20, 10_000, 64, 8
EVENTS, GAP_MS, SETTLE_S = 400, 100, 1.5
PAUSE_S = 0.3
TENANT = "zam"


def run(arena: Field) -> None:
    """Measure and print."""
    from gpu_cutover.router.orders import Place

    _, port, metrics_port, file = arena.router("router-flips", _table(arena))
    paths = {"chat": "/chat", "vision": "/vision"}
    _, edge_port, tls = arena.edge("edge-flips", port, metrics_port, paths)
    _wait(arena, edge_port, tls[TENANT])
    place = Place(file.parent, file.parent / "changes.jsonl", file.parent, {"hybrid": metrics_port})
    chat = request("chat", "/chat", "m")
    stream = request("stream", "/vision", "m")
    stream["json"]["max_tokens"] = EVENTS
    order = {"how": "held", "port": edge_port, "tls": tls[TENANT], "requests": [chat], "streams": [stream] * STREAMS}
    arena.load.send({**order, "connections": CONNECTIONS, "count": REQUESTS, "settle_s": SETTLE_S})
    opened = arena.load.read()["open"]
    flips, over = [], threading.Event()
    flipper = threading.Thread(target=lambda: flips.extend(_flip(place, over)))
    flipper.start()
    told = arena.load.read()
    over.set()
    flipper.join()
    _tell(told, flips, opened)


def _table(arena: Field) -> dict[str, Any]:
    def legs(port: int) -> dict[str, Any]:
        url = f"http://127.0.0.1:{port}"
        chat = {"url": url, "path": OPENAI["chat"], "model": "model-chat", "version": "w1"}
        return {"chat": chat, "vision": {**chat, "path": f"/g{GAP_MS}{OPENAI['chat']}", "model": "model-vision"}}

    return configs.routes_table(legs(arena.engines.onprem), legs(arena.engines.cloud))


def _wait(arena: Field, port: int, tls: dict[str, str]) -> None:
    order = {"how": "closed", "port": port, "tls": tls, "requests": [request("chat", "/chat", "m")]}
    for _ in range(40):
        if not arena.load.run({**order, "connections": 1, "count": 1})["bad"]:
            return
        time.sleep(0.1)
    raise RuntimeError("the edge never served its router")


def _flip(place: Any, over: threading.Event) -> list[tuple[str, float, float]]:
    """[(state, asked, confirmed by the router)]: every route of the tenant, there and back."""
    from gpu_cutover.router.orders import carry_out, parse_order

    made: list[tuple[str, float, float]] = []
    for number in range(FLIPS):
        if over.wait(PAUSE_S):
            break
        state = ("cloud", "onprem")[number % 2]
        order = {"do": "set", "id": uuid.uuid4().hex, "by": "bench", "path": "break-glass"}
        asked = time.monotonic()
        answer = carry_out(parse_order({**order, "states": {TENANT: {"chat": state, "vision": state}}}), place)
        if answer["outcome"] != "done":
            raise RuntimeError(f"a flip was not confirmed: {answer}")
        made.append((state, asked, time.monotonic()))
    return made


def _tell(told: dict[str, Any], flips: list[tuple[str, float, float]], opened: int) -> None:
    asked = told["asked"]
    failed = sum(status != 200 for _, _, status, _ in asked)
    intact = sum(_intact(stream) for stream in told["streams"])
    late, first, times = _judged(asked, flips)
    took = sorted(done - begun for _, begun, done in flips)
    printing.show(f"flips under {len(asked)} requests", str(len(flips)), f"{FLIPS}", len(flips) == FLIPS)
    printing.show("  requests that failed", str(failed), "0", failed == 0)
    printing.show("  first request after a flip served by the new leg", f"{first} of {times}", "all", first == times)
    printing.show("  requests begun after a flip and served by the old leg", str(late), "0", late == 0)
    printing.show(f"  streams intact ({opened} open before, {told['open_at_end']} after the last request)",
                  f"{intact} of {STREAMS}", "all", intact == STREAMS)  # fmt: skip
    if took:
        printing.show(
            "  a flip, from the order until the router confirmed it (median)", f"{took[len(took) // 2] * 1000:.0f} ms"
        )


def _judged(asked: list[Any], flips: list[tuple[str, float, float]]) -> tuple[int, int, int]:
    """(requests served by the old leg, first requests served by the new leg, flips that a request followed).

    A request that was under way when the next flip began may be served by either leg.
    """
    late = first = times = 0
    ends = [begun for _, begun, _ in flips[1:]] + [float("inf")]
    for (state, _, done), end in zip(flips, ends, strict=True):
        after = sorted(one for one in asked if done <= one[0] and one[1] <= end)
        late += sum(one[2] == 200 and one[3] != state for one in after)
        times += bool(after)
        first += bool(after) and after[0][3] == state
    return late, first, times


def _intact(stream: dict[str, Any]) -> bool:
    """All events, a clean end, and all of it from the leg that began it."""
    if stream["status"] != 200 or not stream["done"] or stream["events"] < EVENTS:
        return False
    return bool(stream["said_by"] == [stream["served_by"]])
