"""Every gateway of the field, started on loopback, and how it is asked for each job."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import configs, install
from .configs import ROUTES, Engines
from .install import NotAtHandError
from .jobs import JOBS, OPENAI, PACE, Request, request
from .processes import OTHER_CORES, Load, Process, free_port

MIRRORS = "with mirror"
TRIES = 8
LITELLM_HOME = "litellm/home/here"  # it imports from two folders above the one it runs in
START_S = 240.0  # LiteLLM on a busy machine


@dataclass(slots=True)
class Contestant:
    """A way to the engine: the processes that are its cost, and its request for each job."""

    name: str
    port: int
    requests: Mapping[str, Request]
    processes: list[Process] = field(default_factory=list)
    tls: Mapping[str, str] | None = None
    wrk: bool = True
    missing: dict[str, str] = field(default_factory=dict)  # job: why it cannot do it

    @property
    def mirrors(self) -> bool:
        """Does every request go to both legs?"""
        return self.name.endswith(MIRRORS)

    def cpu_s(self) -> float:
        """Processor time of its processes so far."""
        return sum(process.cpu_s() for process in self.processes)

    def order(self, how: str, job: str, **more: Any) -> dict[str, Any]:
        """What the load generator is told."""
        return {"how": how, "port": self.port, "tls": self.tls, "requests": [self.requests[job]], **more}


class Field:
    """The engines, the load and all gateways that are at hand. A context: everything ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.absent: dict[str, str] = {}
        self._stack = ExitStack()
        self._python = install.tools()

    def __enter__(self) -> Field:
        self.engines = Engines(*(free_port() for _ in range(4)))
        for name in ("onprem", "cloud", "slow"):
            delay = ["4000"] if name == "slow" else []
            script = Path(__file__).with_name("engine.py")
            port = getattr(self.engines, name)
            self.start([self._python, script, str(port), name, *delay], f"engine-{name}", port, cores=OTHER_CORES)
        self.load = Load(self._python)
        self._stack.callback(self.load.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, command: list[Any], name: str, port: int, **more: Any) -> Process:
        """A process that ends with the field. Raises NotAtHandError when it does not come up."""
        process = Process(command, self.folder / name, **more)
        self._stack.callback(process.stop)
        process.wait_for(port, START_S)
        return process

    def posts(self, engine: str) -> int:
        """Requests that an engine got so far."""
        url = f"http://127.0.0.1:{getattr(self.engines, engine)}/count"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(json.load(answer)["posts"])

    def router(self, name: str, table: dict[str, Any]) -> tuple[Process, int, int, Path]:
        """Our router as its unit starts it: process, port, metrics port, table file."""
        from gpu_cutover.router import log_key

        folder = self.folder / name
        folder.mkdir(parents=True)
        file = folder / "hybrid.json"
        file.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        log_key.make(folder / "hybrid.key")
        (folder / "run").mkdir()
        port, metrics_port = free_port(), free_port()
        words = ["--table", file, "--pool", "hybrid", "--port", str(port), "--metrics-host", "127.0.0.1"]
        words += ["--metrics-port", str(metrics_port), "--log-dir", folder, "--log-key", folder / "hybrid.key"]
        command = [sys.executable, "-P", "-m", "gpu_cutover.router.main", *words, "--runtime-dir", folder / "run"]
        return self.start(command, name, port), port, metrics_port, file

    def edge(
        self, name: str, pool: int, health_port: int, paths: dict[str, str]
    ) -> tuple[Process, int, dict[str, Any]]:
        """HAProxy with the edge's own template: process, port, TLS of each tenant."""
        port = free_port()
        config, tls = configs.edge(self.folder / name, port, f"127.0.0.1:{pool}", health_port, paths)
        return self.start([install.haproxy(), "-db", "-f", config], name, port), port, tls

    def gather(self) -> list[Contestant]:
        """All that are at hand, tried once; `absent` says why of the others."""
        makers: tuple[tuple[str, Callable[[], list[Contestant]]], ...] = (
            ("direct", self._direct),
            ("HAProxy, edge's rules", self._haproxy),
            ("our router", self._ours),
            ("nginx", self._nginx),
            ("Envoy", self._envoy),
            ("Portkey", self._portkey),
            ("LiteLLM", self._litellm),
        )
        found = []
        for name, make in makers:
            try:
                found += make()
            except NotAtHandError as reason:
                self.absent[name] = str(reason)
        for contestant in found:
            self._try(contestant)
        return found

    def _try(self, contestant: Contestant) -> None:
        """A job that is not answered properly is not measured."""
        for job in contestant.requests:
            told: dict[str, Any] = {}
            for _ in range(TRIES):  # the edge waits for the first check of its router
                told = self.load.run(contestant.order("closed", job, connections=1, count=1))
                if not told["bad"]:
                    break
                time.sleep(0.25)
            else:
                contestant.missing[job] = told["why"]

    # --- who ------------------------------------------------------------------------------------------------------

    def _direct(self) -> list[Contestant]:
        requests = {job: request(job, PACE[job] + OPENAI[job], "m") for job in JOBS}
        return [Contestant("direct", self.engines.onprem, requests)]

    def _haproxy(self) -> list[Contestant]:
        paths = {job: f"{PACE[job]}/{job}" for job in JOBS}
        process, port, tls = self.edge("haproxy", self.engines.onprem, self.engines.onprem, paths)
        requests = {job: request(job, path, "m") for job, path in paths.items()}
        return [Contestant("HAProxy, edge's rules (TLS)", port, requests, [process], tls["zam"], wrk=False)]

    def _ours(self) -> list[Contestant]:
        router, port, metrics_port, _ = self.router("router", configs.table(self.engines))
        edge, edge_port, tls = self.edge("edge", port, metrics_port, {route: f"/{route}" for route in ROUTES.values()})
        named = {"zam": "", "fern": ", cloud state", "seri": f", {MIRRORS}"}
        found = []
        for tenant, more in named.items():
            requests = {job: request(job, f"/{route}", "m", {"x-tenant": tenant}) for job, route in ROUTES.items()}
            found.append(Contestant(f"our router{more}", port, requests, [router]))
            if tenant != "fern":
                whole = [edge, router]
                found.append(
                    Contestant(f"HAProxy + our router (TLS){more}", edge_port, requests, whole, tls[tenant], False)
                )
        return found

    def _nginx(self) -> list[Contestant]:
        program, port, folder = install.nginx(), free_port(), self.folder / "nginx"
        folder.mkdir()
        (folder / "nginx.conf").write_text(configs.nginx(port, self.engines))
        process = self.start([program, "-p", folder, "-c", folder / "nginx.conf"], "nginx", port)
        return self._plain_and_copied("nginx", port, process)

    def _envoy(self) -> list[Contestant]:
        program, port, folder = install.envoy(), free_port(), self.folder / "envoy"
        folder.mkdir()
        (folder / "envoy.yaml").write_text(yaml.safe_dump(configs.envoy(port, self.engines)))
        words = ["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
        process = self.start([program, "-c", folder / "envoy.yaml", *words], "envoy", port)
        return self._plain_and_copied("Envoy", port, process)

    def _plain_and_copied(self, name: str, port: int, process: Process) -> list[Contestant]:
        plain = {job: request(job, f"/{job}", "m") for job in JOBS}
        copied = {job: request(job, f"/copied/{job}", "m") for job in JOBS}
        return [
            Contestant(name, port, plain, [process]),
            Contestant(f"{name}, {MIRRORS}", port, copied, [process]),
        ]

    def _portkey(self) -> list[Contestant]:
        script, port = install.portkey(), free_port()
        environment = {**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
        process = self.start(["node", script, f"--port={port}", "--headless"], "portkey", port, environment=environment)
        requests = {}
        for job in JOBS:
            told = json.dumps(configs.portkey(self.engines, job), separators=(",", ":"))
            requests[job] = request(job, OPENAI[job], "m", {"x-portkey-config": told})
        return [Contestant("Portkey", port, requests, [process])]

    def _litellm(self) -> list[Contestant]:
        python, port, folder = install.litellm(), free_port(), self.folder / LITELLM_HOME
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(configs.litellm(self.engines)))
        quiet = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "NO_DOCS": "True"}
        environment = {**os.environ, **quiet, "DISABLE_ADMIN_UI": "True", "LITELLM_LOG": "ERROR", "HOME": str(folder)}
        program = [python, python.with_name("litellm"), "--config", folder / "config.yaml", "--host", "127.0.0.1"]
        words = [*program, "--port", str(port), "--telemetry", "False"]
        process = self.start(words, LITELLM_HOME, port, environment=environment)
        headers = {"authorization": f"Bearer {configs.KEY}"}
        plain = {job: request(job, OPENAI[job], job, headers) for job in JOBS}
        # silent_model is for chats only.
        chats = ("chat", "think", "stream")
        copied = {job: request(job, OPENAI[job], f"{job}-copied", headers) for job in chats}
        return [
            Contestant("LiteLLM", port, plain, [process]),
            Contestant(f"LiteLLM silent_model, {MIRRORS}", port, copied, [process]),
        ]
