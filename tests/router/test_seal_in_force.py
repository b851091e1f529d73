"""The seal as the role writes it, loaded by the real nft: the sealed router runs inside it, and only inside it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_cutover.errors import EXIT_HOLD
from gpu_cutover.twin.connect import connect

from .sealed_network import CLOUD_PORT, METRICS, OUTSIDE, OUTSIDE_6, Network, seal_rules, stop

pytestmark = pytest.mark.twin
HOLE = ("insert", "rule", "inet", "gpu_cutover_seal", "sealed")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network(tmp_path) as made:
        yield made


def refusal(network: Network) -> str:
    with network.router() as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_HOLD, said
    return said


def serves(network: Network) -> bool:
    return network.get("/health")[0] == 200


def test_inside_the_seal_it_serves_and_the_cloud_never_hears_of_it(network: Network) -> None:
    network.load(seal_rules())
    with network.router():
        network.wait_for(lambda: serves(network))
        status, headers, _ = network.ask()
        assert (status, headers["x-served-by"]) == (200, "onprem")
        assert b"gpu_cutover_router_sealed 1.0" in network.get("/metrics")[1]
    assert network.accepted == []


def test_without_a_seal_it_does_not_start_and_says_what_it_reached(network: Network) -> None:
    said = refusal(network)
    assert "refuses to run: the kernel lets this process reach" in said
    assert f"{OUTSIDE}:{CLOUD_PORT}" in said and f"[{OUTSIDE_6}]:{CLOUD_PORT}" in said
    assert len(network.accepted) == 2  # a test that asks for nothing would pass, too


def test_a_cloud_that_is_out_of_reach_by_luck_is_no_seal(network: Network) -> None:
    network.cut()
    assert "the seal is not in force for this process" in refusal(network)


@pytest.mark.parametrize(("family", "address"), [("ip", OUTSIDE), ("ip6", OUTSIDE_6)])
def test_a_seal_with_a_hole_is_none(network: Network, family: str, address: str) -> None:
    network.load(seal_rules())
    network.nft(*HOLE, family, "daddr", address, "accept")
    said = refusal(network)
    assert address in said


def test_a_hole_where_nobody_listens_is_a_hole(network: Network) -> None:
    network.load(seal_rules())
    network.nft(*HOLE, "ip", "daddr", OUTSIDE, "accept")
    for listener in network.listeners:
        stop(listener)
    assert f"{OUTSIDE}:{CLOUD_PORT}" in refusal(network)


def test_a_seal_that_somebody_flushes_ends_the_service_until_it_is_back(network: Network) -> None:
    network.load(seal_rules())
    with network.router() as process:
        network.wait_for(lambda: serves(network))
        network.nft("flush", "ruleset")
        network.wait_for(lambda: not serves(network))
        status, headers, body = network.ask()
        assert (status, headers["retry-after"]) == (503, "15")
        assert b"not sealed" in body
        assert "x-served-by" not in headers
        health = json.loads(network.get("/health")[1])
        assert (health["status"], health["table_version"]) == ("unsealed", 1)
        assert (
            "the kernel lets this process reach" in health["problems"][-1] or "not in force" in health["problems"][-1]
        )
        metrics = network.get("/metrics")[1]
        assert b"gpu_cutover_router_sealed 0.0" in metrics
        assert b'gpu_cutover_router_turned_away_total{reason="unsealed"} 1.0' in metrics
        network.load(seal_rules())
        network.wait_for(lambda: serves(network))
        assert network.ask()[0] == 200
        assert process.poll() is None


# --- a connection that was open before ----------------------------------------------------------------------------


def heard(connection: socket.socket) -> bool:
    connection.settimeout(1.0)
    try:
        return connection.recv(100) != b""
    except TimeoutError:
        return False


@pytest.mark.parametrize("first", ["sealed side", "cloud"])
@pytest.mark.parametrize("tracked", [True, False])
def test_an_open_connection_to_the_cloud_is_cut_by_the_seal_whoever_speaks_first(
    network: Network, tracked: bool, first: str
) -> None:
    if tracked:
        network.load("table inet other { chain c { type filter hook output priority 0; ct state new accept; }; }")
    with connect(network.gateway, OUTSIDE, CLOUD_PORT) as pooled:
        network.wait_for(lambda: network.accepted)
        pooled.sendall(b"before")
        assert heard(network.accepted[0])
        network.load(seal_rules(router_monitors=[OUTSIDE]))
        if first == "cloud":
            network.accepted[0].sendall(b"go on")
            assert heard(pooled)
        pooled.sendall(b"after")
        assert not heard(network.accepted[0])
        counter = json.loads(network.nft("-j", "list", "counter", "inet", "gpu_cutover_seal", "sealed_refused"))
        assert counter["nftables"][-1]["counter"]["packets"] > 0


def test_a_rule_that_lets_established_connections_go_on_would_not_cut_it(network: Network) -> None:
    """What the seal must not say; so the test above can fail."""
    with connect(network.gateway, OUTSIDE, CLOUD_PORT) as pooled:
        network.wait_for(lambda: network.accepted)
        network.load(seal_rules())
        network.nft(*HOLE, "ct", "state", "established", "accept")
        network.accepted[0].sendall(b"go on")
        assert heard(pooled)
        pooled.sendall(b"after")
        assert heard(network.accepted[0])


@pytest.mark.parametrize("listed", [True, False])
def test_only_a_monitor_gets_an_answer_from_outside(network: Network, listed: bool) -> None:
    network.load(seal_rules(router_monitors=[OUTSIDE if listed else "10.98.7.99"]))
    with network.router():
        network.wait_for(lambda: serves(network))
        command = ["ip", "netns", "exec", network.world, "curl", "-s", "-m", "2", f"http://10.98.7.1:{METRICS}/health"]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (b'"pool": "sealed"' in done.stdout) == listed
