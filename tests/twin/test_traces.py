"""A lab leaves nothing behind, and two labs know nothing of each other."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from gpu_cutover.twin import network

from .lab_under_test import LabUnderTest

pytestmark = pytest.mark.twin


def let_it_start_booting(lab: LabUnderTest, more_s: float) -> subprocess.Popen[str]:
    """`twin up` in the middle: the network is there, the hosts are being made."""
    running = lab.begin("up")
    assert running.stdout
    line = running.stdout.readline()
    assert line.startswith("network"), line
    time.sleep(more_s)
    return running


def test_down_removes_every_trace_also_of_shared_ssh_connections(spare_lab: LabUnderTest) -> None:
    spare_lab.up()
    assert spare_lab.ansible("all", "-m", "ansible.builtin.ping").returncode == 0
    masters = [line for line in spare_lab.processes().values() if line.startswith("ssh:")]
    assert len(masters) == 2
    assert len(spare_lab.traces()) > 20
    spare_lab.down()
    assert spare_lab.traces() == []
    spare_lab.down()  # and again, of nothing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.0, 0.6])
def test_an_interrupted_up_takes_everything_back(
    spare_lab: LabUnderTest, number: signal.Signals, after_s: float
) -> None:
    running = let_it_start_booting(spare_lab, after_s)
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 30
    assert "interrupted" in said
    assert spare_lab.traces() == []


def test_a_killed_up_is_finished_by_the_next_and_removed_by_down(spare_lab: LabUnderTest) -> None:
    for after_s in (0.0, 0.3, 0.7):
        running = let_it_start_booting(spare_lab, after_s)
        running.kill()
        running.communicate(timeout=10)
        assert spare_lab.traces() != []
        spare_lab.up()
        assert all(spare_lab.answers(host) for host in ("gpu1", "cloud"))
        spare_lab.down()
        assert spare_lab.traces() == []


def test_a_killed_up_is_removed_by_down(spare_lab: LabUnderTest) -> None:
    running = let_it_start_booting(spare_lab, 0.2)
    running.kill()
    running.communicate(timeout=10)
    spare_lab.down()
    assert spare_lab.traces() == []


def test_two_labs_with_the_same_addresses_know_nothing_of_each_other(
    lab: LabUnderTest, spare_lab: LabUnderTest
) -> None:
    spare_lab.up()
    for one in (lab, spare_lab):
        one.shell("gpu1", "sh", "-c", f"echo {one.name} > /root/whose")
    for one in (lab, spare_lab):
        assert one.ssh("gpu1", "cat /root/whose").stdout.strip() == one.name
        answer = one.ansible("gpu1", "-m", "ansible.builtin.command", "-a", "cat /root/whose")
        assert answer.stdout.splitlines()[-1] == one.name
    wrong_way = LabUnderTest(lab.name, spare_lab.site)  # the other site's keys must not open this lab
    assert "Host key verification failed" in wrong_way.ssh("gpu1", "true").stderr
    refused = wrong_way.twin("down")
    assert (refused.returncode, "belongs to" in refused.stderr) == (2, True)
    spare_lab.down()
    assert lab.answers("gpu1")
    assert network.leader_of(spare_lab.name, "gpu1") is None
