"""A cable between the controller and one gateway is really pulled: before, in the middle of, and after a change.

gw2's SSH port is in a network namespace of its own, at the end of a virtual cable; gw1's is on loopback as always.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.router.journal import Journal
from gpu_cutover.traffic import gateways as gateways_module
from gpu_cutover.traffic import rollback_command
from router.sealed_network import listening_in

from .test_break_glass import HOME, THERE, cut, wait_for
from .test_commands import promote
from .two_gateways import ROOT, Site, SshServer, write

pytestmark = pytest.mark.twin
FAR = "10.96.3.2"
CONNECT = ROOT / "src" / "gpu_cutover" / "twin" / "connect.py"


class Cable:
    """Two namespaces and what joins them: `controller`, where sessions are opened, and `gateway`, where gw2 listens."""

    def __init__(self) -> None:
        self.controller, self.gateway = f"nc{os.getpid()}", f"ng{os.getpid()}"

    def __enter__(self) -> Cable:
        with contextlib.ExitStack() as made:
            for name in (self.controller, self.gateway):
                ip("netns", "add", name)
                made.callback(ip, "netns", "del", name)
            ip("-n", self.controller, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", self.gateway)
            for name, end, address in ((self.controller, "out", "10.96.3.1"), (self.gateway, "in", FAR)):
                ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
            self._made = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def pull(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        ip("-n", self.gateway, "link", "set", "in", "down")

    def plug_in(self) -> None:
        """Back after longer than a network keeps a packet: the controller's own queue for a neighbour lasts 3 s."""
        ip("-n", self.controller, "neigh", "flush", "dev", "out")
        ip("-n", self.gateway, "link", "set", "in", "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class FarServer(SshServer):
    """gw2's SSH port. `pulls_when_done`: the cable goes once an order is carried out, before anybody is told."""

    cable: Cable
    pulls_when_done = False

    def carried_out(self, order: dict[str, Any]) -> None:
        if self.pulls_when_done and order.get("write") is True:
            self.cable.pull()


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as made:
        yield made


@pytest.fixture
def far(site: Site, cable: Cable, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarServer]:
    """The site's gw2, moved to the end of the cable."""
    near = site.servers["gw2"]
    near.stop()
    server = FarServer(FAR, near.gateway, site.key, listening_in(cable.gateway, FAR, 0))
    server.cable = cable
    site.servers["gw2"] = server
    proxy = f"{sys.executable} -I -S {CONNECT} {cable.controller} {FAR} {server.port}"
    known = site.directory / "records" / "known_hosts"
    common = f"-F /dev/null -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known} -o IdentitiesOnly=yes"
    variables = {
        "ansible_host": FAR,
        "ansible_port": server.port,
        "ansible_ssh_common_args": f"{common} -o ProxyCommand='{proxy}' -o ProxyUseFdpass=yes",
    }
    write(site.directory / "host_vars" / "gw2.yml", variables)
    with known.open("a") as handle:
        handle.write(f"[{FAR}]:{server.port} {server.host_key.get_name()} {server.host_key.get_base64()}\n")
    monkeypatch.setattr(gateways_module.Gateways.ask_each, "__defaults__", (3.0,))
    yield server


AWAY = ["rollback", "doc-zam"]
CHANGES = [
    AWAY,
    ["rollback", "--all"],
    ["rollback", "--model", "own-chat"],
    ["route", "set", "doc-zam", "chat", "off", "--yes"],
    ["route", "breaker", "own-chat", "open"],
    ["cutover", "klinik-seri", "--route", "embed", "--direct", "--yes"],
]


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_with_the_cable_out_a_change_is_refused_with_the_reason_or_made_on_the_other_gateway_alone(
    site: Site, far: FarServer, cable: Cable, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    promote(site, *range(1, 10))
    before = len(site.records())
    cable.pull()
    tables = {name: gateway.place.table("hybrid").read_bytes() for name, gateway in site.gateways.items()}
    assert cut(site, *words) == 10
    said = capsys.readouterr().err
    assert "gw2: cannot be reached" in said and "--degraded" in said and "Nothing was changed" in said
    assert {name: one.place.table("hybrid").read_bytes() for name, one in site.gateways.items()} == tables
    assert len(site.records()) == before
    assert cut(site, *words, "--degraded") == 0
    assert "gw2 is stale: it goes on as before" in capsys.readouterr().out
    assert site.gateways["gw1"].place.table("hybrid").read_bytes() != tables["gw1"]
    assert site.gateways["gw2"].place.table("hybrid").read_bytes() == tables["gw2"]
    record = site.records()[-1]
    assert list(record.data["gateways"]) == ["gw1"]
    assert "cannot be reached" in record.data["stale"]["gw2"]


def test_with_the_cable_out_show_says_who_was_not_asked(
    site: Site, far: FarServer, cable: Cable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut(site, "route", "show") == 0
    cable.pull()
    assert cut(site, "route", "show") == 10
    shown = capsys.readouterr().out
    assert "gw2 NOT ASKED" in shown and "gw1, hybrid: version 1" in shown


def test_a_cable_pulled_before_the_order_leaves_that_gateway_unknown_and_it_never_acts_late(
    site: Site,
    far: FarServer,
    cable: Cable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as at_the_last_moment:
        at_the_last_moment.setattr(rollback_command, "refuse_sensitive", lambda *_: cable.pull())
        assert cut(site, "rollback", "--all") == 30
    said = capsys.readouterr().out
    assert "gw2: no answer within" in said and "whether it was done there is not known" in said
    assert site.states() == {"gw1": HOME, "gw2": THERE}
    assert list(site.records()[0].data["unknown"]) == ["gw2"]
    cable.plug_in()
    assert cut(site, "route", "set", "doc-zam", "chat", "off", "--yes") in (0, 30)  # later orders stand
    time.sleep(4)  # what TCP still held would have been sent again by now
    assert site.states()["gw2"] == {**THERE, "doc-zam": {"chat": "off", "audio": "onprem"}}
    assert cut(site, "rollback", "--all") == 0
    assert site.states()["gw2"]["klinik-seri"] == HOME["klinik-seri"]


def test_a_cable_pulled_after_the_order_leaves_the_change_made_and_the_record_catches_up(
    site: Site, far: FarServer, cable: Cable, capsys: pytest.CaptureFixture[str]
) -> None:
    far.pulls_when_done = True
    assert cut(site, "rollback", "--all") == 30
    assert "whether it was done there is not known" in capsys.readouterr().out
    assert site.states() == {"gw1": HOME, "gw2": HOME}
    assert [list(record.data["gateways"]) for record in site.records()] == [["gw1"]]
    far.pulls_when_done = False
    cable.plug_in()
    assert cut(site, "route", "show") == 0
    assert [list(record.data["gateways"]) for record in site.records()] == [["gw1"], ["gw2"]]


def test_a_controller_cut_off_in_the_middle_leaves_no_order_half_done(
    site: Site, far: FarServer, cable: Cable, tmp_path: Path
) -> None:
    """The gateway carries out what reached it whole, whether or not anybody still listens; its lock is free again."""
    far.pulls_when_done = True
    assert cut(site, *AWAY) == 30
    journal = Journal(site.gateways["gw2"].place.journal)
    wait_for(lambda: journal.unfinished() is None)
    (change,) = journal.changes()
    assert (change["outcome"], change["after"]) == ("done", {"doc-zam": {"chat": "cloud", "audio": "cloud"}})
    assert json.loads(site.gateways["gw2"].place.table("hybrid").read_bytes())["version"] == 2
