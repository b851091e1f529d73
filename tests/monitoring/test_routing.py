"""Where alerts go: severity decides, a lost host silences its services, and a real Alertmanager does as configured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from monitor import alertmanager, eventually, free_port, get, mailbox, post, program, running

from gpu_cutover.monitoring import heard, routing
from gpu_cutover.monitoring.alerts import PAGE, TICKET, WATCHDOG

MAIL = {"to": "on-call@clinic.test", "sender": "monitor@clinic.test", "smarthost": "mail.clinic.test:587"}
FULL = routing.Ways(["http://10.0.0.1:9405/alerts"], 60, "http://pager.clinic.test/hook", MAIL)


def amtool(directory: Path, ways: routing.Ways, *arguments: str) -> str:
    path = directory / "alertmanager.yml"
    path.write_text(routing.text(ways))
    where = [f"--config.file={path}"] if arguments[0] == "config" else [str(path)]
    ran = subprocess.run([program("amtool"), *arguments, *where], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "ways",
    [FULL, replace(FULL, mail=None), replace(FULL, webhook=""), replace(FULL, listeners=[]), routing.Ways([], 5)],
)
def test_the_checker_accepts_what_any_site_can_declare(ways: routing.Ways, tmp_path: Path) -> None:
    assert "SUCCESS" in amtool(tmp_path, ways, "check-config")
    assert routing.text(ways) == routing.text(ways)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=HostLost", "severity=page"], PAGE),
        (["alertname=UnitRestarted", "severity=ticket"], TICKET),
        ([f"alertname={WATCHDOG}", "severity=none"], "watchdog"),
        (["alertname=SomebodyElses"], TICKET),
    ],
)
def test_severity_decides_who_hears_of_it(labels: list[str], receiver: str, tmp_path: Path) -> None:
    assert amtool(tmp_path, FULL, "config", "routes", "test", *labels) == receiver


def urls(name: str, ways: routing.Ways = FULL) -> tuple[list[str], list[str]]:
    """Webhook addresses and mail addresses of a receiver."""
    (one,) = [receiver for receiver in routing.configuration(ways)["receivers"] if receiver["name"] == name]
    mails = [f"{mail['from']} {mail['to']}" for mail in one.get("email_configs", [])]
    return [hook["url"] for hook in one.get("webhook_configs", [])], mails


def test_a_page_goes_every_way_a_ticket_disturbs_nobody_and_the_watchdog_only_the_listeners() -> None:
    mails = ["monitor@clinic.test on-call@clinic.test"]
    assert urls(PAGE) == ([FULL.listeners[0], FULL.webhook], mails)
    assert urls(TICKET) == ([FULL.listeners[0]], mails)
    assert urls("watchdog") == ([FULL.listeners[0]], [])


def test_without_mail_a_ticket_takes_the_webhook_rather_than_be_lost() -> None:
    assert urls(TICKET, replace(FULL, mail=None)) == ([FULL.listeners[0], FULL.webhook], [])


def alert(name: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, **labels}, "annotations": {"summary": f"{name} says so"}}


def test_a_lost_host_silences_its_services_and_nobody_elses(tmp_path: Path) -> None:
    with alertmanager(tmp_path, routing.text(routing.Ways([], 5))) as address:
        post(
            f"{address}/api/v2/alerts",
            [
                alert("HostLost", host="gpu1"),
                alert("EngineDown", host="gpu1", model="m"),
                alert("TargetDown", host="gpu1", job="guard"),
                alert("TargetDown", host="gw1", job="edge"),
                alert("GpuDerated", host="gpu9", gpu="2"),
                alert("GpuMarginSmall", host="gpu9", gpu="2"),
                alert("GpuMarginSmall", host="gpu9", gpu="3"),
                alert("BudgetBurnsFast", objective="soap_p95_s"),
                alert("BudgetRunsOut", objective="soap_p95_s"),
                alert("BudgetRunsOut", objective="whisper_p95_s"),
                alert(WATCHDOG),
            ],
        )

        def silenced() -> set[tuple[str, ...]]:
            found = [one for one in get(f"{address}/api/v2/alerts") if one["status"]["state"] == "suppressed"]
            return {tuple(value for _, value in sorted(one["labels"].items())) for one in found}

        expected = {
            ("EngineDown", "gpu1", "m"),
            ("TargetDown", "gpu1", "guard"),
            ("GpuMarginSmall", "2", "gpu9"),
            ("BudgetRunsOut", "soap_p95_s"),
        }
        eventually(lambda: silenced() == expected)
        assert silenced() == expected


@contextmanager
def listener(directory: Path, patience_s: float, *arguments: str) -> Iterator[str]:
    """The daemon as a process; its address."""
    port = free_port()
    command = [sys.executable, "-m", "gpu_cutover.monitoring.listener", "--host", "gw1", "--port", str(port)]
    command += ["--patience", str(patience_s), "--log", str(directory / "alarms.jsonl"), *arguments]
    with running(command, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


def names(told: dict[str, Any]) -> list[str]:
    return [f"{notice['alert']} {notice['status']}" for notice in told["notices"]]


def test_an_alert_reaches_the_listener_and_the_house_and_a_dead_monitor_is_told_by_the_listener(tmp_path: Path) -> None:
    """Alertmanager, listener and the house's webhook as they run: the watchdog comes, then the monitor dies."""
    with mailbox() as (house, got), listener(tmp_path, 8, "--webhook", house) as own:
        ways = routing.Ways([f"{own}/alerts"], 1, house)
        with alertmanager(tmp_path, routing.text(ways)) as address:
            post(f"{address}/api/v2/alerts", [alert(WATCHDOG, severity="none"), alert("SealBroken", severity="page")])
            assert eventually(lambda: "SealBroken firing" in names(get(f"{own}/alarms?since=0")))
            told = get(f"{own}/alarms?since=0")
            assert told["watchdog_age_s"] is not None
            assert told["silent"] is False
            assert eventually(lambda: got)
            assert {one["labels"]["alertname"] for message in got for one in message["alerts"]} == {"SealBroken"}
        assert eventually(lambda: "MonitorSilent firing" in names(get(f"{own}/alarms?since=0")))
        assert get(f"{own}/alarms?since=0")["silent"] is True
        assert got[-1]["alerts"][0]["labels"] == {"alertname": "MonitorSilent", "severity": "page", "host": "gw1"}
        with alertmanager(tmp_path, routing.text(ways)) as address:
            post(f"{address}/api/v2/alerts", [alert(WATCHDOG, severity="none")])
            assert eventually(lambda: "MonitorSilent resolved" in names(get(f"{own}/alarms?since=0")))
        assert got[-1]["status"] == "resolved"
    kept = (tmp_path / "alarms.jsonl").read_text()
    assert "SealBroken" in kept
    assert heard.WATCHDOG not in kept
    with listener(tmp_path, 60) as again:
        assert "SealBroken firing" in names(get(f"{again}/alarms?since=0")), "what was kept survives a restart"
