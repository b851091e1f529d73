"""The role on a host with systemd: the seal is there before the router, after a reboot and after anybody's flush."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twin.lab_under_test import ANSIBLE, ROOT, LabUnderTest

from .tables import table, tenant

pytestmark = [pytest.mark.twin, pytest.mark.timeout(400)]
HOSTS = """
site_hosts:
  children:
    gateway: {hosts: {gw1: {ansible_host: 10.87.0.11}}}
outside:
  hosts:
    cloud: {ansible_host: 10.87.0.41, twin_aliases: [api.openai.com]}
"""
PLAY = """# One gateway with nothing but its routers
- hosts: gateway
  gather_facts: false
  roles: [bundle, agent, router]
"""
ROUTER, SEAL = "gpu-cutover-router@sealed.service", "gpu-cutover-seal.service"
ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9403/health', timeout=3).status)"
TELL = """import http.client
asked = http.client.HTTPConnection("127.0.0.1", 9403)
asked.request("GET", "/health")
print(asked.getresponse().read().decode())
"""


class Host(LabUnderTest):
    """gw1 of a lab whose other host stands for the cloud."""

    def gw1(self, *command: str) -> str:
        return self.shell("gw1", *command)

    def serves(self) -> bool:
        return self.twin("shell", "gw1", "/usr/bin/python3", "-c", ASK).stdout.strip() == "200"

    def health(self) -> dict[str, Any]:
        return dict(json.loads(self.gw1("/usr/bin/python3", "-c", TELL)))

    def property(self, unit: str, name: str) -> str:
        return self.gw1("systemctl", "show", "--value", "--property", name, unit)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("sealed")
    shutil.copytree(ROOT / "inventory" / "twin", folder / "whole", ignore=shutil.ignore_patterns(".state", "evidence"))
    site = folder / "site"
    (site / "group_vars" / "all").mkdir(parents=True)
    (site / "hosts.yml").write_text(HOSTS)
    connection = ROOT / "inventory" / "twin" / "group_vars" / "all" / "connection.yml"
    shutil.copy(connection, site / "group_vars" / "all")
    variables = {
        "router_tables": {
            "hybrid": table("hybrid", tenants={"std": tenant(chat="cloud")}),
            "sealed": table("sealed", tenants={"sec": tenant("sensitive", chat="onprem")}),
        },
        "router_addresses": ["10.87.0.21"],
        "router_monitors": ["10.87.0.31"],
        "router_seal_target": "10.87.0.1",
        "router_seal_never": ["10.87.0.41:22", "api.openai.com:22", "10.87.0.1:53"],  # each answers, were it reached
    }
    (site / "group_vars" / "all" / "router.json").write_text(json.dumps(variables))
    made = Host(f"te{os.getpid() % 1000000}", site)
    built = made.run([sys.executable, "-m", "gpu_cutover.cli", "bundle", "build", "-i", str(folder / "whole")], 300)
    assert built.returncode == 0, built.stdout + built.stderr
    (site / ".state").mkdir(mode=0o700)
    shutil.copy(folder / "whole" / ".state" / "bundle.json", site / ".state")
    (folder / "play.yml").write_text(PLAY)
    try:
        made.up()
        done = made.run([str(ANSIBLE / "ansible-playbook"), "-i", str(site), str(folder / "play.yml")], 200)
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def whole(host: Host) -> Iterator[None]:
    """Every test begins and ends with a gateway that serves."""
    host.wait_for(host.serves)
    yield
    host.wait_for(host.serves)


def test_a_flush_ends_the_service_and_the_second_lock_holds_until_the_seal_is_back(host: Host) -> None:
    host.gw1("nft", "flush", "ruleset")
    host.wait_for(lambda: not host.serves())
    time.sleep(3)  # it looks again, thoroughly, about once a second
    (problem,) = host.health()["problems"]
    assert "the seal is not in force" in problem  # and not "lets this process reach": systemd's filter is still there
    assert problem in host.property(ROUTER, "StatusText")
    host.gw1("systemctl", "restart", SEAL)


def test_the_distributions_own_rules_come_and_the_seal_is_back_by_itself(host: Host) -> None:
    assert "flush ruleset" in host.gw1("cat", "/etc/nftables.conf")
    host.gw1("systemctl", "enable", "--now", "nftables.service")
    for how in ("reload", "restart"):
        host.gw1("systemctl", how, "nftables.service")
        host.gw1("nft", "list", "table", "inet", "gpu_cutover_seal")
        host.wait_for(host.serves)


def test_after_a_reboot_the_seal_is_there_before_the_router_whatever_flushes_at_boot(host: Host) -> None:
    host.gw1("systemctl", "enable", "nftables.service")
    host.twin("crash", "gw1")
    host.twin("start", "gw1")
    host.wait_for(host.serves)
    sealed = int(host.property(SEAL, "ActiveEnterTimestampMonotonic"))
    flushed = int(host.property("nftables.service", "ActiveEnterTimestampMonotonic"))
    network = int(host.property("network-pre.target", "ActiveEnterTimestampMonotonic"))
    router = int(host.property(ROUTER, "ExecMainStartTimestampMonotonic"))
    assert 0 < flushed <= sealed <= network < router
    host.gw1("nft", "list", "table", "inet", "gpu_cutover_seal")


def test_without_a_seal_that_loads_the_sealed_router_alone_does_not_start(host: Host) -> None:
    rules = host.gw1("cat", "/etc/gpu-cutover/seal.nft")
    host.gw1("sh", "-c", "echo nonsense > /etc/gpu-cutover/seal.nft")
    host.twin("crash", "gw1")
    host.twin("start", "gw1")
    hybrid = ROUTER.replace("sealed", "hybrid")
    host.wait_for(lambda: host.property(hybrid, "ActiveState") == "active")
    assert host.property(ROUTER, "ActiveState") == "inactive"
    assert host.property(ROUTER, "ExecMainPID") == "0"
    host.gw1("sh", "-c", f"cat > /etc/gpu-cutover/seal.nft <<'END'\n{rules}\nEND")
    host.gw1("systemctl", "start", ROUTER)
