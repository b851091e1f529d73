"""Gateways agree by themselves: the later change wins, older states never come back, nothing illegal is taken over."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.peers import decide, told
from gpu_cutover.peers.main import Own, Peer, answers
from gpu_cutover.router import change, orders
from gpu_cutover.router.journal import Journal
from gpu_cutover.router.orders import Order, Place, carry_out
from router.tables import table, tenant

EARLY, LATE = "2026-12-30T10:00:00.000Z", "2026-12-30T10:00:05.000Z"


def with_time(changed: str, policy: str = "standard", **routes: str) -> dict[str, Any]:
    return {**tenant(policy, **routes), **({"changed": changed} if changed else {})}


def taken(own: dict[str, Any], theirs: dict[str, Any]) -> dict[str, str]:
    after = change.adopted(table(tenants={"zam": own}), table(tenants={"zam": theirs}))
    return dict(after["tenants"]["zam"]["routes"])


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        (with_time(EARLY, chat="onprem"), with_time(LATE, chat="cloud"), "cloud"),
        (with_time(LATE, chat="cloud"), with_time(EARLY, chat="onprem"), "cloud"),
        (with_time("", chat="cloud"), with_time(EARLY, chat="onprem"), "onprem"),
        (with_time(EARLY, chat="onprem"), with_time("", chat="cloud"), "onprem"),
        (with_time(EARLY, chat="onprem"), with_time(EARLY, chat="cloud"), "onprem"),
        (with_time(EARLY, "cloud_only", chat="cloud"), with_time(LATE, chat="onprem"), "cloud"),
    ],
)
def test_the_later_change_wins_where_the_policy_permits_it(
    own: dict[str, Any], theirs: dict[str, Any], expected: str
) -> None:
    assert taken(own, theirs) == {"chat": expected}


def test_what_this_gateway_does_not_serve_is_not_taken_over() -> None:
    assert taken(with_time(EARLY, chat="cloud"), with_time(LATE, chat="onprem", audio="onprem")) == {"chat": "onprem"}
    own = table(tenants={"zam": with_time(EARLY, chat="cloud")})
    theirs = table(tenants={"zam": with_time(EARLY, chat="cloud"), "new": with_time(LATE, chat="onprem")})
    assert change.adopted(own, theirs) == own


ROUTE = st.fixed_dictionaries({"chat": st.sampled_from(["onprem", "off", "cloud", "mirror"])})


@given(routes=ROUTE, stamp=st.sampled_from(["", EARLY, LATE]))
def test_no_peer_ever_sends_a_sensitive_tenant_to_the_cloud(routes: dict[str, str], stamp: str) -> None:
    own = table("sealed", tenants={"s": with_time(EARLY, "sensitive", chat="onprem")})
    after = change.adopted(own, table("sealed", tenants={"s": with_time(stamp, "standard", **routes)}))
    assert after["tenants"]["s"]["routes"]["chat"] in ("onprem", "off")


STATE = st.tuples(st.sampled_from(["onprem", "cloud", "mirror", "off"]), st.sampled_from([EARLY, LATE, "2027"]))


@given(one=STATE, two=STATE)
def test_two_gateways_that_ask_each_other_agree_unless_they_changed_at_the_same_moment(
    one: tuple[str, str], two: tuple[str, str]
) -> None:
    first, second = (table(tenants={"zam": with_time(at, chat=state)}) for state, at in (one, two))
    after_first = change.adopted(first, second)
    after_second = change.adopted(second, after_first)
    assert decide.digest(after_first) == decide.digest(after_second) or one[1] == two[1]
    assert after_first["tenants"]["zam"]["changed"] >= one[1]


def test_models_and_breakers_follow_their_own_time() -> None:
    out = {**table(rolled_back=("own-chat",)), "overrides": {"own-audio": "open"}, "models_changed": LATE}
    after = change.adopted(table(), out)
    assert (after["models_rolled_back"], after["overrides"]) == (["own-chat"], {"own-audio": "open"})
    back = {**table(), "models_changed": EARLY}
    assert change.adopted(after, back) == after


def test_a_refreshed_plan_does_not_make_an_old_model_state_new() -> None:
    """Day 4 on a gateway that missed the rollback of a model: its table is newer, its knowledge is not."""
    missed = change.stamped(table(), {**table(), "fallback": {**table()["fallback"], "open_s": 31}}, "day 4", "2027")
    out = change.stamped(table(), change.with_model(table(), "own-chat", True, "t"), "rollback", LATE)
    assert change.adopted(missed, out)["models_rolled_back"] == ["own-chat"]
    assert change.adopted(out, missed)["models_rolled_back"] == ["own-chat"]


def test_what_is_taken_over_keeps_the_time_of_the_change() -> None:
    own, theirs = (table(tenants={"zam": with_time(at, chat=s)}) for at, s in ((EARLY, "onprem"), (LATE, "cloud")))
    after = change.stamped(own, change.adopted(own, theirs), "peer", "2027-01-01T00:00:00.000Z")
    assert after["tenants"]["zam"]["changed"] == LATE
    assert after["version"] == own["version"] + 1


class Gateway:
    """One gateway's files, what it answers its peers, and itself as a peer that asks another."""

    def __init__(self, directory: Path) -> None:
        (directory / "router").mkdir(parents=True)
        (directory / "watch").mkdir()
        self.place = Place(directory / "router", directory / "changes.jsonl", directory)
        self.mirror, self.watch = directory / "mirror.json", directory / "watch"
        self.own = Own(self.place, self.watch, self.mirror)
        self.peers: list[Peer] = []
        handler = answers(self.own, self.peers)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def install(self, **tenants: Any) -> None:
        orders.write_whole(self.place.table("hybrid"), table(tenants=tenants))

    def meet(self, name: str, other: Gateway) -> Peer:
        connection = http.client.HTTPConnection("127.0.0.1", other.server.server_port, timeout=5)
        self.peers.append(Peer(name, connection, self.own))
        return self.peers[-1]

    def state(self) -> str:
        return str((orders.read_raw(self.place.table("hybrid")) or {})["tenants"]["zam"]["routes"]["chat"])

    def order(self, state: str) -> None:
        carry_out(
            Order(do="set", id=f"to-{state}", by="test", path="ansible", states={"zam": {"chat": state}}), self.place
        )


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    gateways = Gateway(tmp_path / "gw1"), Gateway(tmp_path / "gw2")
    for gateway in gateways:
        gateway.install(zam=tenant(chat="cloud"))
    yield gateways
    for gateway in gateways:
        gateway.server.shutdown()
        gateway.server.server_close()


