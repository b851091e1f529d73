"""Every alert fires when it should and is silent when it should be: `promtool test rules` over the rules as shipped."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitor import ROOT, SETTINGS, program

from gpu_cutover.monitoring import rules
from gpu_cutover.monitoring.alerts import NONE, PAGE, TICKET, every_alert

RULES = rules.rule_file(SETTINGS)
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
TABLE = {alert.name: alert for group in every_alert(SETTINGS).values() for alert in group}


@dataclass(frozen=True)
class Case:
    """Series as promtool writes them, a sample `every` so often; asked at `at`."""

    fires: dict[str, str]
    silent: dict[str, str]
    at: str = "10m"
    every: str = "15s"


GPU = '{host="gpu1",gpu="2"}'
ALL_JOBS = {f'up{{job="{job}"}}': "1x40" for job in SETTINGS.jobs}
DAY_S = 86400


def histogram(name: str, under_1: int, under_2_5: int) -> dict[str, str]:
    """Of a hundred requests every 15 s so many under 1 s and under 2.5 s."""
    steps = {"1": under_1, "2.5": under_2_5, "+Inf": 100}
    return {f'vllm:{name}_bucket{{model_name="m",le="{le}"}}': f"0+{step}x40" for le, step in steps.items()}


def gauge(name: str, bad: float, good: float) -> Case:
    return Case({name: f"{bad}x40"}, {name: f"{good}x40"})


CASES: dict[str, Case] = {
    "Watchdog": Case({}, {}),
    "HostLost": gauge('up{job="node",host="gw1"}', 0, 1),
    "TargetDown": Case(
        {'up{job="guard",host="gpu1"}': "0x40"}, {'up{job="vllm",host="gpu1"}': "0x40", 'up{job="node"}': "0x40"}
    ),
    "VirtualAddressLost": gauge('up{job="virtual-address",host="ai"}', 0, 1),
    "JobMissing": Case({key: value for key, value in ALL_JOBS.items() if "guard" not in key}, ALL_JOBS),
    "UnitRestarted": Case(
        {'node_systemd_service_restart_total{name="vllm@m.service",host="gpu1"}': "0x38 1x1"},
        {'node_systemd_service_restart_total{name="vllm@m.service",host="gpu1"}': "3x40"},
    ),
    "DiskFillsUp": Case(
        {
            'node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}': "9x60",
            'node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}': "100x60",
        },
        {
            'node_filesystem_avail_bytes{mountpoint="/",fstype="tmpfs"}': "9x60",
            'node_filesystem_size_bytes{mountpoint="/",fstype="tmpfs"}': "100x60",
        },
        "14m",
    ),
    "RulesBroken": Case(
        {'prometheus_rule_evaluation_failures_total{rule_group="x"}': "0+1x40"},
        {'prometheus_rule_evaluation_failures_total{rule_group="x"}': "5x40"},
    ),
    "AlertsNotSent": Case(
        {'alertmanager_notifications_failed_total{integration="email"}': "0+1x40"},
        {'alertmanager_notifications_failed_total{integration="email"}': "7x40"},
    ),
    "MonitorSilent": gauge('gpu_cutover_alarms_silent{host="gw1"}', 1, 0),
    "EdgeWithoutRouter": Case(
        {'haproxy_backend_active_servers{proxy="router_sealed",host="gw1"}': "0x40"},
        {'haproxy_backend_active_servers{proxy="provider_cloud",host="gw1"}': "0x40"},
    ),
    "SealBroken": gauge('gpu_cutover_router_sealed{host="gw1"}', 0, 1),
    "BreakerOpen": gauge('gpu_cutover_router_breaker_open{model="m",host="gw1"}', 1, 0),
    "CloudFails": Case(
        {
            'gpu_cutover_router_attempts_total{leg="cloud",outcome="ok"}': "0+90x40",
            'gpu_cutover_router_attempts_total{leg="cloud",outcome="timeout"}': "0+10x40",
        },
        {
            'gpu_cutover_router_attempts_total{leg="cloud",outcome="ok"}': "0+99x40",
            'gpu_cutover_router_attempts_total{leg="cloud",outcome="error"}': "0+1x40",
            'gpu_cutover_router_attempts_total{leg="onprem",outcome="error"}': "0+50x40",
        },
    ),
    "RequestsTurnedAway": Case(
        {'gpu_cutover_router_turned_away_total{host="gw1",reason="full"}': "0+1x40"},
        {'gpu_cutover_router_turned_away_total{host="gw1",reason="full"}': "4x40"},
    ),
    "TableWrong": gauge("gpu_cutover_router_table_bad", 1, 0),
    "PlacementUnknown": gauge("gpu_cutover_router_placement_age_seconds", 31, 2),
    "CertificateEnds": gauge('gpu_cutover_certificate_not_after_seconds{certificate="server"}', 20 * DAY_S, 30 * DAY_S),
    "GatewaysDisagree": gauge('gpu_cutover_peer_agrees{host="gw1",peer="gw2"}', 0, 1),
    "RouteChangeUnrecorded": Case(
        {"gpu_cutover_route_change_unrecorded_since_seconds": "60x300"},
        {"gpu_cutover_route_change_unrecorded_since_seconds": "3000x300"},
        "65m",
    ),
    "TenantTakenBack": Case(
        {'gpu_cutover_watch{tenant="t",verdict="rolled_back"}': "1x40"},
        {'gpu_cutover_watch{tenant="t",verdict="clean"}': "1x40"},
    ),
    "TenantNotTakenBack": Case(
        {'gpu_cutover_watch{tenant="t",verdict="bad"}': "1x40"},
        {'gpu_cutover_watch{tenant="t",verdict="running"}': "1x40"},
    ),
    "EngineDown": gauge('gpu_guard_engine_up{model="m"}', 0, 1),
    "EngineNotScraped": Case(
        {'up{job="vllm",host="gpu1",engine_model="m"}': "0x40", 'gpu_guard_engine_up{host="gpu1",model="m"}': "1x40"},
        # The placement in force does without it: the guard does not name it.
        {
            'up{job="vllm",host="gpu1",engine_model="m"}': "0x40",
            'gpu_guard_engine_up{host="gpu1",model="other"}': "1x40",
        },
    ),
    "RequestsWaiting": Case(
        {'vllm:num_requests_waiting{model_name="m"}': "11x40"}, {'vllm:num_requests_waiting{model_name="m"}': "10x40"}
    ),
    "CacheFull": Case(
        {'vllm:kv_cache_usage_perc{model_name="m"}': "0.95x40", 'vllm:num_preemptions_total{model_name="m"}': "0+1x40"},
        # Full and nobody preempted is what a cache is for.
        {'vllm:kv_cache_usage_perc{model_name="m"}': "0.95x40", 'vllm:num_preemptions_total{model_name="m"}': "3x40"},
    ),
    "FirstTokenSlow": Case(
        histogram("time_to_first_token_seconds", 5, 10), histogram("time_to_first_token_seconds", 99, 100)
    ),
    "QueueSlow": Case(histogram("request_queue_time_seconds", 5, 10), histogram("request_queue_time_seconds", 99, 100)),
    "TrainingLong": Case(
        {
            'node_systemd_unit_start_time_seconds{host="gpu1",name="gpu-cutover-train@x.service"}': "0x310",
            'node_systemd_unit_state{host="gpu1",name="gpu-cutover-train@x.service",state="active"}': "1x310",
        },
        {
            'node_systemd_unit_start_time_seconds{host="gpu1",name="gpu-cutover-train@x.service"}': "0x310",
            'node_systemd_unit_state{host="gpu1",name="gpu-cutover-train@x.service",state="active"}': "0x310",
            'node_systemd_unit_start_time_seconds{host="gpu1",name="gpu-cutover-burn-in.service"}': "0x310",
            'node_systemd_unit_state{host="gpu1",name="gpu-cutover-burn-in.service",state="active"}': "1x310",
        },
        "25h",
        "5m",
    ),
    "GpuMarginSmall": gauge(f"gpu_guard_margin_celsius{GPU}", 4.9, 5.0),
    "GpuDerated": Case(
        {'gpu_guard_level{gpu="2",level="derated"}': "1x40"},
        {'gpu_guard_level{gpu="2",level="capped"}': "1x40", 'gpu_guard_level{gpu="2",level="derated"}': "0x40"},
    ),
    "GpuLost": gauge(f"gpu_guard_lost{GPU}", 1, 0),
    "GuardPages": Case({'gpu_guard_page{reason="all hot"}': "1x40"}, {"gpu_guard_pages": "0x40"}),
    "GuardBlind": Case(
        {"gpu_guard_sample_ok": "0x40"}, {"gpu_guard_sample_ok": "1x40", "gpu_guard_sample_age_seconds": "1x40"}
    ),
    "GuardObserveOnly": Case({"gpu_guard_observe_only": "1x300"}, {"gpu_guard_observe_only": "1x100 0x200"}, "65m"),
    "EccUncorrected": Case(
        {f"gpu_guard_ecc_uncorrected{GPU}": "0x20 2x20"}, {f"gpu_guard_ecc_uncorrected{GPU}": "2x20 0x20"}
    ),
    "RemapPending": gauge(f"gpu_guard_remap_pending{GPU}", 1, 0),
    "RecordsLost": Case({"gpu_cutover_router_records_lost": "0x30 3x10"}, {"gpu_cutover_router_records_lost": "3x40"}),
    "MirrorDrops": Case(
        {"gpu_cutover_router_mirror_dropped_total": "0+1x40"}, {"gpu_cutover_router_mirror_dropped_total": "9x40"}
    ),
    "GateNotPassed": Case(
        {'gpu_cutover_gate_promoted{day="8",verdict="hold"}': "0x300"},
        {'gpu_cutover_gate_promoted{day="8",verdict="promote"}': "1x300"},
        "65m",
    ),
}


def promtool(directory: Path, alert: str, tests: list[dict[str, Any]]) -> None:
    """Run tests over the rules of one alert. Raises AssertionError with promtool's words."""
    found = [rule for rule in ALERTS if rule["alert"] == alert]
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": found}]}))
    (directory / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": tests[0]["interval"], "tests": tests})
    )
    ran = subprocess.run(
        [program("promtool"), "test", "rules", str(directory / "tests.yml")], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def asked(alert: str, series: dict[str, str], at: str, firing: bool, every: str = "15s") -> dict[str, Any]:
    count = {"labels": "{}", "value": 1}
    return {
        "interval": every,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}}))',
                "eval_time": at,
                "exp_samples": [count] if firing else [],
            }
        ],
    }


