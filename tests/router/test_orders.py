"""An order on a gateway: what it changes, what it refuses, what a crash at any point leaves, who waits for whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.router import orders, readiness
from gpu_cutover.router.journal import Journal
from gpu_cutover.router.orders import Order, Place, carry_out, parse_order

from .gateway import SEALED, TENANTS, Gateway, order, running_gateway

SOURCES = Path(__file__).parents[2] / "src"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running_gateway(tmp_path / "gw") as one:
        yield one


def test_everybody_goes_back_and_the_journal_tells_it(gateway: Gateway) -> None:
    answer = carry_out(order(reason="fire", record="rollback"), gateway.place)
    assert gateway.states() == {
        "zam": {"chat": "cloud", "audio": "cloud"},
        "two": {"chat": "cloud", "embed": "cloud"},
        "far": {"chat": "cloud"},
    }
    assert gateway.states("sealed") == {"sec": SEALED["sec"]["routes"]}
    assert answer["kept"] == [
        "sec/audio stays onprem: a sensitive tenant never goes to the cloud",
        "sec/chat stays onprem: a sensitive tenant never goes to the cloud",
    ]
    assert answer["outcome"] == "done"
    assert answer["readback"]["hybrid"] == {"version": 2, "problem": ""}
    (entry,) = Journal(gateway.place.journal).changes()
    assert entry["before"]["zam"] == {"chat": "onprem", "audio": "onprem"}
    assert entry["after"]["two"] == {"chat": "cloud", "embed": "cloud"}
    assert (entry["order"]["reason"], entry["order"]["record"], entry["outcome"]) == ("fire", "rollback", "done")


def test_accept_off_takes_the_sensitive_out_of_service_and_never_to_the_cloud(gateway: Gateway) -> None:
    carry_out(order(accept_off=True), gateway.place)
    assert gateway.states("sealed") == {"sec": {"chat": "off", "audio": "off"}}


def test_a_dry_order_tells_the_same_and_writes_nothing(gateway: Gateway) -> None:
    before = gateway.place.table("hybrid").read_bytes()
    predicted = carry_out(order(write=False), gateway.place)
    assert predicted["outcome"] == "predicted"
    assert gateway.place.table("hybrid").read_bytes() == before
    assert not gateway.place.journal.exists()
    done = carry_out(order(), gateway.place)
    assert [predicted[key] for key in ("before", "after", "kept")] == [done[key] for key in ("before", "after", "kept")]


def test_a_second_time_changes_nothing_and_leaves_no_line(gateway: Gateway) -> None:
    carry_out(order(), gateway.place)
    lines = gateway.place.journal.read_text()
    again = carry_out(order(id="two"), gateway.place)
    assert not again["changed"]
    assert again["readback"]["hybrid"] == {"version": 2, "problem": ""}
    assert gateway.place.journal.read_text() == lines


def test_a_silent_cloud_keeps_them_and_says_when_neither_side_answers(gateway: Gateway) -> None:
    gateway.cloud.status = 503
    answer = carry_out(order(tenant="zam"), gateway.place)
    assert gateway.states()["zam"] == TENANTS["zam"]["routes"]
    assert answer["waiting"][0] == f"zam/audio stays onprem: {gateway.cloud.url} answers 503"
    assert answer["neither"] == []
    gateway.engine.stop()
    assert carry_out(order(tenant="zam"), gateway.place)["neither"] == ["zam/audio", "zam/chat"]


def test_a_cloud_whose_last_minute_failed_is_silent_although_litellm_answers(gateway: Gateway) -> None:
    now = time.time()
    with (gateway.folder / "requests-hybrid.jsonl").open("w") as handle:
        for age, outcome, route in (
            (1, "timeout", "chat"),
            (2, "error", "chat"),
            (3, "error", "chat"),
            (4, "ok", "audio"),
        ):
            handle.write(json.dumps({"t": now - age, "leg": "cloud", "route": route, "outcome": outcome}) + "\n")
    answer = carry_out(order(tenant="zam"), gateway.place)
    assert gateway.states()["zam"] == {"chat": "onprem", "audio": "cloud"}
    assert "all failed" in answer["waiting"][0]


def remember(gateway: Gateway, *attempts: tuple[float, str, str, str]) -> None:
    """Records of (seconds ago, leg, route, outcome)."""
    now = time.time()
    lines = [
        json.dumps({"t": now - age, "leg": leg, "route": route, "outcome": how}) for age, leg, route, how in attempts
    ]
    (gateway.folder / "requests-hybrid.jsonl").write_text("\n".join([*lines, ""]))


def test_a_busy_cloud_takes_them_back_with_a_warning(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LEG_S", 0.3)
    gateway.cloud.hold.set()
    remember(gateway, (20, "cloud", "embed", "ok"), (2, "cloud", "chat", "error"))
    answer = carry_out(order(tenant="zam"), gateway.place)
    assert gateway.states()["zam"] == {"chat": "cloud", "audio": "cloud"}
    assert (answer["waiting"], answer["outcome"]) == ([], "done")
    assert answer["slow"] == [
        f"{route} goes to a slow leg: {gateway.cloud.url} said nothing within 0.3 s, but it answered others in the "
        "last 60 s"
        for route in ("audio", "chat")
    ]


@pytest.mark.parametrize(
    "past", [[], [(61.0, "cloud", "chat", "ok")], [(5.0, "onprem", "chat", "ok")], [(5.0, "cloud", "chat", "timeout")]]
)
def test_a_cloud_that_takes_connections_and_answered_nobody_lately_is_silent(
    gateway: Gateway, past: list[tuple[float, str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "LEG_S", 0.3)
    gateway.cloud.hold.set()
    remember(gateway, *past)
    answer = carry_out(order(tenant="zam"), gateway.place)
    assert gateway.states()["zam"] == TENANTS["zam"]["routes"]
    assert (len(answer["waiting"]), answer["slow"], answer["neither"]) == (2, [], [])


def test_a_cloud_that_refuses_is_dead_whatever_it_answered_before(gateway: Gateway) -> None:
    gateway.cloud.stop()
    remember(gateway, (1, "cloud", "chat", "ok"))
    assert carry_out(order(tenant="zam"), gateway.place)["slow"] == []
    assert gateway.states()["zam"] == TENANTS["zam"]["routes"]


def test_a_busy_machine_of_ours_takes_a_cutover_with_a_warning(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "LEG_S", 0.3)
    gateway.engine.hold.set()
    remember(gateway, (20, "onprem", "chat", "ok"))
    answer = carry_out(order("set", states={"two": {"embed": "onprem"}}), gateway.place)
    assert (answer["held"], gateway.states()["two"]["embed"]) == ([], "onprem")
    assert "embed goes to a slow leg" in answer["slow"][0]


def test_a_name_that_is_not_resolved_in_time_does_not_answer(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LEG_S", 0.1)
    over = threading.Event()

    def unresolved(url: str) -> tuple[str, bool]:
        over.wait(20)
        return "", False

    monkeypatch.setattr(readiness, "_problem_of", unresolved)
    answer = carry_out(order(tenant="zam"), gateway.place)
    over.set()
    assert "nothing came of it within 0.1 s" in answer["waiting"][0]


def test_an_open_breaker_holds_a_cutover(gateway: Gateway) -> None:
    gateway.routers["hybrid"].more = {"breakers_open": ["own-embed"]}
    answer = carry_out(order("set", states={"two": {"embed": "onprem"}}), gateway.place)
    assert answer["held"] == ["embed is not moved: the breaker of own-embed is open"]
    assert gateway.states()["two"]["embed"] == "mirror"


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"do": "set", "states": {"sec": {"chat": "cloud"}}}, InputError),
        ({"do": "set", "states": {"far": {"chat": "onprem"}}}, InputError),
        ({"do": "set", "states": {"nobody": {"chat": "off"}}}, InputError),
        ({"do": "set", "states": {"zam": {"vision": "off"}}}, InputError),
        ({"do": "set", "states": {"zam": {"chat": "off"}}, "expect": {"zam": {"chat": "mirror"}}}, Refused),
        ({"do": "roll_back", "tenant": "nobody"}, InputError),
        ({"do": "model", "model": "nothing"}, InputError),
        ({"do": "breaker", "model": "own-chat", "override": "ajar"}, InputError),
    ],
)
def test_what_may_not_be_is_refused_before_anything_is_written(
    gateway: Gateway, what: dict[str, Any], error: type[Exception]
) -> None:
    before = [gateway.place.table(pool).read_bytes() for pool in orders.POOLS]
    with pytest.raises(error):
        carry_out(order(**what), gateway.place)
    assert [gateway.place.table(pool).read_bytes() for pool in orders.POOLS] == before
    assert not gateway.place.journal.exists()


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"do": "fly", "id": "1", "by": "x", "path": "x"},
        {"do": "roll_back", "id": "1", "by": "x", "path": "x", "surprise": 1},
        {"do": "roll_back", "id": "1", "by": "x", "path": "x", "route": "nowhere"},
        {"do": "model", "id": "1", "by": "x", "path": "x"},
        {"do": "set", "id": "1", "by": "x", "path": "x", "states": {"zam": {"chat": "moon"}}},
    ],
)
def test_what_is_no_order_is_told_by_its_key(data: object) -> None:
    with pytest.raises(InputError, match="order"):
        parse_order(data)


def test_a_model_goes_out_and_comes_back(gateway: Gateway) -> None:
    out = carry_out(order("model", model="own-chat"), gateway.place)
    assert out["after"] == {"zam": {"chat": "cloud"}, "two": {"chat": "cloud"}}
    assert out["models_rolled_back"] == {"hybrid": ["own-chat"], "sealed": []}
    back = carry_out(order("model", model="own-chat", out=False, pools=["hybrid", "sealed"]), gateway.place)
    assert back["after"] == {"zam": {"chat": "onprem"}, "two": {"chat": "onprem"}}


def test_a_model_is_not_taken_out_towards_a_cloud_that_does_not_answer(gateway: Gateway) -> None:
    gateway.cloud.stop()
    answer = carry_out(order("model", model="own-chat"), gateway.place)
    assert answer["held"] and not answer["changed"]


def test_a_router_that_does_not_follow_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "CONFIRM_S", 0.2)
    gateway.routers["hybrid"].lag = -1
    answer = carry_out(order(), gateway.place)
    assert answer["outcome"] == "unconfirmed"
    assert answer["readback"]["hybrid"]["problem"] == "its router decides by version 1, not 2"
    assert Journal(gateway.place.journal).changes()[0]["outcome"] == "unconfirmed"


def test_a_journal_that_cannot_be_written_stops_a_cutover_and_not_a_rollback(gateway: Gateway) -> None:
    gateway.place.journal.mkdir()
    with pytest.raises(OSError):
        carry_out(order("set", states={"two": {"embed": "cloud"}}), gateway.place)
    assert gateway.states()["two"]["embed"] == "mirror"
    answer = carry_out(order(), gateway.place)
    assert gateway.states()["zam"]["chat"] == "cloud"
    assert answer["problems"]


# --- a crash at any point -----------------------------------------------------------------------------------------

KILL_AT = """
import os, signal, sys, pathlib
from gpu_cutover.router import orders, journal
from gpu_cutover.router.orders import Order, Place, carry_out
where, folder = sys.argv[1], pathlib.Path(sys.argv[2])
counts = {}
def killing(name, act, before):
    def wrapped(*args, **more):
        counts[name] = counts.get(name, 0) + 1
        here = f"{name}{counts[name]}"
        if before and where == "before-" + here: os.kill(os.getpid(), signal.SIGKILL)
        result = act(*args, **more)
        if where == "after-" + here: os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped
