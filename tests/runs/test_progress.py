"""Events of a run as lines for a person."""

from __future__ import annotations

from io import StringIO
from typing import Any

from gpu_cutover.runs.progress import EventFeed, PlainProgress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def feed(stream: StringIO, log: StringIO, clock: Clock) -> EventFeed:
    eta = {0: 90.0}
    return EventFeed("day 4, inference stack", PlainProgress(stream, clock), log, eta.get, clock)


def task(name: str, role: str = "", pattern: str = "gateway") -> dict[str, Any]:
    data = {"task": name, "role": role, "play_pattern": pattern}
    return {"event": "playbook_on_task_start", "event_data": data, "stdout": f"TASK [{name}]"}


def test_one_line_a_role_and_nothing_stored() -> None:
    stream, log, clock = StringIO(), StringIO(), Clock()
    handle = feed(stream, log, clock)
    play = {"event": "playbook_on_play_start", "event_data": {}}
    events = [
        play,
        task("Validating arguments against arg spec 'main' - The provider layer", "litellm"),
        task("Write its configuration", "litellm"),
        task("Start it", "litellm"),
        task("Write the table", "router"),
        play,
        task("Judge"),
    ]
    assert [handle(event) for event in events] == [False] * len(events)
    assert stream.getvalue().splitlines() == [
        "[ 0:00] day 4, inference stack · litellm: The provider layer · gateway · about 1:30 left",
        "[ 0:00] day 4, inference stack · router: Write the table · gateway",
        "[ 0:00] day 4, inference stack · Judge · gateway",
    ]
    assert "TASK [Start it]" in log.getvalue()


def test_a_slow_task_and_trouble_are_told() -> None:
    stream, log, clock = StringIO(), StringIO(), Clock()
    handle = feed(stream, log, clock)
    handle(task("Start it", "litellm"))
    handle({"event": "runner_on_start", "event_data": {"host": "gw1"}})
    clock.now = 20.0
    handle({"event": "runner_on_failed", "event_data": {"host": "gw1", "res": {"msg": "no\nunit"}}})
    handle({"event": "runner_on_failed", "event_data": {"host": "gw2", "res": {}, "ignore_errors": True}})
    handle(task("Look", "litellm"))
    assert stream.getvalue().splitlines()[1:] == [
        "[ 0:20] ! gw1: no unit",
        "[ 0:20] took 0:20: litellm: Start it · gateway",
    ]


def test_events_without_data_are_no_trouble() -> None:
    handle = feed(StringIO(), StringIO(), Clock())
    assert handle({"event": "verbose", "stdout": "words"}) is False
    assert handle({"event": "runner_on_unreachable", "event_data": {"host": "gw1"}}) is False
    assert handle({"event": "playbook_on_stats"}) is False
