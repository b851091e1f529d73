"""From a site to the files on its monitor: the keys it may declare, and what the role's filters make of them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitor import ROOT
from pydantic import ValidationError

from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.monitoring import gates
from gpu_cutover.monitoring.settings import Settings
from gpu_cutover.planning.derive import derive
from gpu_cutover.site.load import load_site
from gpu_cutover.site.model import Monitoring

LEAST: dict[str, Any] = {"scrape_interval_s": 15, "retention_days": 90, "page": "on-call"}
MAIL = {"to": "a@clinic.test", "sender": "monitor@clinic.test", "smarthost": "mail.clinic.test:587"}


def filters() -> Any:
    path = ROOT / "roles" / "monitoring" / "filter_plugins" / "monitoring.py"
    spec = importlib.util.spec_from_file_location("monitoring_filters", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()


def settings(site: str) -> dict[str, Any]:
    """As the role's variables."""
    return asdict(Settings.of_plan(derive(load_site(ROOT / "inventory" / site))))


def test_ways_to_people_and_what_else_stands_there_are_optional() -> None:
    assert Monitoring(**LEAST).model_dump()["webhook"] is None
    assert (Monitoring(**LEAST).grafana, Monitoring(**LEAST).dcgm_exporter) == (False, False)
    declared = Monitoring(**LEAST, webhook="https://pager.clinic.test/hook", mail=MAIL, grafana=True)
    assert declared.model_dump()["mail"] == MAIL


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook": "pager.clinic.test"},
        {"webhook": "http://pager/a b"},
        {"mail": {**MAIL, "to": "nobody"}},
        {"mail": {**MAIL, "smarthost": "mail.clinic.test"}},
        {"mail": {"to": "a@clinic.test"}},
        {"mail": {**MAIL, "to": "a@clinic.test\nb"}},
        {"grafana": "yes"},
    ],
)
def test_what_would_reach_nobody_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Monitoring(**LEAST, **wrong)


@pytest.mark.parametrize("site", ["twin", "example-h100", "example-l40s"])
def test_every_site_of_the_project_gets_rules_routes_and_dashboards(site: str) -> None:
    made, given = filters(), settings(site)
    content = yaml.safe_load(made["monitoring_rules"](given))
    shipped = made["monitoring_shipped"](given)
    assert shipped["names"] == sorted({r["alert"] for g in content["groups"] for r in g["rules"] if "alert" in r})
    assert len(made["monitoring_dashboards"](given)) == 6
    assert all(json.loads(file["content"])["panels"] for file in made["monitoring_dashboards"](given))
    ways = {"listeners": ["http://10.0.0.1:9405/alerts"], "heartbeat_s": made["monitoring_heartbeat_s"](given)}
    routed = yaml.safe_load(made["monitoring_alertmanager"]({**ways, "webhook": "", "mail": {}}))
    assert {receiver["name"] for receiver in routed["receivers"]} == {"watchdog", "page", "ticket"}


def test_the_playbooks_wire_the_same_as_a_plan_gives() -> None:
    wired = yaml.safe_load((ROOT / "playbooks" / "group_vars" / "all" / "monitoring.yml").read_text())
    assert "site.gates.thermal_margin_min_celsius" in wired["monitoring_margin_celsius"]
    assert "soap_first_token_p95_s" in wired["monitoring_first_token_s"]
    assert "site.monitoring.scrape_interval_s" in wired["monitoring_interval_s"]
    assert "'accepted'" in wired["monitoring_targets"]


def test_the_last_verdict_of_each_day_is_told_with_its_time(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    assert "gpu_cutover_ledger_records 0" in gates.exposition(ledger.records())
    for day, verdict in ((7, "hold"), (8, "hold"), (7, "promote")):
        ledger.append("gate", f"day{day:02d}", {"day": day, "verdict": verdict, "finished": "2027-01-01T00:00:10Z"})
    ledger.append("drill", "thermal", {})
    text = filters()["monitoring_gates"](str(tmp_path))
    assert 'gpu_cutover_gate_promoted{day="7",verdict="promote"} 1' in text
    assert 'gpu_cutover_gate_promoted{day="8",verdict="hold"} 0' in text
    assert 'verdict="hold"} 1' not in text
    assert 'gpu_cutover_gate_finished_seconds{day="7"} 1798761610' in text
    assert "gpu_cutover_ledger_records 4" in text
