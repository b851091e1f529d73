"""Whole runs: real Ansible against this machine as three hosts, started as a person starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_cutover.runs.record import Run, newest_first, running

from .conftest import Lab

QUICK = """
    # Day 3: quick
    - name: Day 3
      hosts: gpu:gateway
      gather_facts: false
      tasks:
        - name: Say
          ansible.builtin.debug: {msg: hello}
        - name: The gate
          run_once: true
          answer: {gate_verdict: "%s", failed: %s, msg: "two checks open", changed: false}
    """
SLOW = """
    # Day 4: slow
    - name: Day 4
      hosts: gateway
      gather_facts: false
      tasks:
        - name: Work for long
          ansible.builtin.command: sleep 47.11
        - name: The gate
          answer: {gate_verdict: promote, changed: false}
    """
REFUSED = """
    # Day 5: refused
    - name: Day 5
      hosts: gateway
      gather_facts: false
      tasks:
        - name: Open the day
          answer: {failed: true, refused: true, msg: "Day 5 may not start"}
    """
WRONG_INPUT = """
    # Day 5: wrong input
    - name: Day 5
      hosts: gpu:gateway
      gather_facts: false
      tasks:
        - name: Verify
          answer:
            failed: true
            wrong_input: "{{ %s or inventory_hostname == 'gw1' }}"
            msg: "SHA256SUMS: bin/uv: was altered"
    """

# The same call as `gpu-cutover day`, without loading a declared site (its own tests are in tests/site).
DAY = """
import os, sys
from pathlib import Path
from gpu_cutover.errors import Refused
from gpu_cutover.runs.day_command import run_day
from gpu_cutover.runs.start import tell
os.umask(0o077)
site_dir = Path(sys.argv[1])
try:
    finished, subject = run_day(site_dir, int(sys.argv[2]), {}, sys.stdout)
except Refused as refusal:
    sys.exit(f"refused: {refusal}")
sys.exit(tell(finished, subject, site_dir, False, sys.stdout))
"""


def start_day(lab: Lab, day: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DAY, str(lab.site_dir), str(day)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=lab.checkout,
    )


def plain_ansible(lab: Lab, playbook: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(lab.site_dir), str(playbook), *words],
        capture_output=True,
        text=True,
        cwd=lab.checkout,
        timeout=60,
        check=False,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def newest(lab: Lab) -> Run:
    return next(iter(newest_first(lab.site_dir)))


def status(lab: Lab) -> dict[str, object]:
    for day in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        if not list((lab.checkout / "playbooks").glob(f"day{day:02}_*.yml")):
            lab.playbook(f"day{day:02}_other", "# other\n")
    from gpu_cutover.runs.status_command import site_status

    return site_status(lab.site_dir, time.time())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def at_work(lab: Lab) -> bool:
    """Is the slow task running? The lock is taken a moment before the run has its folder."""
    run = next(iter(newest_first(lab.site_dir)), None)
    return running(lab.site_dir) is not None and run is not None and run.hosts == ["gw1"] and bool(sleepers(run.pid))


def sleepers(ansible_pid: int) -> list[int]:
    """The processes of the slow task: descendants of this run alone, other tests sleep too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _command(entry).startswith("sleep\x0047.11"):
            ancestors = _ancestors(int(entry.name))
            if ansible_pid in ancestors:
                found.append(int(entry.name))
    return found


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text()
    except OSError:
        return ""


def _ancestors(pid: int) -> set[int]:
    chain: set[int] = set()
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        chain.add(pid)
    return chain


@pytest.mark.parametrize(
    ("verdict", "failed", "code"), [("promote", "false", 0), ("hold", "true", 10), ("fail", "true", 20)]
)
def test_the_verdict_of_the_gate_is_the_exit_code(lab: Lab, verdict: str, failed: str, code: int) -> None:
    lab.playbook("day03_quick", QUICK % (verdict, failed))
    returned, output = finish(start_day(lab, 3))
    assert returned == code, output
    assert f"day 3, OS and driver: {verdict}" in output
    run = newest(lab)
    assert run.result is not None
    assert (run.result.state, run.result.verdict, run.day, run.check) == ("done", verdict, 3, False)
    assert [name for name, _ in run.timeline] == ["Say", "The gate"]
    assert running(lab.site_dir) is None
    assert "TASK [Say]" in next((lab.site_dir / ".state" / "runs").glob("*/log.txt")).read_text()