journal.Journal.add = killing("line", journal.Journal.add, True)
orders.write_whole = killing("table", orders.write_whole, True)
orders.confirm = killing("confirm", orders.confirm, True)
order = Order(do="roll_back", id="cut", by="t", path="break-glass", accept_off=True)
carry_out(order, Place(folder, folder / "changes.jsonl"))
"""
PATHS = {"PYTHONPATH": str(SOURCES)}
NOTHING, ALL = "not done", "done"


@pytest.mark.parametrize(
    ("where", "outcome"),
    [
        ("before-line1", None),
        ("after-line1", NOTHING),
        ("before-table1", NOTHING),
        ("after-table1", ALL),
        ("before-table2", ALL),
        ("after-table2", ALL),
        ("before-confirm1", ALL),
        ("after-confirm1", ALL),
        ("before-line2", ALL),
        ("after-line2", ALL),
    ],
)
def test_a_kill_at_any_point_leaves_what_the_next_order_explains(
    gateway: Gateway, where: str, outcome: str | None
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILL_AT, where, str(gateway.folder)], env=PATHS)
    assert killed.returncode == -signal.SIGKILL
    before = gateway.states(), gateway.states("sealed")
    carry_out(order("set", id="next", states={"far": {"chat": "cloud"}}), gateway.place)
    ends = {entry["id"]: entry["outcome"] for entry in Journal(gateway.place.journal).changes()}
    assert ends == ({"cut": outcome} if outcome else {})
    if outcome == ALL:
        assert gateway.states()["zam"] == {"chat": "cloud", "audio": "cloud"}
        assert gateway.states("sealed")["sec"] == {"chat": "off", "audio": "off"}
    else:
        assert (gateway.states(), gateway.states("sealed")) == before
        assert gateway.states()["zam"] == TENANTS["zam"]["routes"]


def test_a_torn_line_is_no_line_and_the_next_one_stands_whole(gateway: Gateway) -> None:
    gateway.place.journal.write_text('{"phase":"begun","id":"torn","ta')
    carry_out(order(), gateway.place)
    assert [entry["id"] for entry in Journal(gateway.place.journal).changes()] == ["one"]


def test_a_table_changed_by_hand_after_a_crash_is_marked_and_left_alone(gateway: Gateway) -> None:
    subprocess.run([sys.executable, "-c", KILL_AT, "after-table1", str(gateway.folder)], env=PATHS)
    by_hand = json.loads(gateway.place.table("sealed").read_bytes()) | {"reason": "by hand"}
    gateway.place.table("sealed").write_text(json.dumps(by_hand))
    carry_out(order("set", id="next", states={"far": {"chat": "cloud"}}), gateway.place)
    (entry,) = Journal(gateway.place.journal).changes()
    assert entry["outcome"] == "unexplained"
    assert gateway.states("sealed") == {"sec": SEALED["sec"]["routes"]}


def test_the_journal_is_put_aside_when_full_and_still_tells(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_cutover.router.journal.MAX_BYTES", 100)
    for number, state in enumerate(("off", "cloud", "off")):
        carry_out(order("set", id=str(number), states={"two": {"embed": state}}), gateway.place)
    assert gateway.place.journal.with_name("changes.jsonl.1").exists()
    journal = Journal(gateway.place.journal)
    assert [entry["id"] for entry in journal.changes()] == ["1", "2"]
    assert [entry["id"] for entry in journal.changes(after="1")] == ["2"]


# --- several at once ----------------------------------------------------------------------------------------------


def test_concurrent_orders_wait_for_each_other_and_none_is_lost(gateway: Gateway) -> None:
    wanted = {("zam", "chat"): "off", ("zam", "audio"): "mirror", ("two", "chat"): "cloud", ("two", "embed"): "off"}
    threads = [
        threading.Thread(
            target=carry_out, args=(order("set", id=f"{name}-{route}", states={name: {route: state}}), gateway.place)
        )
        for (name, route), state in wanted.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = gateway.states()
    assert {(name, route): states[name][route] for name, route in wanted} == wanted
    assert json.loads(gateway.place.table("hybrid").read_bytes())["version"] == 5
    assert len(Journal(gateway.place.journal).changes()) == 4


def test_a_lock_that_nobody_gives_back_is_told_after_a_bounded_wait(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "LOCK_PATIENCE_S", 0.2)
    with orders._locked(gateway.folder / ".lock", True), pytest.raises(Refused, match="holds this gateway"):
        carry_out(order(), gateway.place)


# --- the executable -----------------------------------------------------------------------------------------------


def route(gateway: Gateway, how: str, text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpu_cutover.router.route", how, *gateway.arguments()]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=PATHS, timeout=30)


ORDER = {"do": "roll_back", "id": "x", "by": "t", "path": "break-glass", "check": "fast", "tenant": "zam"}


@pytest.mark.parametrize(
    ("more", "code", "ok"),
    [
        ({}, 0, True),
        ({"tenant": "nobody"}, 2, False),
        ({"surprise": 1}, 2, False),
        (
            {"do": "set", "tenant": None, "states": {"zam": {"chat": "off"}}, "expect": {"zam": {"chat": "off"}}},
            10,
            False,
        ),
    ],
)
def test_apply_answers_in_json_and_by_its_exit_code(
    gateway: Gateway, more: dict[str, Any], code: int, ok: bool
) -> None:
    done = route(gateway, "apply", json.dumps({**ORDER, **more}))
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (code, ok), done.stderr


def test_serve_answers_line_by_line_whatever_it_is_given(gateway: Gateway) -> None:
    lines = ["not json", json.dumps({"do": "show"}), json.dumps(ORDER), json.dumps({"do": "journal"})]
    done = route(gateway, "serve", "\n".join(lines) + "\n")
    wrong, shown, moved, journal = (json.loads(line) for line in done.stdout.splitlines())
    assert not wrong["ok"]
    assert shown["states"]["sec"] == {"chat": "onprem", "audio": "onprem"}
    assert shown["pools"]["hybrid"]["router"]["table_version"] == 1
    assert moved["after"] == {"zam": {"chat": "cloud", "audio": "cloud"}}
    assert [entry["id"] for entry in journal["changes"]] == ["x"]


def test_serve_outlives_the_hang_up_of_its_caller(gateway: Gateway) -> None:
    command = [sys.executable, "-m", "gpu_cutover.router.route", "serve", *gateway.arguments()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=PATHS) as served:
        assert served.stdin and served.stdout
        served.stdin.write(json.dumps({"do": "show"}) + "\n")
        served.stdin.flush()
        assert json.loads(served.stdout.readline())["ok"]
        os.kill(served.pid, signal.SIGHUP)
        served.stdin.write(json.dumps(ORDER) + "\n")
        served.stdin.flush()
        assert json.loads(served.stdout.readline())["outcome"] == "done"
        served.stdin.close()
        assert served.wait(10) == 0


def test_ten_thousand_tenants_go_back_in_a_moment(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "big") as big:
        raw = json.loads(big.place.table("hybrid").read_bytes())
        routes = dict.fromkeys(("audio", "chat", "reason", "embed", "rerank", "vision"), "onprem")
        raw["tenants"] = {f"t{number}": {"policy": "standard", "routes": dict(routes)} for number in range(10_000)}
        big.place.table("hybrid").write_text(json.dumps(raw))
        answer = carry_out(
            Order("roll_back", "big", "t", "break-glass", check="fast"),
            Place(big.folder, big.place.journal, big.folder),
        )
        assert len(answer["after"]) == 10_000
        assert answer["took_s"] < 10
