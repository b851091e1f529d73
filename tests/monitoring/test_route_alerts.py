"""Alert rules and scrapes about routes, as the role renders them: they ask for figures that our programs expose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from monitor import SETTINGS
from prometheus_client.parser import text_string_to_metric_families

from gpu_cutover.monitoring.rules import rule_file
from gpu_cutover.peers.metrics import exposition

ROLE = Path(__file__).parents[2] / "roles" / "monitoring"
FIGURE = re.compile(r"\b(gpu_cutover_(?:peer_|route_|watch)\w*)")


def rendered(name: str, **variables: Any) -> Any:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    known = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    text = (ROLE / "templates" / name).read_text()
    return yaml.safe_load(environment.from_string(text).render({**known, "monitoring_host": "mon1", **variables}))


def rules() -> dict[str, dict[str, Any]]:
    return {
        rule["alert"]: rule for group in rule_file(SETTINGS)["groups"] for rule in group["rules"] if "alert" in rule
    }


@pytest.fixture
def exposed() -> dict[str, list[Any]]:
    peers = {"gw2": {"problem": "", "agrees": False}, "gw3": {"problem": "timed out", "agrees": None}}
    watches = [{"tenant": 'doc "zam"', "verdict": "rolled_back"}, {"tenant": "klinik", "verdict": "bad"}]
    text = exposition(peers, [{"t": 200.0}, {"t": 100.0}], watches)
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_the_rules_about_routes_ask_for_figures_that_are_exposed(exposed: dict[str, list[Any]]) -> None:
    asked = {name for rule in rules().values() for name in FIGURE.findall(rule["expr"])}
    assert {"gpu_cutover_peer_agrees", "gpu_cutover_route_change_unrecorded_since_seconds"} < asked <= set(exposed)
    verdicts = {sample.labels["verdict"] for sample in exposed["gpu_cutover_watch"]}
    asked_verdicts = {word for rule in rules().values() for word in re.findall(r'verdict="(\w+)"', rule["expr"])}
    assert asked_verdicts == verdicts


def test_figures_say_who_disagrees_who_is_silent_and_since_when_the_ledger_lacks_something(
    exposed: dict[str, list[Any]],
) -> None:
    def values(name: str) -> dict[str, float]:
        return {sample.labels.get("peer", ""): sample.value for sample in exposed[name]}

    assert values("gpu_cutover_peer_answers") == {"gw2": 1, "gw3": 0}
    assert values("gpu_cutover_peer_agrees") == {"gw2": 0}, "who does not answer neither agrees nor disagrees"
    assert values("gpu_cutover_route_changes_unrecorded") == {"": 2}
    assert values("gpu_cutover_route_change_unrecorded_since_seconds") == {"": 100.0}
    assert exposed["gpu_cutover_watch"][0].labels == {"tenant": 'doc "zam"', "verdict": "rolled_back"}


def test_without_anything_unrecorded_there_is_nothing_to_be_older_than_an_hour() -> None:
    assert "\ngpu_cutover_route_change_unrecorded_since_seconds " not in exposition({}, [], [])


def test_disagreement_rings_after_a_minute_and_a_missing_record_after_an_hour() -> None:
    disagree, unrecorded = rules()["GatewaysDisagree"], rules()["RouteChangeUnrecorded"]
    assert (disagree["for"], disagree["labels"]["severity"]) == ("60s", "page")
    assert unrecorded["expr"].endswith("> 3600")


def test_a_job_with_its_own_path_is_scraped_there() -> None:
    scrapes = [
        {"job": "edge", "host": "gw1", "address": "10.0.0.1:8405"},
        {"job": "routes", "host": "gw1", "address": "10.0.0.1:8405", "path": "/routes"},
    ]
    config = rendered("prometheus.yml.j2", monitoring_scrapes=scrapes)
    paths = {job["job_name"]: job.get("metrics_path") for job in config["scrape_configs"]}
    assert (paths["edge"], paths["routes"]) == (None, "/routes")
