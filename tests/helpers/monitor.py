"""Real Prometheus, Alertmanager, node exporter and their checkers, for tests. From `make .work/stamps/monitor`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from gpu_cutover.monitoring.settings import Settings

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / ".work" / "monitor" / "usr" / "bin"
OWN = "own-address"
SETTINGS = Settings(
    interval_s=15,
    page="on-call",
    first_token_s=2.0,
    margin_celsius=5.0,
    targets={
        "availability": 0.998,
        "whisper_p95_s": 4.0,
        "soap_p95_s": 22.0,
        "soap_first_token_p95_s": 2.0,
        "retrieval_p95_s": 0.15,
    },
    jobs=("alarms", "alertmanager", "edge", "guard", "node", "prometheus", "router-hybrid", "routes", "triton", "vllm"),
)


def program(name: str) -> str:
    """Its path; a test that needs it fails without, and says what to do."""
    found = UNPACKED / name
    path = str(found) if found.exists() else shutil.which(name)
    assert path, f"{name} is missing: make .work/stamps/monitor"
    return path


def with_its_share(arguments: Sequence[str]) -> list[str]:
    """The same, with the unpacked /usr/share over the real one, for this process only: Debian's build looks there."""
    if not (UNPACKED / Path(arguments[0]).name).exists():
        return list(arguments)
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    over = f'mount --bind {UNPACKED.parent / "share"} /usr/share && exec "$@"'
    return [*unshare, "sh", "-c", over, "sh", *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.loads(answer.read())


def post(url: str, data: Any) -> int:
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.status)


def eventually(holds: Callable[[], Any], bound_s: float = 60.0) -> Any:
    """The first true answer, or the last one when time is up. An address that does not answer yet counts as false."""
    deadline = time.monotonic() + bound_s
    while True:
        try:
            found = holds()
        except (OSError, KeyError, ValueError):
            found = None
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@contextmanager
def running(arguments: Sequence[str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, from when `ready` answers until the end of the block."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)
        try:

            def answers() -> bool:
                with urllib.request.urlopen(ready, timeout=5) as answer:
                    return bool(answer.status == 200)

            if not eventually(answers):
                output.seek(0)
                raise AssertionError(f"{arguments[0]} is not ready:\n{output.read().decode(errors='replace')[-3000:]}")
            yield process
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def prometheus(directory: Path, config: Mapping[str, Any], rules: str = "") -> Iterator[str]:
    """A Prometheus with this configuration, in which OWN stands for itself; its address."""
    port = free_port()
    (directory / "rules.yml").write_text(rules)
    text = yaml.safe_dump({**config, "rule_files": [str(directory / "rules.yml")]})
    (directory / "prometheus.yml").write_text(text.replace(OWN, f"127.0.0.1:{port}"))
    arguments = [
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(arguments, f"http://127.0.0.1:{port}/-/ready"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def alertmanager(directory: Path, config: str) -> Iterator[str]:
    """An Alertmanager with this configuration; its address."""
    port = free_port()
    (directory / "alertmanager.yml").write_text(config)
    arguments = [
        program("prometheus-alertmanager"),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(with_its_share(arguments), f"http://127.0.0.1:{port}/-/ready"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def pages(texts: Mapping[str, Callable[[], str]]) -> Iterator[str]:
    """A server that answers each path with its page; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = texts.get(self.path)
            body = page().encode() if page else b""
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mailbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A house's webhook: its address, and what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", got
    finally:
        server.shutdown()
        server.server_close()