def test_nothing_a_run_leaves_is_readable_by_others(lab: Lab) -> None:
    lab.playbook("day03_quick", QUICK % ("promote", "false"))
    finish(start_day(lab, 3))
    for path in (lab.site_dir / ".state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_plain_ansible_playbook_leaves_the_same_record(lab: Lab) -> None:
    done = plain_ansible(lab, lab.playbook("day03_quick", QUICK % ("promote", "false")))
    assert done.returncode == 0, done.stderr
    run = newest(lab)
    assert run.result is not None
    assert (run.result.state, run.result.verdict, run.day) == ("done", "promote", 3)


def test_an_inventory_that_is_no_site_is_left_alone(lab: Lab) -> None:
    (lab.site_dir / "group_vars" / "all" / "site.yml").unlink()
    done = plain_ansible(lab, lab.playbook("day03_quick", QUICK % ("promote", "false")))
    assert done.returncode == 0, done.stderr
    assert not (lab.site_dir / ".state").exists()


def test_a_refused_day_says_why_and_exits_10(lab: Lab) -> None:
    lab.playbook("day05_refused", REFUSED)
    returned, output = finish(start_day(lab, 5))
    assert returned == 10, output
    assert "refused: Day 5 may not start" in output


@pytest.mark.parametrize(("others", "code"), [("true", 2), ("false", 30)])
def test_wrong_input_that_a_task_finds_exits_2_where_it_is_the_only_failure(lab: Lab, others: str, code: int) -> None:
    lab.playbook("day05_wrong", WRONG_INPUT % others)
    returned, output = finish(start_day(lab, 5))
    assert returned == code, output
    assert "gw1: task 'Verify' failed: SHA256SUMS: bin/uv: was altered" in output


def test_a_broken_playbook_is_an_error_with_ansibles_words(lab: Lab) -> None:
    lab.playbook("day03_quick", "# Day 3: broken\n- hosts: gpu\n  tasks: 7\n")
    returned, output = finish(start_day(lab, 3))
    assert returned == 30, output
    assert "list of task" in output.lower() or "tasks" in output


def test_a_host_out_of_reach_is_told_with_its_fix_and_exits_2(lab: Lab) -> None:
    hosts = (
        (lab.site_dir / "hosts.yml")
        .read_text()
        .replace("{gw1: }", "{gw1: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}}")
    )
    (lab.site_dir / "hosts.yml").write_text(hosts)
    lab.playbook("day03_quick", (QUICK % ("promote", "false")).replace("debug: {msg: hello}", "ping:"))
    returned, output = finish(start_day(lab, 3))
    assert returned == 2, output
    assert "gw1: cannot be reached" in output
    assert "Fix: " in output


def test_a_second_run_is_refused_by_both_ways_of_starting(lab: Lab) -> None:
    slow, quick = lab.playbook("day04_slow", SLOW), lab.playbook("day03_quick", QUICK % ("promote", "false"))
    first = start_day(lab, 4)
    try:
        wait_for(lambda: at_work(lab))
        returned, output = finish(start_day(lab, 3))
        assert returned != 0
        assert "refused: day 4, inference stack is running on this site" in output
        for playbook in (slow, quick):
            refused = plain_ansible(lab, playbook)
            assert refused.returncode == 10
            assert "refused: day 4, inference stack is running on this site" in refused.stderr
            assert "PLAY [" not in refused.stdout
            assert "Traceback" not in refused.stderr + refused.stdout
        state = status(lab)["run"]
        assert isinstance(state, dict)
        assert (state["state"], state["day"], state["task"], state["hosts"]) == ("running", 4, "Work for long", ["gw1"])
    finally:
        first.send_signal(signal.SIGINT)
        finish(first)


def test_ctrl_c_stops_everything_and_says_how_to_go_on(lab: Lab) -> None:
    lab.playbook("day04_slow", SLOW)
    process = start_day(lab, 4)
    wait_for(lambda: at_work(lab))
    pids = [newest(lab).pid, *sleepers(newest(lab).pid)]
    process.send_signal(signal.SIGINT)
    returned, output = finish(process)
    assert returned == 30, output
    assert "interrupted at task Work for long, host gw1; resume with: gpu-cutover day 4" in output
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert running(lab.site_dir) is None


@pytest.mark.parametrize("victim", ["controller", "ansible"])
def test_a_killed_run_leaves_nothing_running_and_status_explains_it(lab: Lab, victim: str) -> None:
    lab.playbook("day04_slow", SLOW)
    process = start_day(lab, 4)
    wait_for(lambda: at_work(lab))
    ansible = newest(lab).pid
    pids = [ansible, *sleepers(ansible)]
    os.kill(process.pid if victim == "controller" else ansible, signal.SIGKILL)
    finish(process)
    wait_for(lambda: not any(alive(pid) for pid in pids))
    wait_for(lambda: running(lab.site_dir) is None)
    found = status(lab)["run"]
    assert isinstance(found, dict)
    if victim == "controller":
        assert found["state"] == "interrupted"
        assert "at task Work for long, host gw1; run `gpu-cutover day 4` again: it resumes" in str(found["sentence"])
    else:
        assert json.loads(json.dumps(found))["last"]["result"] == "error"
    lab.playbook("day04_slow", SLOW.replace("47.11", "0"))
    returned, output = finish(start_day(lab, 4))
    assert returned == 0, output
    after = status(lab)["run"]
    assert isinstance(after, dict)
    assert after["state"] == "none"
