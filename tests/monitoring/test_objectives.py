"""Objectives: the budget's alerts ring at their speed, in both windows, not for a bad request of a quiet night."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitor import SETTINGS, program

from gpu_cutover.monitoring import rules, slo
from gpu_cutover.router import metrics

OK = 'haproxy_frontend_http_responses_total{proxy="edge",host="gw1",code="2xx"}'
BAD = 'haproxy_frontend_http_responses_total{proxy="edge",host="gw1",code="5xx"}'
ONE = replace(SETTINGS, targets={})  # 99.9 % only


def ringing(directory: Path, series: dict[str, str], at: str, names: set[str], every: str = "5m") -> None:
    """Asserts which of the budget's alerts ring; samples a minute apart, rules evaluated `every` so often."""
    data = rules.rule_file(ONE)
    data["groups"] = [group for group in data["groups"] if group["name"] == "objectives"]
    (directory / "rules.yml").write_text(yaml.safe_dump(data))
    asked = [
        {
            "expr": f'count(ALERTS{{alertname="{burn.name}",alertstate="firing"}})',
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": 1}] if burn.name in names else [],
        }
        for burn in slo.BURNS
    ]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": asked,
    }
    content = {"rule_files": ["rules.yml"], "evaluation_interval": every, "tests": [test]}
    (directory / "tests.yml").write_text(yaml.safe_dump(content))
    ran = subprocess.run(
        [program("promtool"), "test", "rules", str(directory / "tests.yml")], capture_output=True, text=True, timeout=90
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


# Of 10,000 requests a minute: burning at 20, 8, 4 and 1.5 times the allowed speed for long enough to fill the windows.
@pytest.mark.parametrize(
    ("bad", "hours", "names"),
    [
        (5, 74, set()),
        (15, 74, {"BudgetRunsOut"}),
        (40, 25, {"BudgetBurnsSlowly", "BudgetRunsOut"}),
        (80, 7, {"BudgetBurns", "BudgetBurnsSlowly", "BudgetRunsOut"}),
        (200, 2, {burn.name for burn in slo.BURNS}),
    ],
)
def test_the_faster_the_budget_burns_the_more_rings(bad: int, hours: int, names: set[str], tmp_path: Path) -> None:
    series = {OK: f"0+{10_000 - bad}x{60 * hours}", BAD: f"0+{bad}x{60 * hours}"}
    ringing(tmp_path, series, f"{hours}h", names, every="1h")


def test_a_burst_that_is_over_stops_ringing_fast(tmp_path: Path) -> None:
    """An hour of 2 % errors, then ten clean minutes: the long window is still full of them, the short one is clean."""
    series = {OK: "0+9800x60 598000+10000x10", BAD: "0+200x60 12000x10"}
    ringing(tmp_path, series, "70m", {"BudgetBurns", "BudgetBurnsSlowly", "BudgetRunsOut"})


def test_a_few_bad_requests_of_a_quiet_night_wake_nobody(tmp_path: Path) -> None:
    """Three of sixty in an hour are 5 %, fifty times the budget, and three requests."""
    series = {OK: "0+1x60", BAD: "0x20 1x20 2x20 3x10"}
    ringing(tmp_path, series, "60m", set())


def test_no_traffic_is_no_alarm(tmp_path: Path) -> None:
    ringing(tmp_path, {OK: "5x70", BAD: "2x70"}, "70m", set())


def test_the_plans_targets_and_three_nines_are_objectives() -> None:
    shares = {one.name: one.objective for one in slo.objectives(SETTINGS)}
    assert shares == {
        "availability-99.8": 0.998,
        "availability-99.9": 0.999,
        "whisper_p95_s": 0.95,
        "soap_p95_s": 0.95,
        "soap_first_token_p95_s": 0.95,
        "retrieval_p95_s": 0.95,
    }
    assert [one.name for one in slo.objectives(ONE)] == ["availability-99.9"]


def test_four_alerts_at_the_workbooks_speeds_for_each_objective() -> None:
    made = list(slo.alerts(SETTINGS))
    assert len(made) == 4 * len(slo.objectives(SETTINGS))
    assert [(burn.rate, burn.long, burn.short) for burn in slo.BURNS] == [
        (14.4, "1h", "5m"),
        (6.0, "6h", "30m"),
        (3.0, "1d", "2h"),
        (1.0, "3d", "6h"),
    ]


def test_bounds_are_those_of_the_router() -> None:
    assert tuple(map(float, slo.BOUNDS)) == tuple(map(float, metrics.SECONDS))


@pytest.mark.parametrize("target_s", [0.01, 0.05, 0.15, 2.0, 2.5, 4.0, 22.0, 60.0, 100.0, 500.0])
def test_the_share_within_a_target_is_read_as_a_quantile_is(target_s: float, tmp_path: Path) -> None:
    """95 % are within T exactly when `histogram_quantile(0.95)` is T: the same line between two bounds."""
    objective = next(
        one for one in slo.objectives(replace(SETTINGS, targets={"soap_p95_s": target_s})) if one.name == "soap_p95_s"
    )
    counts = dict(zip(slo.BOUNDS, itertools.accumulate([10.0] * len(slo.BOUNDS)), strict=True))
    below = {**{f"{float(bound)}": count for bound, count in counts.items()}, "+Inf": 10.0 * len(slo.BOUNDS)}
    name = "gpu_cutover_router_total_seconds"
    labels = 'leg="onprem",route="chat"'
    series = [
        *({"series": f'{name}_bucket{{{labels},le="{le}"}}', "values": f"0+{count}x10"} for le, count in below.items()),
        {"series": f"{name}_count{{{labels}}}", "values": f"0+{below['+Inf']}x10"},
    ]
    slow = f"({objective.bad}) / ({objective.total})".replace("$window", "5m")
    back = f"histogram_quantile(scalar(1 - {slow}), sum by (le) (rate({name}_bucket[5m])))"
    expected = min(target_s, slo.BOUNDS[-1])
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": f"round(1e4 * {back})",
                "eval_time": "10m",
                "exp_samples": [{"labels": "{}", "value": round(1e4 * expected)}],
            }
        ],
    }
    (tmp_path / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]})
    )
    ran = subprocess.run(
        [program("promtool"), "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
