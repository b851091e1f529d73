"""`gpu-cutover-alarms`: takes alerts on a gateway, keeps them, and alarms when the monitor falls silent.

Alertmanager posts every alert to `/alerts`, the watchdog every few seconds. When the watchdog stops, nobody on the
monitor can say so any more: the listener tells the site's webhook and mail itself. It needs neither the monitor nor the
controller, and runs on every gateway. Standard library only.
"""

from __future__ import annotations

import argparse
import email.message
import json
import os
import smtplib
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import heard

PORT = 9405
LARGEST = 1024 * 1024
LOG_BYTES = 8 * 1024 * 1024
PATIENCE_S = 10.0
RETRY_S = 30.0
LOOK_EVERY_S = 1.0
LOOPBACK = "127.0.0.1"
Way = Callable[[dict[str, Any]], None]


class Listener:
    """The memory, its log, and the ways out."""

    def __init__(self, memory: heard.Heard, log: Path, host: str, ways: dict[str, Way]) -> None:
        self.memory, self._log, self._host, self._ways = memory, log, host, ways
        self._lock = threading.Lock()
        self._received, self._not_kept = 0, 0
        self._failed = dict.fromkeys(ways, 0)
        self._try_again_at = 0.0

    def take(self, message: dict[str, Any], now: float) -> None:
        """A message of Alertmanager. Raises KeyError, TypeError for anything else."""
        found = heard.notices(message, now)
        with self._lock:
            self._received += 1
            was_armed = self.memory.armed
            self._keep(self.memory.take(found))
            if self.memory.armed and not was_armed:
                self._arm()

    def _arm(self) -> None:
        try:
            armed_by(self._log).touch()
        except OSError as error:  # after a restart it must be heard once more
            print(f"not armed for a restart: {error}", flush=True)

    def _keep(self, worth: Sequence[heard.Notice]) -> None:
        if not worth:
            return
        try:
            if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
                self._log.replace(self._log.with_suffix(".jsonl.1"))
            with self._log.open("a", encoding="utf-8") as handle:
                handle.writelines(json.dumps(notice, ensure_ascii=False) + "\n" for notice in worth)
        except OSError as error:  # a full disk must not stop the alarm
            self._not_kept += len(worth)
            print(f"not kept: {error}", flush=True)

    def look(self, now: float) -> None:
        """Tell people when the silence begins, goes on or ends; a way that failed is tried again."""
        with self._lock:
            status = self.memory.to_tell(now)
            silent_s = self.memory.silent_s(now)
        if status is None or now < self._try_again_at:
            return
        message = heard.own_alarm(self._host, status, silent_s, self.memory.patience_s)
        print(message["alerts"][0]["annotations"]["summary"], flush=True)
        if self._send(message) or not self._ways:
            with self._lock:
                self.memory.was_told(status, now)
                self._keep(self.memory.take(heard.notices(message, now)))
        else:
            self._try_again_at = now + RETRY_S

    def _send(self, message: dict[str, Any]) -> bool:
        """By every way; true when one of them worked."""
        worked = False
        for name, way in self._ways.items():
            try:
                way(message)
                worked = True
            except (OSError, smtplib.SMTPException, ValueError) as error:
                self._failed[name] += 1
                print(f"{name} failed: {error}", flush=True)
        return worked

    def told(self, since: float, now: float) -> dict[str, Any]:
        """What the gate and a person ask."""
        with self._lock:
            memory = self.memory
            return {
                "watchdog_age_s": None if memory.watchdog is None else round(now - memory.watchdog, 1),
                "patience_s": memory.patience_s,
                "silent": memory.is_silent(now),
                "ways": sorted(self._ways),
                "notices": memory.since(since),
            }

    def metrics(self, now: float) -> str:
        """Prometheus' text format."""
        with self._lock:
            lines = [
                "# TYPE gpu_cutover_alarms_silent gauge",
                f"gpu_cutover_alarms_silent {int(self.memory.is_silent(now))}",
                "# TYPE gpu_cutover_alarms_watchdog_age_seconds gauge",
                f"gpu_cutover_alarms_watchdog_age_seconds {self.memory.silent_s(now):.1f}",
                "# TYPE gpu_cutover_alarms_received_total counter",
                f"gpu_cutover_alarms_received_total {self._received}",
                "# TYPE gpu_cutover_alarms_not_kept_total counter",
                f"gpu_cutover_alarms_not_kept_total {self._not_kept}",
                "# TYPE gpu_cutover_alarms_failed_total counter",
                *(f'gpu_cutover_alarms_failed_total{{way="{way}"}} {count}' for way, count in self._failed.items()),
            ]
        return "\n".join([*lines, ""])