def test_every_alert_has_its_case() -> None:
    assert set(CASES) == set(TABLE)


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_is_silent_otherwise(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    tests = [asked(name, case.fires, case.at, True, case.every)]
    if name != "Watchdog":
        tests.append(asked(name, case.silent, case.at, False, case.every))
    promtool(tmp_path, name, tests)


@pytest.mark.parametrize("name", [name for name, alert in TABLE.items() if alert.hold_s])
def test_what_lasts_one_scrape_only_wakes_nobody(name: str, tmp_path: Path) -> None:
    """The same trouble, asked before its time is up."""
    seconds = TABLE[name].hold_s - SETTINGS.interval_s
    promtool(tmp_path, name, [asked(name, CASES[name].fires, f"{seconds}s", False)])


@pytest.mark.parametrize(
    "rule", ALERTS, ids=lambda rule: "-".join((rule["alert"], rule["labels"].get("objective", "")))
)
def test_an_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert rule["labels"]["severity"] in (PAGE, TICKET, NONE)
    assert rule["labels"]["page"] == SETTINGS.page
    assert told["summary"]
    assert len(told["meaning"].split()) > 3
    page = ROOT / told["runbook"]
    assert page.is_file()


def test_the_page_for_the_person_on_call_names_every_alert() -> None:
    page = (ROOT / "runbooks" / "holiday-on-call.md").read_text()
    assert [name for name in rules.names(RULES) if not re.search(rf"\b{name}\b", page)] == []


def test_equal_settings_give_equal_bytes_and_the_checker_accepts_them(tmp_path: Path) -> None:
    text = rules.text(SETTINGS)
    assert text == rules.text(SETTINGS)
    (tmp_path / "rules.yml").write_text(text)
    ran = subprocess.run(
        [program("promtool"), "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
