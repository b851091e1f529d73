"""Hosts of a lab behave like machines: they answer, resolve, reboot, lose power and cable, and come back."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from gpu_cutover.twin import network

from .lab_under_test import LabUnderTest

pytestmark = pytest.mark.twin


def wait_for_answer(lab: LabUnderTest, host: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not lab.answers(host):
        assert time.monotonic() < deadline, f"{host} did not answer within {timeout_s:.0f} s"
        time.sleep(0.1)


def test_ansible_and_ssh_reach_every_host_from_outside_the_labs_network(lab: LabUnderTest) -> None:
    pinged = lab.ansible("all", "-m", "ansible.builtin.ping")
    assert pinged.returncode == 0, pinged.stdout + pinged.stderr
    assert pinged.stdout.count("pong") == 2
    assert lab.ssh("gpu1", "hostname -f").stdout == "gpu1.clinic.test\n"
    assert lab.ssh("ops@gpu1.clinic.test", "sudo id -un").stdout == "root\n"


def test_systemd_is_healthy_and_the_host_has_nothing_of_the_product(lab: LabUnderTest) -> None:
    assert lab.shell("gpu1", "systemctl", "is-system-running", "--wait") == "running"
    assert lab.shell(
        "gpu1", "sh", "-c", "ls /srv/bundle /etc/apt/sources.list.d; cat /etc/apt/sources.list 2>&-; :"
    ) == ("/etc/apt/sources.list.d:\n\n/srv/bundle:")


def test_up_on_a_running_lab_changes_nothing(lab: LabUnderTest) -> None:
    before = lab.host("gpu1")["boot_id"]
    said = lab.up()
    assert said.count("already up") == 2
    assert "services" not in said
    assert lab.host("gpu1")["boot_id"] == before


def test_names_resolve_forward_and_reverse_and_the_cloud_has_its_public_name(lab: LabUnderTest) -> None:
    ask = ("getent", "-s", "hosts:dns", "hosts")
    assert lab.shell("gpu1", *ask, "cloud").split() == ["10.87.0.41", "cloud.clinic.test"]
    assert lab.shell("gpu1", *ask, "10.87.0.41").split() == ["10.87.0.41", "cloud.clinic.test"]
    assert lab.shell("gpu1", *ask, "api.openai.com").split() == ["10.87.0.41", "api.openai.com"]


def test_there_is_no_way_out_and_it_is_said_at_once(lab: LabUnderTest) -> None:
    script = "getent hosts www.example.org; curl -sS -m 8 http://192.0.2.1/ 2>&1; echo $?"
    started = time.monotonic()
    said = lab.shell("gpu1", "sh", "-c", script)
    assert time.monotonic() - started < 4
    assert said.splitlines()[-1] == "7"  # curl: could not connect


def test_the_switch_tells_each_host_its_own_port_only(lab: LabUnderTest) -> None:
    listen = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88cc)); s.settimeout(6);"
        "s.bind(('eth0', 0)); print({s.recv(2000).hex() for _ in range(2)})"
    )
    heard = network.run_in_host(lab.name, "cloud", ["/usr/bin/python3", "-c", listen], timeout_s=15)
    frames = heard.stdout.decode()
    assert b"Ethernet1/2".hex() in frames
    assert b"cloud eth0".hex() in frames
    assert b"gpu1".hex() not in frames


def test_a_cut_cable_silences_a_host_that_stays_on(lab: LabUnderTest) -> None:
    before = lab.host("gpu1")["boot_id"]
    lab.twin("cut", "gpu1")
    assert not lab.answers("gpu1")
    assert lab.host("gpu1")["cut"]
    lab.twin("heal", "gpu1")
    wait_for_answer(lab, "gpu1", 5)
    assert lab.host("gpu1")["boot_id"] == before


def test_a_reboot_keeps_disk_and_address_and_forgets_what_was_only_loaded(lab: LabUnderTest) -> None:
    before = lab.host("gpu1")["boot_id"]
    lab.shell("gpu1", "sh", "-c", "echo kept > /root/kept; nft add table inet by_hand")
    rebooted = lab.ansible("gpu1", "-m", "ansible.builtin.reboot", "-a", "reboot_timeout=60")
    assert rebooted.returncode == 0, rebooted.stdout + rebooted.stderr
    assert lab.shell("gpu1", "cat", "/root/kept") == "kept"
    assert "by_hand" not in lab.shell("gpu1", "nft", "list", "tables")
    assert lab.host("gpu1")["boot_id"] != before
    assert lab.answers("gpu1")


def test_a_crash_is_silent_and_start_boots_the_kept_disk(lab: LabUnderTest) -> None:
    lab.shell("gpu1", "sh", "-c", "echo kept > /root/crashed && sync /root/crashed")
    with network.connect(lab.name, "gpu1", 22) as open_connection:
        open_connection.settimeout(1.0)
        assert open_connection.recv(4) == b"SSH-"
        open_connection.recv(100)
        lab.twin("crash", "gpu1")
        with pytest.raises(TimeoutError):  # no farewell: a power cut sends none
            open_connection.recv(1)
    assert not lab.host("gpu1")["running"]
    assert not lab.answers("gpu1")
    refused = lab.twin("shell", "gpu1", "true")
    assert (refused.returncode, "not running" in refused.stderr) == (2, True)
    assert lab.twin("start", "gpu1").returncode == 0
    assert lab.shell("gpu1", "cat", "/root/crashed") == "kept"


def test_a_neighbour_reaches_a_restarted_host_at_once(lab: LabUnderTest) -> None:
    ping = ("ping", "-c1", "-W2", "10.87.0.21")
    lab.shell("cloud", *ping)
    lab.twin("crash", "gpu1")
    lab.twin("start", "gpu1")
    lab.shell("cloud", *ping)  # would fail for half a minute if the host came back with another hardware address


def test_a_host_whose_container_process_is_killed_is_gone_at_once_and_boots_again(lab: LabUnderTest) -> None:
    nspawn = [number for number, line in lab.processes().items() if line.startswith("systemd-nspawn")]
    of_gpu1 = [number for number in nspawn if b"--machine=gpu1" in Path(f"/proc/{number}/cmdline").read_bytes()]
    leader = network.leader_of(lab.name, "gpu1")
    assert len(of_gpu1) == 1
    subprocess.run(["kill", "-KILL", str(of_gpu1[0])], check=True)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{leader}").exists() and lab.host("gpu1")["running"]:
        assert time.monotonic() < deadline, "the host outlived its container process"
    assert "booted with its disk" in lab.up()


def test_a_changed_host_key_is_refused(lab: LabUnderTest) -> None:
    key = "/etc/ssh/ssh_host_ed25519_key"
    lab.shell("cloud", "sh", "-c", f"mv {key} {key}.right && ssh-keygen -q -t ed25519 -N '' -f {key}")
    lab.shell("cloud", "systemctl", "restart", "ssh")
    try:
        refused = lab.ssh("cloud", "true")
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
    finally:
        lab.shell("cloud", "sh", "-c", f"mv {key}.right {key} && systemctl restart ssh")
    assert lab.ssh("cloud", "true").returncode == 0


def test_a_new_bundle_is_mounted_by_the_next_up(lab: LabUnderTest, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("")
    record = lab.site / ".state" / "bundle.json"
    record.write_text(f'{{"path": "{tmp_path}", "digest": "00"}}')
    try:
        assert lab.up().count("restarted with what changed") == 2
        assert lab.shell("cloud", "ls", "/srv/bundle") == "SHA256SUMS"
        assert lab.twin("shell", "cloud", "touch", "/srv/bundle/x").returncode != 0
    finally:
        record.unlink()
        lab.up()
    assert lab.shell("cloud", "ls", "/srv/bundle") == ""


def test_an_unknown_host_is_refused_with_the_known_ones(lab: LabUnderTest) -> None:
    refused = lab.twin("crash", "gpu9")
    assert refused.returncode == 2
    assert "one of cloud, gpu1" in refused.stderr
