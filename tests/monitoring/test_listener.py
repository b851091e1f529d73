"""The listener: when silence is an alarm, who may speak to it, and what it does with nonsense and a full disk."""

from __future__ import annotations

import json
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mail_server import mail_server
from monitor import get, post

from gpu_cutover.monitoring import heard
from gpu_cutover.monitoring.listener import Listener, armed_by, by_mail, handler


def message(name: str, status: str = "firing") -> dict[str, Any]:
    return {"alerts": [{"status": status, "labels": {"alertname": name, "host": "gpu1"}, "annotations": {}}]}


def memory(patience_s: float = 100.0) -> heard.Heard:
    return heard.Heard(started=1000.0, patience_s=patience_s, armed=True)


def test_silence_is_counted_from_the_start_until_the_watchdog_is_heard() -> None:
    found = memory()
    assert (found.is_silent(1100.0), found.is_silent(1100.1)) == (False, True)
    found.take(heard.notices(message("Watchdog"), 1150.0))
    assert (found.is_silent(1250.0), found.is_silent(1250.1)) == (False, True)


def test_other_alerts_are_not_the_watchdog_nor_is_its_end() -> None:
    found = memory()
    found.take(heard.notices(message("SealBroken"), 1090.0))
    found.take(heard.notices(message("Watchdog", "resolved"), 1090.0))
    assert found.is_silent(1101.0)


def test_before_a_monitor_was_ever_heard_nobody_is_told_that_it_is_silent(tmp_path: Path) -> None:
    fresh = Listener(heard.Heard(1000.0, 100.0), tmp_path / "alarms.jsonl", "gw1", {})
    assert fresh.memory.to_tell(9000.0) is None
    fresh.take(message("Watchdog"), 9000.0)
    assert fresh.memory.to_tell(9101.0) == "firing"
    assert armed_by(tmp_path / "alarms.jsonl").exists(), "a listener that is started again knows"


def test_people_are_told_once_again_every_hour_and_when_it_is_over() -> None:
    found = memory()
    assert found.to_tell(1050.0) is None
    assert found.to_tell(1101.0) == "firing"
    found.was_told("firing", 1101.0)
    assert found.to_tell(1102.0) is None
    assert found.to_tell(1101.0 + heard.AGAIN_S) == "firing"
    found.take(heard.notices(message("Watchdog"), 9000.0))
    assert found.to_tell(9001.0) == "resolved"
    found.was_told("resolved", 9001.0)
    assert found.to_tell(9002.0) is None


def test_a_clock_that_jumps_back_is_no_silence() -> None:
    found = memory()
    found.take(heard.notices(message("Watchdog"), 5000.0))
    assert not found.is_silent(4000.0)


def listener(directory: Path, **ways: Any) -> Listener:
    return Listener(memory(), directory / "alarms.jsonl", "gw1", ways)


def test_a_way_that_fails_is_tried_again_and_the_others_are_not_kept_from_it(tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []

    def broken(_: dict[str, Any]) -> None:
        raise OSError("no route to host")

    only_broken = listener(tmp_path, mail=broken)
    only_broken.look(1101.0)
    assert only_broken.memory.told is None
    assert 'failed_total{way="mail"} 1' in only_broken.metrics(1101.0)
    only_broken.look(1102.0)
    assert 'failed_total{way="mail"} 1' in only_broken.metrics(1102.0), "not every second"
    only_broken.look(1140.0)
    assert 'failed_total{way="mail"} 2' in only_broken.metrics(1140.0)
    both = listener(tmp_path, mail=broken, webhook=got.append)
    both.look(1101.0)
    both.look(1102.0)
    assert [one["status"] for one in got] == ["firing"]


def test_a_full_disk_loses_the_line_and_not_the_alarm(tmp_path: Path) -> None:
    made = Listener(memory(), tmp_path / "missing" / "alarms.jsonl", "gw1", {})
    made.take(message("SealBroken"), 1001.0)
    assert [notice["alert"] for notice in made.told(0, 1002.0)["notices"]] == ["SealBroken"]
    assert "gpu_cutover_alarms_not_kept_total 1" in made.metrics(1002.0)


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, Listener]]:
    made = listener(directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made, []))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", made
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("nonsense", [[], {}, {"alerts": 1}, {"alerts": [{}]}, "x", None, {"alerts": [None]}])
def test_nonsense_is_refused_and_changes_nothing(nonsense: Any, tmp_path: Path) -> None:
    with served(tmp_path) as (address, made):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(f"{address}/alerts", nonsense)
        assert get(f"{address}/alarms?since=0")["notices"] == []
        assert made.memory.watchdog is None


def test_who_is_not_the_monitor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_cutover.monitoring.listener.LOOPBACK", "192.0.2.1")
    with served(tmp_path) as (address, made):
        for ask in (lambda: post(f"{address}/alerts", message("Watchdog")), lambda: get(f"{address}/alarms")):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                ask()
        assert made.memory.watchdog is None


def test_only_what_came_since_is_told(tmp_path: Path) -> None:
    made = listener(tmp_path)
    made.take(message("SealBroken"), 1001.0)
    made.take(message("EngineDown"), 1005.0)
    assert [notice["alert"] for notice in made.told(1004.0, 1006.0)["notices"]] == ["EngineDown"]
    lines = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert [line["alert"] for line in lines] == ["SealBroken", "EngineDown"]


def test_a_silent_monitor_is_mailed_over_a_connection_that_is_encrypted_and_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server(tmp_path) as server:
        send = by_mail(f"localhost:{server.port}", "monitor@clinic.test", "on-call@clinic.test")
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            send(heard.own_alarm("gw1", "firing", 301.0, 300.0))
        assert server.mails == []
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        send(heard.own_alarm("gw1", "firing", 301.0, 300.0))
    (mail,) = server.mails
    assert "Subject: [firing] MonitorSilent gw1" in mail
    assert "The monitor has been silent for 301 s" in mail