def test_a_gateway_that_missed_a_change_takes_it_over_once_it_has_settled(two: tuple[Gateway, Gateway]) -> None:
    gw1, gw2 = two
    peer = gw2.meet("gw1", gw1)
    gw1.order("onprem")
    peer.look(100.0)
    assert (gw2.state(), peer.known["agrees"]) == ("cloud", False), "an order that is still on its way is not overtaken"
    peer.look(100.0 + decide.SETTLE_S)
    assert (gw2.state(), peer.known["agrees"]) == ("onprem", True)
    [entry] = Journal(gw2.place.journal).changes()
    assert (entry["order"]["path"], entry["order"]["by"], entry["outcome"]) == ("peer", "gw1", "done")
    assert entry["after"] == {"zam": {"chat": "onprem"}}


def test_a_rollback_that_one_gateway_made_alone_is_not_undone_by_the_other(two: tuple[Gateway, Gateway]) -> None:
    gw1, gw2 = two
    for gateway in two:
        gateway.order("onprem")
    gw1.order("cloud")
    for asking, asked in ((gw1.meet("gw2", gw2), gw1), (gw2.meet("gw1", gw1), gw2)):
        for now in (100.0, 104.0):
            asking.look(now)
        assert asked.state() == "cloud"


def test_a_rebuilt_gateway_takes_the_states_of_the_other_and_never_gives_its_initial_ones(
    two: tuple[Gateway, Gateway],
) -> None:
    gw1, gw2 = two
    gw1.order("onprem")
    gw2.install(zam=tenant(chat="cloud"))
    for now in (100.0, 104.0):
        gw1.meet("gw2", gw2).look(now)
    assert gw1.state() == "onprem"
    peer = gw2.meet("gw1", gw1)
    for now in (100.0, 104.0):
        peer.look(now)
    assert gw2.state() == "onprem"


