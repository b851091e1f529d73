"""A gateway and the world outside as two network namespaces of this machine, with the role's own seal between them.

Everything in the gateway's namespace runs as root, so the seal is rendered for root there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gpu_cutover.twin.connect import connect, enter_network_of

from .tables import table, tenant

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "router"
INSIDE, OUTSIDE, OUTSIDE_6 = "10.98.7.1", "10.98.7.2", "fd98:7::2"
PORT, METRICS, CLOUD_PORT, CANARY, ENGINE_PORT = 8082, 9403, 443, 9, 8101
ANSWER = json.dumps({"object": "list", "data": [{"index": 0, "embedding": [0.1]}]}).encode()


def seal_rules(**more: Any) -> str:
    """What the role writes to /etc/gpu-cutover/seal.nft."""
    values = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    template = (ROLE / "templates" / "seal.nft.j2").read_text()
    rendered = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined).from_string(template)
    return rendered.render({**values, "router_sealed_users": ["root"], "router_seal_canary": CANARY, **more})


def listening_in(namespace: str, address: str, port: int) -> socket.socket:
    """A listening socket inside a namespace."""
    made: list[socket.socket] = []

    def in_thread() -> None:
        enter_network_of(namespace)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made.append(socket.create_server((address, port), family=family))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    return made[0]


def stop(listener: socket.socket) -> None:
    """Stop listening, and wake the thread that accepts."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class Network:
    """The two namespaces, a cloud that counts who came, and an engine on the gateway's loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway, self.world = (f"{side}{os.getpid()}" for side in ("gs", "gc"))
        self._stack = contextlib.ExitStack()
        self.accepted: list[socket.socket] = []
        self.listeners: list[socket.socket] = []

    def __enter__(self) -> Network:
        with self._stack:
            self._make()
            self._stack = self._stack.pop_all()
        return self

    def _make(self) -> None:
        for name in (self.gateway, self.world):
            self._ip("netns", "add", name)
            self._stack.callback(self._ip, "netns", "del", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._ip("-n", self.gateway, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", self.world)
        for name, port, last in ((self.gateway, "out", "1"), (self.world, "in", "2")):
            self._ip("-n", name, "address", "add", f"10.98.7.{last}/24", "dev", port)
            self._ip("-n", name, "address", "add", f"fd98:7::{last}/64", "dev", port, "nodad")
            self._ip("-n", name, "link", "set", port, "up")
        self._wait_for_carrier()
        for address in (OUTSIDE, OUTSIDE_6):
            self.listeners.append(listening_in(self.world, address, CLOUD_PORT))
            self._serve(self.listeners[-1], self._keep)
        self._serve(listening_in(self.gateway, "127.0.0.1", ENGINE_PORT), self._answer)

    def __exit__(self, *_: object) -> None:
        for connection in self.accepted:
            connection.close()
        self._stack.close()

    def _wait_for_carrier(self) -> None:
        """The kernel tells IPv6 of a link up to a second after IPv4 can use it."""
        for name, port in ((self.gateway, "out"), (self.world, "in")):
            deadline = time.monotonic() + 10
            while b" state UP " not in subprocess.check_output(["ip", "-n", name, "link", "show", port]):
                assert time.monotonic() < deadline, f"{port} has no carrier"
                time.sleep(0.02)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def _serve(self, listener: socket.socket, handle: Any) -> None:
        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    handle(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()

        self._stack.callback(thread.join, 5)
        self._stack.callback(stop, listener)

    def _keep(self, connection: socket.socket) -> None:
        self.accepted.append(connection)

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            while b"}" not in connection.recv(65536):
                pass
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
            connection.sendall(head.encode() + ANSWER)

    # --- the seal -------------------------------------------------------------------------------------------------

    def load(self, rules: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.gateway, "nft", "-f", "-"], input=rules, text=True, check=True)

    def nft(self, *words: str) -> str:
        command = ["ip", "netns", "exec", self.gateway, "nft", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def cut(self) -> None:
        """The cable to the outside is out: nothing there can be reached, sealed or not."""
        self._ip("-n", self.world, "link", "set", "in", "down")

    # --- the router -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def router(self) -> Iterator[subprocess.Popen[str]]:
        """The sealed router as the unit starts it; ended at the end."""
        tenants = {"sec": tenant("sensitive", embed="onprem")}
        raw = table("sealed", onprem=f"http://127.0.0.1:{ENGINE_PORT}", tenants=tenants)
        (self.folder / "sealed.json").write_text(json.dumps(raw))
        words = ["--table", self.folder / "sealed.json", "--pool", "sealed", "--log-dir", self.folder]
        words += ["--port", PORT, "--metrics-port", METRICS, "--canary", CANARY]
        words += ["--never", f"{OUTSIDE}:{CLOUD_PORT}", "--never", f"[{OUTSIDE_6}]:{CLOUD_PORT}"]
        command = ["ip", "netns", "exec", self.gateway, sys.executable, "-m", "gpu_cutover.router.main"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(
            [*command, *map(str, words)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def get(self, path: str, port: int = METRICS) -> tuple[int, bytes]:
        return self._request("GET", path, port)

    def ask(self) -> tuple[int, dict[str, str], bytes]:
        """One request of the sensitive tenant."""
        with self._connection(PORT) as connection:
            body = b'{"model": "mine", "input": ["x"]}'
            connection.request("POST", "/embed", body, {"x-tenant": "sec", "content-type": "application/json"})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def _request(self, method: str, path: str, port: int) -> tuple[int, bytes]:
        with self._connection(port) as connection:
            connection.request(method, path)
            response: HTTPResponse = connection.getresponse()
            return response.status, response.read()

    @contextlib.contextmanager
    def _connection(self, port: int) -> Iterator[HTTPConnection]:
        connection = HTTPConnection("127.0.0.1", port)
        connection.sock = connect(self.gateway, "127.0.0.1", port, 5)
        connection.sock.settimeout(10)
        try:
            yield connection
        finally:
            connection.close()

    def wait_for(self, condition: Any, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if condition():
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)
