"""The load programs and the requests beside them, as real processes and over real sockets."""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gpu_cutover.burn_in.loads import EngineLoad, GpuLoad

PROGRAM = """
import json, sys, time
print("not json", flush=True)
for second in range(3):
    print(json.dumps({"gpu": 1, "tflops": 100.0 + second, "errors": second == 2}), flush=True)
time.sleep(60)
"""


def wait_for(what: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)
    assert what()  # type: ignore[operator]


def test_a_load_program_is_read_and_ended(tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text(PROGRAM)
    load = GpuLoad([sys.executable, str(tmp_path / "load.py")], 1, 60.0)
    load.start()
    wait_for(lambda: len(load._tflops) == 3)
    assert load.latest() == {"tflops": 101.0, "errors": 1}
    assert load.latest() is None
    load.end()
    load.join(10)
    assert not load.is_alive()


def test_a_load_program_that_dies_is_told_and_started_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = [sys.executable, "-c", f"open({str(runs)!r}, 'a').write('x'); raise SystemExit(1)"]
    load = GpuLoad(command, 0, 60.0)
    load.start()
    wait_for(lambda: runs.exists() and len(runs.read_text()) >= 2)
    load.end()
    assert load.failures[0] == "GPU 0: the load ended with 1"


def test_a_missing_load_program_is_told() -> None:
    load = GpuLoad(["/nonexistent/load"], 3, 60.0)
    load.start()
    wait_for(lambda: load.failures)
    load.end()
    assert "GPU 3: /nonexistent/load" in load.failures[0]


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/good" else 500)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


def test_requests_go_to_every_engine_in_turn_and_errors_are_counted() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    engines = EngineLoad([{"url": f"{base}/{path}", "body": {}} for path in ("good", "bad")], 0.01)
    engines.start()
    wait_for(lambda: engines.sent.get(f"{base}/bad", 0) > 2)
    engines.end()
    engines.join(5)
    server.shutdown()
    assert engines.sent[f"{base}/good"] >= 3
    assert f"{base}/good" not in engines.failed
    assert engines.failed[f"{base}/bad"] >= 2