def handler(listener: Listener, allowed: Sequence[str]) -> type[BaseHTTPRequestHandler]:
    """HTTP: POST /alerts, GET /alarms?since=, /metrics, /health; only from `allowed` addresses and this host."""

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_S
        server_version = "gpu-cutover-alarms"

        def do_POST(self) -> None:
            """Take alerts."""
            length = self.headers.get("content-length", "")
            if self.path != "/alerts" or not self._is_allowed():
                self._answer(403 if self.path == "/alerts" else 404, {})
            elif not length.isdigit() or int(length) > LARGEST:
                self._answer(413, {})
            else:
                self._take(self.rfile.read(int(length)))

        def _take(self, body: bytes) -> None:
            try:
                listener.take(json.loads(body), time.time())
                self._answer(200, {})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._answer(400, {"error": f"no message of Alertmanager: {error!r}"})

        def do_GET(self) -> None:
            """Tell."""
            parts = urlsplit(self.path)
            if not self._is_allowed():
                self._answer(403, {})
            elif parts.path == "/alarms":
                self._tell(parse_qs(parts.query).get("since", ["0"])[0])
            elif parts.path == "/metrics":
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", listener.metrics(time.time()).encode())
            elif parts.path == "/health":
                self._answer(200, {"ok": True})
            else:
                self._answer(404, {})

        def _tell(self, since: str) -> None:
            try:
                self._answer(200, listener.told(float(since), time.time()))
            except ValueError:
                self._answer(400, {"error": "since is a time in epoch seconds"})

        def _is_allowed(self) -> bool:
            return self.client_address[0] in (LOOPBACK, *allowed)

        def _answer(self, status: int, data: dict[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(data).encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: the watchdog comes every few seconds."""

    return Handler


def by_webhook(url: str) -> Way:
    """Post the message. The way raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(message: dict[str, Any]) -> None:
        request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})
        with opener.open(request, timeout=PATIENCE_S):
            pass

    return send


def by_mail(smarthost: str, sender: str, to: str) -> Way:
    """Mail the message; `smarthost` is host:port, spoken to with STARTTLS. The way raises OSError, SMTPException."""
    host, _, port = smarthost.rpartition(":")

    def send(message: dict[str, Any]) -> None:
        mail = email.message.EmailMessage()
        mail["From"], mail["To"] = sender, to
        mail["Subject"] = f"[{message['status']}] MonitorSilent {message['receiver']}"
        mail.set_content(json.dumps(message["alerts"], indent=2))
        with smtplib.SMTP(host, int(port), timeout=PATIENCE_S) as server:
            server.starttls(context=ssl.create_default_context())
            server.send_message(mail)

    return send


def armed_by(log: Path) -> Path:
    """The file that says that a watchdog was heard here before."""
    return log.with_suffix(".armed")


def _remembered(log: Path) -> list[heard.Notice]:
    """What was kept before a restart; torn lines are left out."""
    found = []
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-heard.KEPT :]
    except OSError:
        return []
    for line in lines:
        try:
            notice = json.loads(line)
        except ValueError:
            continue
        if isinstance(notice, dict) and {"t", "alert", "status", "labels"} <= notice.keys():
            found.append(notice)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Listen until ended."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-alarms", description=__doc__)
    parser.add_argument("--listen", default=LOOPBACK)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--allow", action="append", default=[], metavar="ADDRESS", help="who may post and ask")
    parser.add_argument("--host", required=True, help="this host's name, told in alarms")
    parser.add_argument("--patience", type=float, required=True, help="seconds of silence that are an alarm")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--webhook", default="")
    parser.add_argument("--mail", nargs=3, metavar=("SMARTHOST", "FROM", "TO"))
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    ways: dict[str, Way] = {}
    if arguments.webhook:
        ways["webhook"] = by_webhook(arguments.webhook)
    if arguments.mail:
        ways["mail"] = by_mail(*arguments.mail)
    memory = heard.Heard(time.time(), arguments.patience, armed=armed_by(arguments.log).exists())
    memory.kept.extend(_remembered(arguments.log))
    listener = Listener(memory, arguments.log, arguments.host, ways)
    server = ThreadingHTTPServer((arguments.listen, arguments.port), handler(listener, arguments.allow))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        listener.look(time.time())
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
