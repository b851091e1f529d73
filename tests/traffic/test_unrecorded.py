"""What gateways changed by themselves is seen by `status`, recorded by the next look, and then known to be recorded."""

from __future__ import annotations

import json

import pytest

from gpu_cutover.cli import main
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.router.journal import Journal
from gpu_cutover.router.orders import Order, carry_out

from .test_break_glass import cut
from .two_gateways import Site

WATCH = {"by": "watch", "path": "watch", "reason": "watch: 9 of 20 failed", "record": "rollback", "tenant": "doc-zam"}


def taken_back(site: Site, *gateways: str) -> None:
    """As a watch does it, on the gateway itself."""
    for name in gateways:
        carry_out(Order(do="roll_back", id="w1", **WATCH), site.gateways[name].place)


def day_four(site: Site) -> None:
    Ledger.open(site.directory).append("gate", "day04", {"day": 4, "verdict": "promote", "checks": []})


def unrecorded(site: Site) -> dict[str, list[str]]:
    return {
        name: [entry["id"] for entry in Journal(gateway.place.journal).unrecorded()]
        for name, gateway in site.gateways.items()
    }


def test_status_shows_what_the_ledger_does_not_know_and_how_to_record_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    day_four(site)
    taken_back(site, "gw1", "gw2")
    assert cut(site, "status") == 0
    said = capsys.readouterr().out
    assert "changed on the gateways and not in the ledger yet" in said
    assert "by watch (watch) on gw1, gw2: watch: 9 of 20 failed" in said
    assert "doc-zam: audio onprem → cloud, chat onprem → cloud" in said
    assert f"record them: gpu-cutover route show -i {site.directory}" in said
    assert cut(site, "route", "show") == 0
    assert unrecorded(site) == {"gw1": [], "gw2": []}
    capsys.readouterr()
    assert cut(site, "status") == 0
    assert "not in the ledger" not in capsys.readouterr().out


def test_a_change_of_ours_is_known_to_be_recorded_at_once(site: Site) -> None:
    assert cut(site, "rollback", "doc-zam") == 0
    assert unrecorded(site) == {"gw1": [], "gw2": []}
    assert cut(site, "rollback", "--all") == 0
    assert unrecorded(site) == {"gw1": [], "gw2": []}


def test_a_ledger_that_took_nothing_leaves_the_change_unrecorded(site: Site) -> None:
    assert cut(site, "rollback", "doc-zam") == 0
    file = site.directory / "evidence" / site.records()[0].file
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"payload"', b'"payl0ad"'))
    assert cut(site, "rollback", "klinik-seri") == 30
    assert [len(ids) for ids in unrecorded(site).values()] == [1, 1]


def test_a_gateway_that_cannot_be_asked_is_told_and_the_others_are_shown(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    day_four(site)
    taken_back(site, "gw1")
    site.servers["gw2"].stop()
    assert main(["status", "--json", "-i", str(site.directory)]) == 0
    told = json.loads(capsys.readouterr().out)["gateways"]
    assert [(change["id"], change["gateways"]) for change in told["changes"]] == [("w1", ["gw1"])]
    assert list(told["not_asked"]) == ["gw2"]


@pytest.mark.parametrize(("words", "day"), [((), False), (("--offline",), True)])
def test_nobody_is_asked_before_there_are_tables_or_when_a_person_says_so(
    site: Site, words: tuple[str, ...], day: bool
) -> None:
    if day:
        day_four(site)
    assert cut(site, "status", *words) == 0
    assert [server.orders for server in site.servers.values()] == [[], []]


def test_what_belongs_to_no_ledger_is_never_missing_in_it(site: Site) -> None:
    place = site.gateways["gw1"].place
    carry_out(Order(do="set", id="d1", by="t", path="ansible", states={"drill": {"chat": "onprem"}}), place)
    assert unrecorded(site)["gw1"] == []


def test_only_what_was_named_counts_as_recorded_and_twice_is_once(site: Site) -> None:
    from gpu_cutover.router.orders import acknowledge

    place = site.gateways["gw1"].place
    taken_back(site, "gw1")
    carry_out(Order(do="model", id="m1", **{**WATCH, "tenant": None}, model="own-embed"), place)
    assert acknowledge(["m1", "no-such-change"], place) == ["m1"]
    assert acknowledge(["m1"], place) == []
    assert unrecorded(site)["gw1"] == ["w1"]
    assert Journal(place.journal).changes()[-1]["id"] == "m1"