def test_a_silent_peer_is_told_and_changes_nothing(two: tuple[Gateway, Gateway]) -> None:
    gw1, gw2 = two
    peer = gw2.meet("gw1", gw1)
    peer.look(100.0)
    assert peer.known["agrees"] is True
    gw1.server.shutdown()
    gw1.server.server_close()
    peer._connection.close()
    peer.look(101.0)
    assert peer.known["agrees"] is None
    assert "refused" in peer.known["problem"]
    assert (peer.known["seen"], gw2.state()) == (100.0, "cloud")


def test_the_monitor_hears_of_disagreement_of_what_is_not_recorded_and_of_watches(
    two: tuple[Gateway, Gateway],
) -> None:
    gw1, gw2 = two
    peer = gw2.meet("gw1", gw1)
    gw1.order("onprem")
    peer.look(100.0)
    gw2.order("mirror")
    carry_out(Order(do="roll_back", id="r1", by="watch", path="watch", record="rollback"), gw2.place, lambda: 50.0)
    (gw2.watch / "zam.json").write_text(json.dumps({"tenant": "zam", "verdict": "rolled_back", "counts": None}))
    with urllib.request.urlopen(f"http://127.0.0.1:{gw2.server.server_port}/routes", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    assert 'gpu_cutover_peer_agrees{peer="gw1"} 0' in lines
    assert "gpu_cutover_route_changes_unrecorded 1" in lines, "nobody asked for a record of the other changes"
    assert "gpu_cutover_route_change_unrecorded_since_seconds 50.0" in lines
    assert 'gpu_cutover_watch{tenant="zam",verdict="rolled_back"} 1' in lines


def test_what_a_gateway_saw_is_told_to_the_others_neighbours(two: tuple[Gateway, Gateway]) -> None:
    gw1, gw2 = two
    gw1.mirror.write_text(json.dumps({"started": 100.0}))
    lines = [{"t": 99.0, "route": "chat"}, {"t": 101.0, "route": "chat"}, {"t": 102.0, "route": "audio"}]
    (gw1.place.records / "comparisons-hybrid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = {"tenant": "zam", "verdict": "running", "started": 50.0, "counts": {"requests": 7}}
    (gw1.watch / "zam.json").write_text(json.dumps(state))
    gw2.meet("gw1", gw1).look(103.0)
    known = told.peers(gw2.server.server_port)
    assert told.compared_elsewhere(known) == {"chat": 1, "audio": 1}
    assert told.watched_elsewhere(known, "zam", 55.0) == 7
    assert told.watched_elsewhere(known, "zam", 500.0) == 0, "an earlier watch of the tenant"


def test_without_peers_nobody_saw_anything() -> None:
    assert told.peers(1) == {}
    assert told.compared_elsewhere({}) == {}


def test_nothing_but_tables_and_summary_is_answered(two: tuple[Gateway, Gateway]) -> None:
    gw1, _ = two
    connection = http.client.HTTPConnection("127.0.0.1", gw1.server.server_port, timeout=5)
    found = {}
    for path in ("/peer/summary", "/peer/tables/hybrid", "/peer/tables/sealed", "/peer/tables/../../passwd", "/"):
        connection.request("GET", path)
        answer = connection.getresponse()
        found[path] = answer.status, json.loads(answer.read())
    assert [status for status, _ in found.values()] == [200, 200, 404, 404, 404]
    assert "onprem" not in found["/peer/tables/hybrid"][1], "legs are the plan's business"
