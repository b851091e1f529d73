"""A reload takes up new rules and certificates; no request fails and no stream breaks because of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_lab import Authority, free_port, render, serve, wait_for

TENANT = "doc-zam.clinic.test"
PIECES = 20
PAUSE_MS = 100


class Live:
    """HAProxy as a gateway runs it: a master that starts a new worker at every reload."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = Authority("site-ca", directory)
        self.port, self.metrics = free_port(), free_port()
        self.server = directory / "server.pem"
        self.server.write_bytes(self.ca.issue("edge.test").read_bytes())
        self.router, self.provider = serve("hybrid"), serve("provider")
        pool = {"address": f"127.0.0.1:{self.router.server_port}", "health_port": self.router.server_port}
        text = render(
            {
                "edge_bind": f"127.0.0.1:{self.port}",
                "edge_metrics_bind": f"127.0.0.1:{self.metrics}",
                "edge_certificate": str(self.server),
                "edge_client_ca": str(self.ca.path),
                "edge_revoked": str(self.ca.list_revoked()),
                "edge_admin_socket": str(directory / "admin.sock"),
                "edge_tenants": [{"name": "doc-zam", "cn": TENANT, "pool": "hybrid"}],
                "edge_routes": [{"name": "chat", "path": "/chat", "body_limit_mb": 1}],
                "edge_pools": {"hybrid": pool, "sealed": pool},
                "edge_providers": {"cloud": {"address": f"127.0.0.1:{self.provider.server_port}", "path": "/health"}},
            }
        )
        kept = [line for line in text.splitlines() if line.strip() not in ("user haproxy", "group haproxy")]
        self.config = directory / "haproxy.cfg"
        self.config.write_text("\n".join(kept) + "\n")
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        command = ["haproxy", "-Ws", "-f", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        self.wait_until_told()
        wait_for(self.port)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        for _ in range(200):
            if self.says("/ready") == 200:
                return
            time.sleep(0.05)
        raise AssertionError("the edge never called itself ready")

    def says(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def wait_until_told(self) -> None:
        """What systemd waits for at a start and at a reload: the master itself says READY."""
        while b"READY=1" not in self.notified.recv(4096):
            continue

    def reload(self) -> None:
        """Reload as systemd does."""
        self.process.send_signal(signal.SIGUSR2)
        self.wait_until_told()

    def connect(self, certificate: Path) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.ca.path))
        context.check_hostname = False
        context.load_cert_chain(certificate)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)

    def ask(self, certificate: Path) -> int:
        """One question on a connection of its own; 0 when the door stays shut."""
        connection = self.connect(certificate)
        try:
            connection.request("POST", "/chat", b"{}")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.notified.close()
        self.router.shutdown()
        self.provider.shutdown()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    edge = Live(tmp_path)
    try:
        yield edge
    finally:
        edge.stop()


class Stream(threading.Thread):
    """A long answer, read to its end; `whole` tells whether nothing of it was lost."""

    def __init__(self, edge: Live, certificate: Path) -> None:
        super().__init__(daemon=True)
        self._connection = edge.connect(certificate)
        self.whole = False
        self.begun = threading.Event()

    def run(self) -> None:
        body = json.dumps({"pieces": PIECES, "pause_ms": PAUSE_MS})
        self._connection.request("POST", "/chat", body)
        answer = self._connection.getresponse()
        first = answer.read(8)
        self.begun.set()
        self.whole = first + answer.read() == b"".join(b"piece%03d" % number for number in range(PIECES))


class Load(threading.Thread):
    """Questions one after the other on kept connections, no second try; every failure is kept."""

    def __init__(self, edge: Live, certificate: Path) -> None:
        super().__init__(daemon=True)
        self._edge, self._certificate = edge, certificate
        self.done, self.failures, self.ended = 0, list[str](), threading.Event()

    def run(self) -> None:
        connection = self._edge.connect(self._certificate)
        while not self.ended.is_set():
            try:
                connection.request("POST", "/chat", b"{}")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"answered {answer.status}")
                self.done += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
                connection = self._edge.connect(self._certificate)


def test_five_reloads_under_load_fail_no_request(live: Live) -> None:
    certificate = live.ca.issue(TENANT)
    loads = [Load(live, certificate) for _ in range(6)]
    for load in loads:
        load.start()
    for _ in range(5):
        live.reload()
        time.sleep(0.3)
    for load in loads:
        load.ended.set()
    for load in loads:
        load.join(20)
    assert [failure for load in loads for failure in load.failures] == []
    assert sum(load.done for load in loads) > 100


def test_a_revoked_certificate_is_out_after_a_reload_and_its_stream_ends_whole(live: Live) -> None:
    lost, kept = live.ca.issue(TENANT), live.directory / "kept.pem"
    lost.rename(live.directory / "lost.pem")
    lost = live.directory / "lost.pem"
    live.ca.issue(TENANT).rename(kept)
    stream = Stream(live, lost)
    stream.start()
    assert stream.begun.wait(10)
    assert live.ask(lost) == 200
    live.ca.list_revoked([lost])
    live.reload()
    assert live.ask(lost) == 0
    assert live.ask(kept) == 200, "the same tenant's other certificate"
    stream.join(20)
    assert stream.whole


def test_the_servers_certificate_is_changed_under_an_open_stream(live: Live) -> None:
    certificate = live.ca.issue(TENANT)
    stream = Stream(live, certificate)
    stream.start()
    assert stream.begun.wait(10)
    before = _shown(live, certificate)
    live.server.write_bytes(live.ca.issue("edge.test").read_bytes())
    live.reload()
    assert _shown(live, certificate) != before
    stream.join(20)
    assert stream.whole


def _shown(live: Live, certificate: Path) -> bytes:
    connection = live.connect(certificate)
    connection.connect()
    assert isinstance(connection.sock, ssl.SSLSocket)
    shown = connection.sock.getpeercert(binary_form=True)
    connection.close()
    assert shown
    return shown


def test_both_of_a_tenants_certificates_count_while_it_changes_over(live: Live) -> None:
    old, new = live.directory / "old.pem", live.directory / "new.pem"
    live.ca.issue(TENANT).rename(old)
    live.ca.issue(TENANT).rename(new)
    assert [live.ask(old), live.ask(new)] == [200, 200]


@pytest.mark.parametrize("missing", ["router", "provider"])
def test_an_edge_without_what_it_needs_is_alive_and_not_ready(live: Live, missing: str) -> None:
    assert (live.says("/alive"), live.says("/ready")) == (200, 200)
    gone = getattr(live, missing)
    gone.shutdown()
    gone.server_close()
    for _ in range(200):
        if live.says("/ready") == 503:
            break
        time.sleep(0.05)
    assert (live.says("/alive"), live.says("/ready")) == (200, 503)


def test_an_edge_that_starts_before_its_cloud_leg_is_not_ready_for_a_moment(live: Live) -> None:
    """HAProxy takes a server for up until a check fails: a gateway just booted would be given the address too early."""
    live.provider.shutdown()
    live.provider.server_close()
    live.reload()
    said = [live.says("/ready") for _ in range(60)]
    assert 200 not in said and 503 in said
    assert live.says("/alive") == 200
    live.provider = serve("provider", live.provider.server_port)
    live.wait_until_ready()
