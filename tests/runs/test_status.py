"""What `status` says, from records written through the real Ledger and run files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.runs.record import Result, Run, make_runs_dir, stamp
from gpu_cutover.runs.status import build_status, duration_s, text
from gpu_cutover.runs.status_command import site_status

from .conftest import Lab

NOW = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)


def ticking() -> Callable[[], datetime]:
    looks = count()
    return lambda: NOW - timedelta(hours=2) + timedelta(seconds=next(looks))


def gate(day: int, verdict: str = "promote", open_checks: tuple[str, ...] = ()) -> dict[str, object]:
    checks = [{"id": name, "status": "unproven", "host": "gpu1", "sentence": "not read"} for name in open_checks]
    times = {"started": "2026-12-24T10:00:00Z", "finished": "2026-12-24T10:01:30Z"}
    return {"day": day, "verdict": verdict, "checks": checks, **times}


def at(lab: Lab) -> dict[str, object]:
    return site_status(lab.site_dir, NOW.timestamp())


def days(lab: Lab) -> list[dict[str, object]]:
    found = at(lab)["days"]
    assert isinstance(found, list)
    return found


def test_a_new_site_is_at_day_one(lab: Lab) -> None:
    status = at(lab)
    assert [day["verdict"] for day in days(lab)] == [None] * 10
    assert status["run"] == {"state": "none"}
    assert status["events"] == [] and status["routing"] == {}
    following = status["next"]
    assert isinstance(following, dict)
    assert (following["day"], following["why"], following["refused"]) == (1, "not run yet", None)
    assert "Day 2 may not start" in following["after_it_refused"]


def test_a_held_day_is_next_again_with_its_open_checks(lab: Lab) -> None:
    ledger = Ledger.open(lab.site_dir, ticking())
    ledger.append("gate", "day01", gate(1))
    ledger.append("gate", "day02", gate(2, "hold", ("lldp",)))
    lab.playbook("day02_cable", "# x\n")
    second = days(lab)[1]
    assert second["playbook"] == "playbooks/day02_cable.yml"
    assert (second["verdict"], second["duration_s"], second["waiver"]) == ("hold", 90.0, None)
    assert second["checks_failed"] == [{"id": "lldp", "status": "unproven", "host": "gpu1", "sentence": "not read"}]
    following = at(lab)["next"]
    assert isinstance(following, dict)
    assert (following["day"], following["why"]) == (2, "its gate says hold (open: lldp)")
    shown = text(at(lab), NOW.timestamp())
    assert "unproven: lldp [gpu1] - not read" in shown
    assert "next: day 2, cable and network" in shown


def test_a_waived_day_opens_the_next_until_its_last_day(lab: Lab) -> None:
    ledger = Ledger.open(lab.site_dir, ticking())
    ledger.append("gate", "day01", gate(1, "hold"))
    ledger.append("waiver", "day01", {"day": 1, "by": "Eng Lead", "reason": "later", "until": "2026-12-31"})
    following = at(lab)["next"]
    assert isinstance(following, dict)
    assert following["day"] == 2
    assert days(lab)[0]["waiver"] == {"by": "Eng Lead", "reason": "later", "until": "2026-12-31"}
    late = site_status(lab.site_dir, (NOW + timedelta(days=9)).timestamp())["next"]
    assert late["day"] == 1


def test_routing_is_what_the_last_change_left(lab: Lab) -> None:
    ledger = Ledger.open(lab.site_dir, ticking())
    ledger.append("cutover", "a", {"after": {"doc-zam": {"chat": "onprem", "audio": "onprem"}}})
    ledger.append("rollback", "b", {"after": {"doc-zam": {"chat": "cloud"}}, "started": 10.0, "finished": 10.62})
    status = at(lab)
    assert status["routing"] == {"doc-zam": {"chat": "cloud", "audio": "onprem"}}
    events = status["events"]
    assert isinstance(events, list)
    assert [(e["kind"], e["name"], e["duration_s"]) for e in events] == [
        ("cutover", "a", None),
        ("rollback", "b", 0.62),
    ]
    assert "doc-zam" in text(status, NOW.timestamp())


def write_run(lab: Lab, run_id: str, result: Result | None, check: bool = False) -> None:
    when = stamp(NOW.timestamp() - 180)
    run = Run(run_id, "day04_x", 4, check, "ana", 7, when, when, "", "litellm", "Start it", ["gw1"], result=result)
    run.write(make_runs_dir(lab.site_dir) / run_id)


def test_an_interrupted_run_is_explained_and_a_dry_run_hides_nothing(lab: Lab) -> None:
    write_run(lab, "20261224T100000-day04-1", None)
    write_run(lab, "20261224T110000-day04-2", Result("done"), check=True)
    run = at(lab)["run"]
    assert isinstance(run, dict)
    assert run["state"] == "interrupted"
    assert run["sentence"] == (
        "day 4 was interrupted 3 min ago at role litellm, task Start it, host gw1; "
        "run `gpu-cutover day 4` again: it resumes"
    )
    write_run(lab, "20261224T120000-day04-3", Result("failed"))
    shown = text(at(lab), NOW.timestamp())
    assert "the last one (day04_x) ended with failed at role litellm, task Start it" in shown


def test_durations_come_from_what_was_measured() -> None:
    assert duration_s({"duration_s": 1.5, "started": 0, "finished": 9}) == 1.5
    assert duration_s({"timeline": [{"t": 5.0}, {"t": 3.0}, {"t": "nonsense"}, 4]}) == 2.0
    assert duration_s({"started": True, "finished": 4}) is None
    assert duration_s({}) is None


def test_the_shape_that_programs_read(lab: Lab) -> None:
    status = build_status("lab", [], [], None, {}, NOW.timestamp())
    assert list(status) == ["site", "days", "next", "run", "events", "routing"]
    keys = ["day", "title", "playbook", "verdict", "at", "duration_s", "waiver", "checks_failed"]
    assert [list(day) for day in status["days"]] == [keys] * 10


def test_the_command_prints_json_and_loads_nothing_slow(lab: Lab) -> None:
    code = "import sys; from gpu_cutover.cli import main; main(sys.argv[1:]); sys.stderr.write(','.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "status", "-i", str(lab.site_dir), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["site"] == "lab"
    slow = {"ansible", "ansible_runner", "cryptography", "jinja2", "paramiko", "pydantic", "requests", "rich", "yaml"}
    assert slow & set(done.stderr.strip().splitlines()[-1].split(",")) == set()
