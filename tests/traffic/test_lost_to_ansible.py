"""The way through Ansible with a gateway out of reach, or one whose engine is: refused, and nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_ansible_path import play
from .test_break_glass import THERE
from .two_gateways import Site, write

VERBS: list[tuple[str, dict[str, Any]]] = [
    ("rollback", {"cutover_all": True}),
    ("rollback", {"cutover_tenant": "doc-zam"}),
    ("rollback", {"cutover_model": "own-chat"}),
    ("main", {"cutover_tenant": "klinik-seri", "cutover_routes": ["embed"], "cutover_state": "onprem"}),
]


def both_answer(site: Site) -> None:
    for gateway in site.gateways.values():
        gateway.cloud.answers_questions = gateway.engine.answers_questions = True


@pytest.mark.parametrize(("verb", "variables"), VERBS)
def test_a_gateway_that_ansible_cannot_reach_stops_the_change_before_it_begins(
    site: Site, tmp_path: Path, verb: str, variables: dict[str, Any]
) -> None:
    both_answer(site)
    site.servers["gw2"].stop()
    hosts = yaml.safe_load((site.directory / "hosts.yml").read_text())
    hosts["site_hosts"]["children"]["gateway"]["hosts"]["gw2"]["ansible_connection"] = "ssh"
    write(site.directory / "hosts.yml", hosts)
    done = play(site, tmp_path, verb, **variables)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "UNREACHABLE" in done.stdout + done.stderr
    assert site.states() == {"gw1": THERE, "gw2": THERE}
    assert not site.gateways["gw1"].place.journal.exists()


def test_one_gateway_whose_engine_does_not_answer_keeps_a_tenant_where_it_is_on_both(
    site: Site, tmp_path: Path
) -> None:
    both_answer(site)
    site.gateways["gw2"].engine.stop()
    verb, variables = VERBS[-1]
    done = play(site, tmp_path, verb, **variables)
    assert done.returncode == 2
    assert "not ready: embed is not moved" in done.stdout + done.stderr
    assert site.states() == {"gw1": THERE, "gw2": THERE}
