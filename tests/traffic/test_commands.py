"""`cutover` and `route`: what the days allow, which way a change goes, and what is shown."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.router import readiness
from gpu_cutover.router.orders import Place
from gpu_cutover.traffic import common, cutover_command, judge

from .test_break_glass import HOME, THERE, cut, wait_for
from .two_gateways import ROOT, Site


def promote(site: Site, *days: int, verdict: str = "promote") -> None:
    for day in days:
        Ledger.open(site.directory).append("gate", f"day{day:02d}", {"day": day, "verdict": verdict, "checks": []})


@pytest.mark.parametrize(
    ("tenant", "state", "promoted", "allowed"),
    [
        ("doc-zam", "onprem", 7, False),
        ("doc-zam", "onprem", 8, True),
        ("klinik-seri", "onprem", 8, False),
        ("klinik-seri", "onprem", 9, True),
        ("klinik-seri", "mirror", 6, False),
        ("klinik-seri", "mirror", 7, True),
        ("klinik-seri", "cloud", 0, True),
        ("klinik-seri", "off", 0, True),
    ],
)
def test_a_tenant_moves_when_the_day_that_moves_it_may_start(
    site: Site, tenant: str, state: str, promoted: int, allowed: bool
) -> None:
    promote(site, *range(1, promoted + 1))
    refused = judge.gate_refusal(site.records(), tenant, state, "doc-zam", date(2026, 12, 30))
    assert (refused is None) == allowed


def test_a_waiver_counts_as_it_does_for_the_day(site: Site) -> None:
    promote(site, *range(1, 8))
    promote(site, 8, verdict="hold")
    assert cut(site, "cutover", "doc-zam", "--yes", "--direct") == 10
    waived = ["waive", "8", "--reason", "seen", "--by", "a person", "--until", "2099-01-01"]
    assert cut(site, *waived) == 0
    assert cut(site, "cutover", "doc-zam", "--route", "chat", "--yes", "--direct") == 0


def test_a_cutover_straight_moves_what_the_site_declares_and_is_recorded(site: Site) -> None:
    promote(site, *range(1, 10))
    cut(site, "rollback", "--route", "chat")
    assert cut(site, "cutover", "klinik-seri", "--route", "chat", "--yes", "--direct") == 0
    expected = {**HOME["doc-zam"], "audio": "onprem"}
    assert site.states()["gw2"] == {**THERE, "doc-zam": expected}
    record = site.records()[-1]
    assert (record.kind, record.name, record.data["to"]) == ("cutover", "klinik-seri", "onprem")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["cutover", "nobody", "--yes"], 2),
        (["cutover", "klinik-harmoni", "--yes"], 2),
        (["cutover", "doc-zam", "--route", "vissionn", "--yes"], 2),
        (["cutover", "doc-zam", "--yes"], 10),
        (["cutover", "doc-zam"], 10),
        (["route", "set", "nobody", "chat", "off", "--yes"], 2),
        (["route", "set", "doc-zam", "telepathy", "off", "--yes"], 2),
        (["route", "set", "doc-zam", "chat", "moon", "--yes"], 2),
        (["route", "set", "doc-zam", "chat", "off"], 2),
        (["route", "set", "doc-zam", "chat", "onprem", "--yes"], 10),
        (["route", "set", "klinik-amanah", "chat", "cloud", "--yes"], 2),
        (["route", "set", "klinik-harmoni", "chat", "off", "--yes"], 2),
        (["route", "breaker", "nothing", "open"], 2),
        (["route", "breaker", "own-chat", "ajar"], 2),
    ],
)
def test_what_may_not_be_changes_nothing(site: Site, words: list[str], code: int) -> None:
    assert cut(site, *words) == code
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert site.records() == []


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["cutover", "klinik-seri"], "cutover"),
        (["route", "set", "klinik-seri", "chat", "onprem"], "cutover"),
        (["route", "set", "klinik-seri", "chat", "mirror"], "cutover"),
        (["route", "set", "klinik-seri", "chat", "off", "--ansible"], "cutover"),
        (["rollback", "klinik-seri", "--ansible"], "rollback"),
        (["rollback", "--all", "--ansible"], "rollback"),
        (["rollback", "--route", "chat", "--ansible"], "rollback"),
        (["rollback", "klinik-seri"], ""),
        (["route", "set", "klinik-seri", "chat", "off"], ""),
        (["route", "set", "klinik-seri", "chat", "cloud"], ""),
        (["cutover", "klinik-seri", "--route", "chat", "--direct"], ""),
    ],
)
def test_away_from_our_machine_goes_straight_and_onto_it_through_ansible(
    site: Site, words: list[str], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(site, *range(1, 10))
    taken: list[str] = []

    def through(_site: Path, chosen: str, variables: dict[str, str], _args: Any) -> int:
        taken.append(chosen)
        assert "" not in variables.values()
        return 0

    monkeypatch.setattr(cutover_command, "through_ansible", through)
    monkeypatch.setattr("gpu_cutover.traffic.rollback_command.through_ansible", through)
    assert cut(site, *words, *([] if words[0] == "rollback" else ["--yes"])) == 0
    assert taken == ([verb] if verb else [])


def test_what_ansible_is_told_is_what_its_playbook_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(site, *range(1, 10))
    told: dict[str, Any] = {}

    def run_verb(_site: Path, verb: str, variables: dict[str, str], *_: Any, **__: Any) -> tuple[Any, Any]:
        told.update(variables, verb=verb)
        raise KeyboardInterrupt

    monkeypatch.setattr("gpu_cutover.runs.play_command.run_verb", run_verb)
    with pytest.raises(KeyboardInterrupt):
        cut(site, "rollback", "doc-zam", "--route", "chat", "--ansible", "--reason", "noise")
    assert told == {"verb": "rollback", "tenant": "doc-zam", "route": "chat", "reason": "noise"}
    assert common.REASON == "ordered"


def test_show_tells_everything_that_is_not_as_it_should_be(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(site, "route", "show") == 0
    shown = capsys.readouterr().out
    assert "gw2, sealed: version 1" in shown
    assert "klinik-seri     –       onprem  mirror" in shown
    site.gateways["gw1"].routers["hybrid"].lag = -1
    site.gateways["gw2"].routers["sealed"].stop()
    cut(site, "rollback", "--model", "own-chat", "--degraded")
    capsys.readouterr()
    site.servers["gw2"].stop()
    assert cut(site, "route", "show") == 10
    shown = capsys.readouterr().out
    assert "model own-chat is rolled back" in shown
    assert "gw2 NOT ASKED" in shown


def test_show_as_json_holds_the_same(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(site, "route", "show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gateways"]["gw1"]["states"]["doc-zam"] == THERE["doc-zam"]
    assert (shown["lost"], shown["differences"]) == ({}, [])


def test_a_breaker_is_held_shown_and_given_back(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(site, "route", "breaker", "own-chat", "open", "--reason", "bad answers") == 0
    for gateway in site.gateways.values():
        assert json.loads(gateway.place.table("hybrid").read_bytes())["overrides"] == {"own-chat": "open"}
    assert cut(site, "route", "show") == 0
    assert "breaker of own-chat is held open" in capsys.readouterr().out
    assert cut(site, "route", "breaker", "own-chat", "auto") == 0
    assert "overrides" not in json.loads(site.gateways["gw1"].place.table("hybrid").read_bytes())
    assert [record.data["breaker"] for record in site.records()] == ["open", "auto"]


# --- the real router ----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def real_router(place: Place, port: int) -> Iterator[None]:
    """The hybrid pool's router as it runs on a gateway, on a gateway's table."""
    log = place.tables / "log"
    log.mkdir()
    command = [sys.executable, "-m", "gpu_cutover.router.main", "--table", str(place.table("hybrid"))]
    command += ["--pool", "hybrid", "--port", str(free_port()), "--log-dir", str(log)]
    command += ["--metrics-host", "127.0.0.1", "--metrics-port", str(port)]
    with subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: process.poll() is not None or answers(port), 40)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=30)


def answers(port: int) -> bool:
    try:
        return bool(readiness.health(port))
    except (OSError, ValueError):
        time.sleep(0.1)
        return False


def test_real_routers_confirm_a_rollback_and_an_override(site: Site) -> None:
    with ExitStack() as running:
        for gateway in site.gateways.values():
            port = free_port()
            gateway.place = Place(
                gateway.folder, gateway.place.journal, gateway.folder, {**gateway.place.ports, "hybrid": port}
            )
            running.enter_context(real_router(gateway.place, port))
        assert cut(site, "route", "breaker", "own-chat", "open") == 0
        assert cut(site, "rollback", "--all") == 0
        for gateway in site.gateways.values():
            said = readiness.health(gateway.place.ports["hybrid"])
            assert said["table_version"] == 3
            assert said["breakers_open"] == ["own-chat"]
    data = site.records()[-1].data
    assert [one["readback"]["hybrid"]["version"] for one in data["gateways"].values()] == [3, 3]
