"""The reading of day 7, taken from a real Prometheus, a real Alertmanager and the listener's own handler."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from monitor import OWN, SETTINGS, alertmanager, eventually, pages, prometheus

from gpu_cutover.monitoring import heard, routing, rules
from gpu_cutover.monitoring.listener import Listener, handler
from gpu_cutover.probes import monitoring

TEXT = rules.text(SETTINGS)
NAMES = rules.names(rules.rule_file(SETTINGS))


@dataclass(frozen=True)
class Monitor:
    """Its address, its rule file, and the targets that are up and down."""

    address: str
    rules: Path
    up: list[str]
    down: list[str]


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    directory = tmp_path_factory.mktemp("monitor")
    with ExitStack() as stack:
        ends = stack.enter_context(pages({"/metrics": lambda: "gpu_cutover_certificate_not_after_seconds 4e9\n"}))
        alerts = stack.enter_context(alertmanager(directory, routing.text(routing.Ways([], 5))))
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alerts.removeprefix("http://")]}]}]},
            "scrape_configs": [
                {"job_name": "node", "static_configs": [{"targets": [ends, "127.0.0.1:9"]}]},
                {"job_name": "prometheus", "static_configs": [{"targets": [OWN]}]},
            ],
        }
        address = stack.enter_context(prometheus(directory, config, TEXT))
        own = f"prometheus {address.removeprefix('http://')}"
        yield Monitor(address, directory / "rules.yml", sorted([f"node {ends}", own]), ["node 127.0.0.1:9"])


def read(monitor: Monitor, expected: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    arguments = {"shipped": NAMES, "rules_sha256": rules.digest(TEXT), "path": monitor.rules} | changes
    return monitoring.reading(monitor.address, expected or monitor.up, **arguments)


def test_all_as_shipped_and_scraped_is_complete(monitor: Monitor) -> None:
    assert eventually(lambda: monitoring.complete(read(monitor)))
    found = read(monitor)
    assert found["up"] == monitor.up
    assert (found["rules_shipped"], found["rules_taken_up"]) == (True, True)
    assert (found["rules_missing"], found["rules_foreign"], found["rules_broken"]) == ([], [], [])
    assert found["certificate_days"] > 10_000


def test_what_is_down_and_what_nobody_scrapes_is_told_apart(monitor: Monitor) -> None:
    assert eventually(lambda: read(monitor, monitor.down)["down"])
    found = read(monitor, [*monitor.down, "guard 127.0.0.1:9"])
    assert list(found["down"]) == monitor.down
    assert found["unknown"] == ["guard 127.0.0.1:9"]
    assert not monitoring.complete(found)


def test_rules_other_than_those_shipped_are_seen(monitor: Monitor, tmp_path: Path) -> None:
    assert eventually(lambda: monitoring.complete(read(monitor)))
    assert read(monitor, rules_sha256="0" * 64)["rules_shipped"] is False
    assert read(monitor, shipped=[*NAMES, "Forgotten"])["rules_missing"] == ["Forgotten"]
    assert read(monitor, shipped=NAMES[1:])["rules_foreign"] == NAMES[:1]


def test_a_rule_file_written_after_prometheus_read_it_is_not_taken_up(monitor: Monitor, tmp_path: Path) -> None:
    assert eventually(lambda: monitoring.complete(read(monitor)))
    later = tmp_path / "rules.yml"
    later.write_text(TEXT)
    in_a_minute = time.time() + 60
    os.utime(later, (in_a_minute, in_a_minute))
    assert read(monitor, path=later)["rules_taken_up"] is False


def test_a_monitor_that_does_not_answer_is_an_error_not_an_empty_reading(tmp_path: Path) -> None:
    found = monitoring.reading("http://127.0.0.1:9", [], [], "", tmp_path / "rules.yml")
    assert set(found) == {"error"}
    assert not monitoring.complete(found)


@pytest.fixture
def told() -> Iterator[tuple[str, Listener]]:
    made = Listener(heard.Heard(time.time(), 60.0), Path("/nonexistent/alarms.jsonl"), "gw1", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made, []))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", made
    server.shutdown()
    server.server_close()


def message(name: str) -> dict[str, Any]:
    return {"alerts": [{"status": "firing", "labels": {"alertname": name}}]}


def test_alerts_that_arrived_since_the_drills_and_the_watchdog_are_told(told: tuple[str, Listener]) -> None:
    address, listener = told
    fired = [
        {"alert": "UnitRestarted", "t": 1000.0},
        {"alert": "EngineDown", "t": 2000.0},
        {"alert": "Never", "t": 0.0},
    ]
    listener.take(message("EngineDown"), 999.0)
    found = monitoring.arrived({"gw1": address}, fired)
    assert (found["wanted"], found["since"]) == (["EngineDown", "UnitRestarted"], 1000.0)
    assert found["listeners"]["gw1"]["missing"] == ["EngineDown", "UnitRestarted"]
    assert not monitoring.all_arrived(found)
    for name in ("EngineDown", "UnitRestarted", "Watchdog"):
        listener.take(message(name), time.time())
    found = monitoring.arrived({"gw1": address}, fired)
    assert found["listeners"]["gw1"]["heard"] == ["EngineDown", "UnitRestarted"]
    assert monitoring.all_arrived(found)


def test_a_listener_that_does_not_answer_is_an_error(told: tuple[str, Listener]) -> None:
    found = monitoring.arrived({"gw1": told[0], "gw2": "http://127.0.0.1:9"}, [])
    assert set(found["listeners"]["gw2"]) == {"error"}
    assert not monitoring.all_arrived(found)
