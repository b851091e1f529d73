"""One gateway in a directory: tables, journal, and stand-ins that answer what a router and a leg's server answer.

The router's stand-in reads the real table file at every question, as the real one does; the real routers are asked in
tests/traffic.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpu_cutover.router.orders import Order, Place

from .tables import table, tenant

TENANTS = {
    "zam": tenant(chat="onprem", audio="onprem"),
    "two": tenant(chat="onprem", embed="mirror"),
    "far": tenant("cloud_only", chat="cloud"),
}
SEALED = {"sec": tenant("sensitive", chat="onprem", audio="onprem")}


class Web:
    """A server on loopback: `status` for everything but /health, which tells the table's version plus `lag`."""

    def __init__(self, table_file: Path | None = None) -> None:
        self.table_file, self.status, self.lag = table_file, 200, 0
        self.answers_questions = False
        self.hold = threading.Event()  # set: connections are taken, answers wait until it is cleared
        self.more: dict[str, Any] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                while web.hold.is_set():
                    time.sleep(0.01)
                status, body = web.answer(self.path)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(200 if web.answers_questions else 500)
                self.end_headers()
                self.wfile.write(b'{"text": "", "data": [], "results": [], "choices": []}')

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes]:
        if path != "/health" or self.table_file is None:
            return self.status, b"{}"
        version = json.loads(self.table_file.read_bytes())["version"] + self.lag
        said = {"table_version": version, "placement": "healthy", "breakers_open": [], "problems": [], **self.more}
        return 200, json.dumps(said).encode()

    def stop(self) -> None:
        self.hold.clear()
        self.server.shutdown()
        self.server.server_close()


class Gateway:
    """Two tables, two routers, a cloud and an engine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cloud, self.engine = Web(), Web()
        self.routers = {pool: Web(folder / f"{pool}.json") for pool in ("hybrid", "sealed")}
        ports = {pool: web.port for pool, web in self.routers.items()}
        self.place = Place(folder, folder / "changes.jsonl", folder, ports)
        self.install()

    def install(self) -> None:
        for pool, tenants in (("hybrid", TENANTS), ("sealed", SEALED)):
            raw = table(pool, onprem=self.engine.url, cloud=self.cloud.url, tenants=tenants)
            self.place.table(pool).write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")

    def states(self, pool: str = "hybrid") -> dict[str, dict[str, str]]:
        raw = json.loads(self.place.table(pool).read_bytes())
        return {name: one["routes"] for name, one in raw["tenants"].items()}

    def arguments(self) -> list[str]:
        """What `gpu-cutover-route` is told to work on this gateway."""
        ports = [f"--port={pool}={port}" for pool, port in self.place.ports.items()]
        return [
            f"--tables={self.folder}",
            f"--journal={self.place.journal}",
            f"--records={self.folder}",
            *ports,
        ]

    def stop(self) -> None:
        for web in (self.cloud, self.engine, *self.routers.values()):
            web.stop()


@contextmanager
def running_gateway(folder: Path) -> Iterator[Gateway]:
    gateway = Gateway(folder)
    try:
        yield gateway
    finally:
        gateway.stop()


def order(do: str = "roll_back", **more: Any) -> Order:
    return Order(**{"do": do, "id": "one", "by": "test", "path": "break-glass", "check": "fast", **more})
