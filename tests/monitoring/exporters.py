"""What our programs and the products beside them expose, as pages: each from the real code or the real program."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from monitor import ROOT, free_port, program, running
from prometheus_client import generate_latest

from gpu_cutover.evidence.records import Record
from gpu_cutover.guard import web as guard_web
from gpu_cutover.guard.decide import LEVELS
from gpu_cutover.monitoring import gates, heard
from gpu_cutover.monitoring.listener import Listener
from gpu_cutover.peers import metrics as peers
from gpu_cutover.router import metrics as router

sys.path.insert(0, str(ROOT / "twin" / "vllm_standin"))
from vllm.metrics import Metrics as EngineMetrics

sys.path.pop(0)

MODELS = ("llama-3.1-70b-instruct", "whisper-large-v3")
# As Triton 2.51 documents and exposes them; a server is run by the rehearsal only.
TRITON = """# TYPE nv_inference_request_success counter
nv_inference_request_success{model="bge-m3",version="1"} 100
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="bge-m3",version="1"} 0
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="bge-m3",version="1"} 5000
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="bge-m3",version="1"} 900000
"""
# The node exporter's systemd collector needs a system bus: its names as in its source (collector/systemd_linux.go).
SYSTEMD = """# TYPE node_systemd_service_restart_total counter
node_systemd_service_restart_total{name="vllm@m.service"} 1
# TYPE node_systemd_unit_state gauge
node_systemd_unit_state{name="gpu-cutover-burn-in.service",state="active",type="simple"} 1
# TYPE node_systemd_unit_start_time_seconds gauge
node_systemd_unit_start_time_seconds{name="gpu-cutover-burn-in.service"} 1.7e9
"""
# As the role site_pki writes it.
CERTIFICATES = 'gpu_cutover_certificate_not_after_seconds{certificate="server"} 2e9\n'


def guard() -> str:
    """Two GPUs through the guard's own exposition."""
    boards = [
        {
            "index": index,
            "temperature_celsius": 60.0,
            "margin_celsius": 25.0,
            "power_w": 250.0,
            "limit_w": 350.0,
            "clocks_event_bits": 4,
            "memory_used_bytes": 40e9,
            "ecc_uncorrected": 0,
            "remap_pending": 0,
        }
        for index in range(2)
    ]
    view: dict[str, Any] = {
        "sample": {"t": 1.0, "gpus": boards},
        "gpus": [{"level": LEVELS[0], "heat_s": 0.0} for _ in boards],
        "placement": "healthy",
        "placements": ["healthy", "without-gpu0"],
        "pages": {"all hot": 1.0},
        "counts": {"cap": 1},
        "engines": {model: {"unit": f"vllm@{model}.service", "up": True, "restarts": 0} for model in MODELS},
        "changing": False,
        "observe_only": False,
        "sample_age_s": 0.4,
        "since": 1.0,
    }
    return guard_web.exposition(guard_web.samples(view))


def routers() -> Callable[[], str]:
    """A router's registry; every look counts some more, as under traffic."""
    made = router.Metrics("hybrid")
    told = router.Told("chat", "onprem", MODELS[0], "ok", 4.0, 0.6, 120)

    def page() -> str:
        for route in ("chat", "audio", "embed"):
            for leg in ("onprem", "cloud"):
                made.count("doc-zam", route, leg, "policy", "ok")
                made.tell(replace(told, route=route, leg=leg))
        made.turned_away.labels("full").inc()
        made.breaker_open.labels(MODELS[0]).set(0)
        made.mirrored.labels("chat", "ok").inc()
        made.mirror_dropped.labels("chat").inc()
        made.reversed.labels("chat", "ok").inc()
        made.reverse_dropped.labels("chat").inc()
        return generate_latest(made.registry).decode() + "gpu_cutover_router_sealed 1\n"

    return page


def engines() -> Callable[[], str]:
    """Two engines as the stand-in tells them."""
    made = [EngineMetrics(model) for model in MODELS]

    def page() -> str:
        for engine in made:
            for histogram in engine.histograms.values():
                histogram.observe(0.5)
            engine.counters["generation_tokens_total"] += 100
        return "".join(engine.text() for engine in made)

    return page


def routes() -> str:
    """A gateway of two."""
    watches = [{"tenant": "doc-zam", "verdict": "clean"}]
    return peers.exposition({"gw2": {"problem": "", "agrees": True}}, [{"t": 100.0}], watches)


def alarms() -> str:
    """A listener's."""
    return Listener(heard.Heard(time.time(), 60.0), Path("/nonexistent"), "gw1", {"mail": print}).metrics(time.time())


def verdicts() -> str:
    """The ledger's."""
    data = {"day": 7, "verdict": "promote", "finished": "2027-01-01T12:00:00Z"}
    return gates.exposition([Record(1, "gate", "day07", "2027-01-01T12:00:00Z", "a", "", data, (), "f")])


PAGES: dict[str, Callable[[], str]] = {
    "/guard": guard,
    "/router": routers(),
    "/vllm": engines(),
    "/triton": lambda: TRITON,
    "/routes": routes,
    "/alarms": alarms,
    "/textfile": lambda: SYSTEMD + CERTIFICATES + verdicts(),
}
EDGE = """global
  maxconn 100
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend edge
  bind 127.0.0.1:{door}
  use_backend router_hybrid
backend router_hybrid
  server hybrid 127.0.0.1:{door}
frontend metrics
  bind 127.0.0.1:{metrics}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  monitor-uri /health
"""


@contextmanager
def edge(directory: Path) -> Iterator[str]:
    """A real HAProxy's exporter, with the names of the role's frontends and backends; its address."""
    metrics = free_port()
    config = directory / "haproxy.cfg"
    config.write_text(EDGE.format(door=free_port(), metrics=metrics))
    with running(["haproxy", "-db", "-f", str(config)], f"http://127.0.0.1:{metrics}/health"):
        yield f"127.0.0.1:{metrics}"


@contextmanager
def node() -> Iterator[str]:
    """A real node exporter; its address."""
    port = free_port()
    arguments = [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    with running(arguments, f"http://127.0.0.1:{port}/"):
        yield f"127.0.0.1:{port}"


@contextmanager
def products(directory: Path) -> Iterator[dict[str, str]]:
    """Job → address of the products that run here."""
    with ExitStack() as stack:
        yield {"edge": stack.enter_context(edge(directory)), "node": stack.enter_context(node())}
