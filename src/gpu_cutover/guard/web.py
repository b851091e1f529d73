"""The guard over HTTP: metrics, placement, health, history. Text building is pure; the server only carries it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .decide import LEVELS

Sample = tuple[str, Mapping[str, object], object]
HELP = {
    "gpu_guard_margin_celsius": "Degrees to the maximum operating temperature (T.Limit).",
    "gpu_guard_level": "1 for the level of the GPU.",
    "gpu_guard_placement": "1 for the placement in force.",
    "gpu_guard_page": "1 while a person is called for this reason.",
    "gpu_guard_engine_up": "1 when the engine answers its health check.",
    "gpu_guard_engine_restarts_total": "Restarts of the engine by systemd since it was last started by hand.",
}


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def exposition(samples: Iterable[Sample]) -> str:
    """Prometheus text format; a value of None is left out (absent, not zero)."""
    by_name: dict[str, list[str]] = {}
    for name, labels, value in samples:
        if value is None:
            continue
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        by_name.setdefault(name, []).append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")
    lines: list[str] = []
    for name, rows in by_name.items():
        lines.append(f"# HELP {name} {HELP.get(name, name.removeprefix('gpu_guard_').replace('_', ' '))}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines += rows
    return "\n".join([*lines, ""])


_PER_GPU = {
    "gpu_guard_temperature_celsius": "temperature_celsius",
    "gpu_guard_margin_celsius": "margin_celsius",
    "gpu_guard_power_watts": "power_w",
    "gpu_guard_power_limit_watts": "limit_w",
    "gpu_guard_clocks_event_bits": "clocks_event_bits",
    "gpu_guard_memory_used_bytes": "memory_used_bytes",
    "gpu_guard_ecc_uncorrected": "ecc_uncorrected",
    "gpu_guard_remap_pending": "remap_pending",
}


def samples(view: Mapping[str, Any]) -> list[Sample]:
    """The metrics of one view of the guard (see `Guard.view`)."""
    found: list[Sample] = []
    for gpu in view["sample"].get("gpus", []):
        label = {"gpu": gpu["index"]}
        found += [(name, label, gpu.get(key)) for name, key in _PER_GPU.items()]
        found.append(("gpu_guard_lost", label, int(bool(gpu.get("lost")))))
    for index, gpu in enumerate(view["gpus"]):
        found += [("gpu_guard_level", {"gpu": index, "level": name}, int(gpu["level"] == name)) for name in LEVELS]
        found.append(("gpu_guard_heat_seconds", {"gpu": index}, gpu["heat_s"]))
    found += [("gpu_guard_placement", {"name": n}, int(n == view["placement"])) for n in view["placements"]]
    found += [("gpu_guard_page", {"reason": reason}, 1) for reason in view["pages"]]
    found += [("gpu_guard_actions_total", {"kind": kind}, count) for kind, count in view["counts"].items()]
    for model, engine in view["engines"].items():
        found.append(("gpu_guard_engine_up", {"model": model, "unit": engine["unit"]}, int(engine["up"])))
        found.append(("gpu_guard_engine_restarts_total", {"model": model, "unit": engine["unit"]}, engine["restarts"]))
    found += [
        ("gpu_guard_pages", {}, len(view["pages"])),
        ("gpu_guard_changing", {}, int(view["changing"])),
        ("gpu_guard_observe_only", {}, int(view["observe_only"])),
        ("gpu_guard_sample_age_seconds", {}, view["sample_age_s"]),
        ("gpu_guard_sample_ok", {}, int("error" not in view["sample"])),
        ("gpu_guard_placement_since_seconds", {}, view["since"]),
    ]
    return found


Answer = tuple[int, str, str]


def server(listen: str, port: int, answer: Callable[[str, dict[str, list[str]]], Answer]) -> ThreadingHTTPServer:
    """A server (not yet serving); `answer` gets path and query and returns status, content type, body."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # of a connection that is kept and says nothing
        protocol_version = "HTTP/1.1"
        server_version = "gpu-guard"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, kind, body = answer(parts.path, parse_qs(parts.query))
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are not logged: the routers ask every second."""

    made = ThreadingHTTPServer((listen, port), Handler)
    made.daemon_threads = True
    return made


def as_json(status: int, data: object) -> Answer:
    """A JSON answer."""
    return status, "application/json", json.dumps(data)
