"""A real HAProxy on loopback with the role's template, two recording routers behind it, and certificates of two CAs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from edge_lab import Authority, Edge, free_port, render, serve, wait_for


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    directory = tmp_path_factory.mktemp("edge")
    ca, foreign = Authority("site-ca", directory), Authority("foreign-ca", directory)
    servers = {pool: serve(pool) for pool in ("hybrid", "sealed")}
    peers = serve("peers")
    port, metrics_port = free_port(), free_port()
    text = render(
        {
            "edge_bind": f"127.0.0.1:{port}",
            "edge_metrics_bind": f"127.0.0.1:{metrics_port}",
            "edge_certificate": str(ca.issue("edge.test")),
            "edge_client_ca": str(ca.path),
            "edge_revoked": str(ca.list_revoked()),
            "edge_peers": ["gw2.clinic.test"],
            "edge_peers_address": f"127.0.0.1:{peers.server_port}",
            "edge_admin_socket": str(directory / "admin.sock"),
            "edge_tenants": [
                {"name": "doc-zam", "cn": "doc-zam.clinic.test", "pool": "hybrid"},
                {"name": "oncology", "cn": "oncology.clinic.test", "pool": "sealed"},
            ],
            "edge_routes": [
                {"name": "chat", "path": "/chat", "body_limit_mb": 0.001},
                {"name": "audio", "path": "/audio", "body_limit_mb": 1},
            ],
            "edge_pools": {
                pool: {"address": f"127.0.0.1:{server.server_port}", "health_port": server.server_port}
                for pool, server in servers.items()
            },
        }
    )
    # Whoever runs the tests may not change user; on a gateway HAProxy does.
    text = "\n".join(line for line in text.splitlines() if line.strip() not in ("user haproxy", "group haproxy")) + "\n"
    config = directory / "haproxy.cfg"
    config.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.PIPE)
    try:
        wait_for(port)
        yield Edge(port, metrics_port, ca, foreign, config)
    finally:
        process.terminate()
        process.wait(10)
        for server in (peers, *servers.values()):
            server.shutdown()
