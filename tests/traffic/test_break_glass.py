"""Rollback without Ansible: on all gateways or refused with the reason, keys checked, recorded whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paramiko
import pytest

from gpu_cutover.cli import main
from gpu_cutover.evidence import audit
from gpu_cutover.router.journal import Journal
from gpu_cutover.traffic import gateways as gateways_module
from gpu_cutover.traffic.gateways import Gateways

from .two_gateways import SEALED, TENANTS, Site

HOME = {
    "doc-zam": {"chat": "cloud", "audio": "cloud"},
    "klinik-seri": {"chat": "cloud", "embed": "cloud"},
    "klinik-harmoni": {"chat": "cloud"},
    "drill": {"chat": "off"},
}
THERE = {name: one["routes"] for name, one in TENANTS.items()}
INSIDE = {name: one["routes"] for name, one in SEALED.items()}


def cut(site: Site, *words: str) -> int:
    """The command line, in this process."""
    try:
        return main([*words, "-i", str(site.directory)])
    except SystemExit as end:
        return int(end.code or 0)


def test_everybody_is_back_on_both_gateways_and_one_record_says_so(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut(site, "rollback", "--all", "--reason", "the machine burns") == 0
    assert site.states() == {"gw1": HOME, "gw2": HOME}
    assert site.states("sealed") == {"gw1": INSIDE, "gw2": INSIDE}
    said = capsys.readouterr().out
    assert "doc-zam: audio onprem → cloud, chat onprem → cloud" in said
    assert "klinik-amanah/chat stays onprem: a sensitive tenant never goes to the cloud" in said
    (record,) = site.records()
    assert (record.kind, record.name) == ("rollback", "all")
    data = record.data
    assert (data["path"], data["reason"], data["to"], data["all"]) == (
        "break-glass",
        "the machine burns",
        "cloud",
        True,
    )
    assert set(data["gateways"]) == set(data["readback"]) == {"gw1", "gw2"}
    assert data["gateways"]["gw2"]["readback"]["hybrid"] == {"version": 2, "problem": ""}
    assert data["before"]["doc-zam"] == {"chat": "onprem", "audio": "onprem"}
    assert data["after"]["doc-zam"] == {"chat": "cloud", "audio": "cloud"}
    assert (data["stale"], data["unknown"]) == ({}, {})
    assert audit.verify(site.directory) == []


def test_a_second_rollback_has_nothing_to_do_and_records_nothing(site: Site) -> None:
    assert cut(site, "rollback", "--all") == 0
    assert cut(site, "rollback", "--all") == 0
    assert len(site.records()) == 1


@pytest.mark.parametrize(
    ("words", "moved", "name"),
    [
        (["doc-zam"], {"doc-zam": HOME["doc-zam"]}, "doc-zam"),
        (["doc-zam", "--route", "chat"], {"doc-zam": {"chat": "cloud", "audio": "onprem"}}, "doc-zam"),
        (["--route", "embed"], {"klinik-seri": {"chat": "onprem", "embed": "cloud"}}, "chat"),
    ],
)
def test_only_what_was_named_moves(site: Site, words: list[str], moved: dict[str, Any], name: str) -> None:
    assert cut(site, "rollback", *words) == 0
    expected = {**THERE, **moved}
    assert site.states() == {"gw1": expected, "gw2": expected}
    assert site.records()[0].name in (name, "embed")


def test_a_model_goes_out_and_comes_back(site: Site) -> None:
    assert cut(site, "rollback", "--model", "own-chat") == 0
    assert cut(site, "rollback", "--model", "own-chat", "--clear") == 0
    out, back = site.records()
    assert (out.kind, out.name, out.data["to"]) == ("rollback", "own-chat", "cloud")
    assert out.data["after"] == {"doc-zam": {"chat": "cloud"}, "klinik-seri": {"chat": "cloud"}}
    assert (back.kind, back.data["to"]) == ("cutover", "onprem")
    assert site.states() == {"gw1": THERE, "gw2": THERE}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["doc-zam", "--all"],
        ["--model", "own-chat", "--all"],
        ["doc-zam", "--model", "own-chat"],
        ["--all", "--clear"],
        ["nobody"],
        ["--model", "nothing"],
        ["--route", "nowhere", "doc-zam"],
        ["--all", "--ansible", "--degraded"],
        ["klinik-amanah"],
    ],
)
def test_wrong_words_change_nothing_and_end_with_2(site: Site, words: list[str]) -> None:
    assert cut(site, "rollback", *words) == 2
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert site.records() == []


def test_a_sensitive_tenant_stays_or_goes_off_and_never_to_the_cloud(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut(site, "rollback", "klinik-amanah") == 2
    assert "klinik-amanah is sensitive: it has no cloud to go back to" in capsys.readouterr().err
    assert cut(site, "rollback", "klinik-amanah", "--accept-off") == 0
    off = {"klinik-amanah": {"chat": "off", "audio": "off"}}
    assert site.states("sealed") == {"gw1": off, "gw2": off}
    assert site.records()[0].data["after"] == off


def test_a_dry_run_tells_and_leaves_no_trace(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(site, "rollback", "--all", "--check") == 0
    assert "doc-zam: audio onprem → cloud" in capsys.readouterr().out
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert site.records() == []


# --- a gateway that is not as it should be ------------------------------------------------------------------------


def test_an_unreachable_gateway_refuses_and_names_what_would_be_stale(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.servers["gw2"].stop()
    assert cut(site, "rollback", "--all") == 10
    said = capsys.readouterr().err
    assert "gw2: cannot be reached" in said
    assert "gw2 would go on with: doc-zam audio onprem, chat onprem; klinik-seri chat onprem, embed mirror." in said
    assert "--degraded" in said
    assert site.states() == {"gw1": THERE, "gw2": THERE}


def test_degraded_acts_on_the_rest_and_command_and_record_say_what_is_stale(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.servers["gw2"].stop()
    assert cut(site, "rollback", "--all", "--degraded") == 0
    assert site.states() == {"gw1": HOME, "gw2": THERE}
    assert "gw2 is stale: it goes on as before" in capsys.readouterr().out
    (record,) = site.records()
    assert list(record.data["gateways"]) == ["gw1"]
    assert "cannot be reached" in record.data["stale"]["gw2"]


def test_with_no_gateway_at_all_it_says_so(site: Site) -> None:
    for server in site.servers.values():
        server.stop()
    assert cut(site, "rollback", "--all", "--degraded") == 10
    assert site.records() == []


@pytest.mark.parametrize("wrong", ["another key", "no key", "revoked"])
def test_a_gateway_whose_host_key_is_not_the_recorded_one_is_never_told_anything(
    site: Site, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {name: server.host_key for name, server in site.servers.items()}
    site.know({"gw1": keys["gw1"]} if wrong == "no key" else {**keys, "gw2": paramiko.ECDSAKey.generate()})
    if wrong == "revoked":
        site.know(keys)
        with (site.directory / "records" / "known_hosts").open("a") as handle:
            handle.write(f"@revoked * {keys['gw2'].get_name()} {keys['gw2'].get_base64()}\n")
    assert cut(site, "rollback", "--all") == 10
    assert "gw2: its SSH host key is not the one this site knows" in capsys.readouterr().err
    assert site.servers["gw2"].orders == []
    assert site.states()["gw1"] == THERE


def test_a_key_that_the_gateway_does_not_know_is_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.servers["gw2"].client_key = paramiko.ECDSAKey.generate()
    assert cut(site, "rollback", "--all") == 10
    assert "gw2: SSH refused the key" in capsys.readouterr().err


@pytest.mark.parametrize(("trouble", "there"), [("hangs", HOME), ("dies", THERE)])
def test_a_gateway_that_falls_silent_after_the_order_is_bounded_told_and_recorded_as_unknown(
    site: Site,
    trouble: str,
    there: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gateways_module.Gateways.ask_each, "__defaults__", (2.0,))
    site.servers["gw2"].trouble = trouble
    began = time.monotonic()
    assert cut(site, "rollback", "--all") == 30
    assert time.monotonic() - began < 15
    assert "whether it was done there is not known" in capsys.readouterr().out
    assert site.states() == {"gw1": HOME, "gw2": there}
    assert list(site.records()[0].data["unknown"]) == ["gw2"]
    site.servers["gw2"].trouble = ""
    assert cut(site, "route", "show") == (0 if there == HOME else 10)
    told = [record.data["gateways"] for record in site.records()]
    assert [list(one) for one in told] == ([["gw1"], ["gw2"]] if there == HOME else [["gw1"]])


def test_a_router_that_does_not_follow_its_table_is_told_as_not_confirmed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.gateways["gw2"].routers["hybrid"].lag = -1
    assert cut(site, "rollback", "--all") == 30
    assert "gw2, pool hybrid: written, but its router decides by version 1, not 2" in capsys.readouterr().out
    assert site.records()[0].data["gateways"]["gw2"]["outcome"] == "unconfirmed"


def test_gateways_that_hold_different_states_afterwards_are_told(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site.gateways["gw2"].place.table("hybrid")
    raw = json.loads(path.read_bytes())
    raw["tenants"]["doc-zam"]["routes"]["chat"] = "off"
    path.write_text(json.dumps(raw))
    assert cut(site, "rollback", "doc-zam") == 30
    assert "gw1 and gw2 do not hold the same states" in capsys.readouterr().out
    assert cut(site, "route", "show") == 10
    assert "DIFFERENT: doc-zam/chat: cloud on gw1, off on gw2" in capsys.readouterr().out


# --- readiness, both ways -----------------------------------------------------------------------------------------


def test_nobody_is_sent_to_a_cloud_that_does_not_answer(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.status = 503
    assert cut(site, "rollback", "doc-zam") == 10
    said = capsys.readouterr().out
    assert "doc-zam/chat stays onprem" in said and "answers 503" in said
    assert "HOLD" not in said
    assert site.states() == {"gw1": THERE, "gw2": THERE}


def test_a_cloud_that_is_only_busy_takes_everybody_back_and_the_command_says_so(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.hold.set()
        answered = {"t": time.time() - 5, "leg": "cloud", "route": "chat", "outcome": "ok"}
        (gateway.folder / "requests-hybrid.jsonl").write_text(json.dumps(answered) + "\n")
    assert cut(site, "rollback", "doc-zam") == 0
    assert "gw1: chat goes to a slow leg" in capsys.readouterr().out
    assert site.states()["gw2"]["doc-zam"] == HOME["doc-zam"]


def test_where_neither_side_answers_it_holds_and_says_so(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.stop()
        gateway.engine.stop()
    assert cut(site, "rollback", "doc-zam") == 10
    said = capsys.readouterr().out
    assert "HOLD: neither the cloud nor our machine answers doc-zam/audio, doc-zam/chat" in said
    assert site.states() == {"gw1": THERE, "gw2": THERE}


def test_one_gateway_without_cloud_keeps_the_route_on_all_of_them_or_is_left_behind(site: Site) -> None:
    site.gateways["gw2"].cloud.status = 503
    assert cut(site, "rollback", "doc-zam") == 10
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert cut(site, "rollback", "doc-zam", "--degraded") in (10, 30)
    assert site.states()["gw1"]["doc-zam"] == HOME["doc-zam"]
    assert site.states()["gw2"] == THERE


def test_a_dead_machine_of_ours_keeps_nobody_from_the_cloud(site: Site) -> None:
    for gateway in site.gateways.values():
        gateway.engine.stop()
    assert cut(site, "rollback", "--all") == 0
    assert site.states() == {"gw1": HOME, "gw2": HOME}


# --- whoever dies, nothing is lost --------------------------------------------------------------------------------


def command(site: Site, *words: str) -> list[str]:
    return [sys.executable, "-m", "gpu_cutover.cli", *words, "-i", str(site.directory)]


def wait_for(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_controller_that_ends_after_the_order_loses_no_record(site: Site, how: signal.Signals) -> None:
    site.servers["gw2"].trouble = "hangs"  # so that the controller still waits when it is ended
    with subprocess.Popen(command(site, "rollback", "--all"), stderr=subprocess.PIPE, text=True) as controller:
        wait_for(lambda: all(gateway.states() == HOME for gateway in site.gateways.values()))
        os.kill(controller.pid, how)
        _, said = controller.communicate(timeout=20)
    assert controller.returncode == (-how if how == signal.SIGKILL else 30)
    assert how == signal.SIGKILL or "the gateways finish them by themselves" in said
    assert site.records() == []
    site.servers["gw2"].trouble = ""
    assert cut(site, "route", "show") == 0
    (record,) = site.records()
    assert record.name == "all"
    assert set(record.data["gateways"]) == {"gw1", "gw2"}


def test_a_broken_ledger_keeps_nobody_from_the_cloud_and_is_caught_up_with(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut(site, "rollback", "doc-zam") == 0
    (record,) = site.records()
    file = site.directory / "evidence" / record.file
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"payload"', b'"payl0ad"'))
    assert cut(site, "rollback", "--all") == 30
    assert site.states() == {"gw1": HOME, "gw2": HOME}
    assert "not recorded" in capsys.readouterr().err
    file.write_bytes(whole)
    assert cut(site, "route", "show") == 0
    assert [one.name for one in site.records()] == ["doc-zam", "all"]


def test_a_change_that_a_crash_cut_off_is_explained_by_the_next_one(site: Site) -> None:
    gateway = site.gateways["gw1"]
    assert cut(site, "rollback", "doc-zam") == 0
    journal = gateway.place.journal
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0])  # as a kill before the last line leaves it
    for path in (site.directory / "evidence", site.directory / ".state"):
        path.rename(path.with_name(path.name + ".away"))
    assert cut(site, "rollback", "klinik-seri") == 0
    first, second = sorted(site.records(), key=lambda one: one.data["started"])
    assert first.data["gateways"]["gw1"]["note"] == "cut off after the tables were written"
    assert second.name == "klinik-seri"
    assert Journal(journal).unfinished() is None


# --- sessions held open -------------------------------------------------------------------------------------------


def test_sessions_held_open_carry_many_changes_and_close(site: Site) -> None:
    def order(number: int, state: str) -> dict[str, Any]:
        states = {"drill": {"chat": state}}
        return {"do": "set", "id": f"n{number}", "by": "t", "path": "break-glass", "states": states}

    with Gateways(site.directory) as gateways:
        assert gateways.reached == ["gw1", "gw2"]
        for number, state in enumerate(("onprem", "cloud", "off") * 3):
            answers = gateways.ask(order(number, state))
            assert [one["outcome"] for one in answers.values()] == ["done", "done"]
    wait_for(lambda: not any(t.is_active() for server in site.servers.values() for t in server.transports))
    assert len(Journal(site.gateways["gw1"].place.journal).changes()) == 9


def test_connection_variables_of_host_group_and_inventory_are_those_of_ansible(site: Site, tmp_path: Path) -> None:
    from gpu_cutover.traffic.reach import connections

    everywhere = site.directory / "group_vars"
    (everywhere / "gateway.yml").write_text("ansible_user: ops\nansible_become: true\nsecret: !vault |\n  abc\n")
    (site.directory / "host_vars").mkdir()
    (site.directory / "host_vars" / "gw2.yml").write_text("ansible_user: only-here\n")
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(site.directory), "--list"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    ansible = json.loads(shown.stdout)["_meta"]["hostvars"]
    for host, ours in connections(site.directory).items():
        for key, value in ours.items():
            rendered = str(ansible[host][key]).replace("{{ inventory_dir }}", str(site.directory))
            assert value == rendered, (host, key)
