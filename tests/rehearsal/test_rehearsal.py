"""What a whole rehearsal leaves behind, and what a second run and a lost controller do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import COMMAND, ROOT, RehearsedSite

pytestmark = [pytest.mark.twin, pytest.mark.timeout(2400)]


def test_all_ten_days_are_promoted(rehearsed: RehearsedSite) -> None:
    days = rehearsed.status()["days"]
    assert [(day["day"], day["verdict"]) for day in days] == [(number, "promote") for number in range(1, 11)]


@pytest.mark.parametrize(
    ("kind", "at_least"), [("derate", 1), ("restore", 1), ("rollback", 2), ("cutover", 2), ("drill", 1)]
)
def test_each_change_is_recorded_with_its_time(rehearsed: RehearsedSite, kind: str, at_least: int) -> None:
    events = [event for event in rehearsed.status()["events"] if event["kind"] == kind]
    assert len(events) >= at_least
    assert all(event["at"] for event in events)


def test_the_ledger_verifies(rehearsed: RehearsedSite) -> None:
    verified = rehearsed.run("evidence", "verify", "-i", str(rehearsed.directory))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_one_changed_byte_in_any_record_is_found_and_named(rehearsed: RehearsedSite, tmp_path: Path) -> None:
    shutil.copytree(rehearsed.directory, tmp_path / "twin", ignore=shutil.ignore_patterns("lab", "runs"))
    records = sorted((tmp_path / "twin" / "evidence").glob("0*.json"))
    assert len(records) > 14
    for record in records[:: max(1, len(records) // 6)]:
        whole = record.read_bytes()
        position = len(whole) // 2
        record.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        verified = rehearsed.run("evidence", "verify", "-i", str(tmp_path / "twin"))
        record.write_bytes(whole)
        assert verified.returncode == 20, record.name
        assert record.name in verified.stdout + verified.stderr


def test_the_cloud_never_heard_of_the_sensitive_tenant(rehearsed: RehearsedSite) -> None:
    shown = rehearsed.run("twin", "shell", "-i", str(rehearsed.directory), "cloud", "cat", "/var/lib/twin/cloud.jsonl")
    seen = [json.loads(line) for line in shown.stdout.splitlines() if line.startswith("{")]
    site = json.loads(rehearsed.run("site", "check", "-i", str(rehearsed.directory), "--json").stdout)
    sensitive = {name for name, tenant in site["tenants"].items() if tenant["policy"] == "sensitive"}
    assert sensitive
    assert len(seen) > 20, "the cloud stand-in must have answered the other tenants, or this test shows nothing"
    assert [entry for entry in seen if entry.get("tenant") in sensitive] == []


@pytest.mark.parametrize("number", range(1, 6))
def test_a_day_of_preparation_run_again_changes_nothing(rehearsed: RehearsedSite, number: int) -> None:
    again = rehearsed.second_run(number)
    if ", changed=0," not in again.stdout:  # an earlier test changed what this day looks after
        again = rehearsed.day(number)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-2000:]
    assert ", changed=0," in again.stdout, again.stdout[-3000:]


def interrupt_during(site: RehearsedSite, number: int, tasks: int) -> None:
    """SIGKILL the controller once the day has begun its `tasks`-th task."""
    runs = site.directory / ".state" / "runs"
    before = set(runs.glob("*/run.json"))
    with subprocess.Popen(
        [COMMAND, "day", str(number), "-i", str(site.directory), "--yes"],
        cwd=ROOT,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as controller:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and controller.poll() is None:
            begun = [json.loads(path.read_text()) for path in set(runs.glob("*/run.json")) - before]
            if begun and begun[0].get("tasks_done", 0) >= tasks:
                break
            time.sleep(0.05)
        assert controller.poll() is None, f"day {number} ended before it could be interrupted"
        os.kill(controller.pid, signal.SIGKILL)


@pytest.mark.parametrize(("number", "tasks"), [(4, 6), (6, 4), (9, 8)])
def test_a_killed_controller_leaves_a_state_that_status_explains_and_a_rerun_finishes(
    rehearsed: RehearsedSite, number: int, tasks: int
) -> None:
    if number == 9:
        rehearsed.give_the_model_back()
    interrupt_during(rehearsed, number, tasks)
    time.sleep(2)
    run = rehearsed.status()["run"]
    assert run["state"] == "interrupted"
    assert run["day"] == number
    explained = rehearsed.run("status", "-i", str(rehearsed.directory)).stdout
    assert f"day {number}" in explained and "interrupted" in explained
    again = rehearsed.day(number)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
    assert rehearsed.status()["run"]["state"] != "interrupted"
