"""The guard as real processes and threads: a simulated NVML library underneath, real sockets above."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gpu_cutover.guard import control, daemon, placement, store
from gpu_cutover.guard.config import Config
from gpu_cutover.probes import nvml, web

from .guard_host import MemoryHost, bring

SOURCE = Path(__file__).parents[2] / "twin" / "nvml" / "libnvidia-ml.c"
COOL = {f"gpu{i}.temp": 50 for i in range(4)}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    out = folder / "libnvidia-ml.so.1"
    compiler = shutil.which("gcc")
    assert compiler, "a C compiler builds the simulated NVML"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(out), str(SOURCE)]
    subprocess.run(command, check=True)
    return folder


class Board:
    """The simulated boards' state file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {
            "count": 4, "driver": "580.105.08", "gpu.name": "NVIDIA L40S", "gpu.tlimit.ref": 88, "gpu.lost": 0,
            "gpu.tlimit.slowdown": -2, "gpu.tlimit.shutdown": -5, "gpu.reasons": "0x4", "gpu.power_mw": 300000,
            "gpu.limit_mw": 350000, "gpu.limit_min_mw": 100000, "gpu.limit_max_mw": 350000, "gpu.recovery_action": 0,
            "gpu.mem.total": 2**35, "gpu.ecc.dbe.vol": 0, "gpu.remap.failure": 0, **COOL,
        }  # fmt: skip
        self.set()

    def set(self, **changes: Any) -> None:
        self.values |= {key.replace("__", "."): value for key, value in changes.items()}
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{key}={value}\n" for key, value in self.values.items()))
        fresh.replace(self.path)

    def xid(self, gpu: int, code: int) -> None:
        with Path(f"{self.path}.xid").open("a") as handle:
            handle.write(f"{gpu} {code}\n")


@pytest.fixture
def board(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("NVML_STANDIN_STATE", str(tmp_path / "nvml.state"))
    return Board(tmp_path / "nvml.state")


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("did not happen in time")


@pytest.fixture
def reader() -> Iterator[nvml.Reader]:
    made = nvml.Reader()
    yield made
    made.close()


def test_a_reading_has_margins_power_and_limits(board: Board, reader: nvml.Reader) -> None:
    found = reader.read(10.0)
    assert len(found["gpus"]) == 4
    gpu = found["gpus"][2]
    assert (gpu["margin_celsius"], gpu["slowdown_margin_celsius"], gpu["power_w"]) == (38, -2, 300.0)
    assert gpu["memory_temperature_celsius"] is None


def test_an_xid_arrives_with_its_gpu_even_when_the_gpu_is_gone(board: Board, reader: nvml.Reader) -> None:
    reader.read(10.0)
    time.sleep(0.3)
    board.set(gpu3__lost=1)
    board.xid(3, 79)
    seen = until(lambda: reader.read(10.0).get("xids"))
    assert [(event["gpu"], event["xid"]) for event in seen] == [(3, 79)]
    assert reader.read(10.0)["gpus"][3]["lost"] is True


def test_a_hung_driver_is_an_error_in_time_and_the_reader_recovers(board: Board, reader: nvml.Reader) -> None:
    reader.read(10.0)
    board.set(hang=30)
    began = time.monotonic()
    assert "did not answer within 0.5 s" in reader.read(0.5)["error"]
    assert time.monotonic() - began < 3.0
    del board.values["hang"]
    board.set()
    assert len(until(lambda: reader.read(10.0).get("gpus"))) == 4


def test_no_library_is_an_error_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert "error" in nvml.read_once(sys.executable)
    assert "error" in nvml.read_once("/nonexistent/python")


# --- the whole daemon as a process -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One running guard."""

    def __init__(self, folder: Path) -> None:
        self.port, self.socket = free_port(), folder / "run" / "control"
        config = {
            "gpus": 4, "listen": "127.0.0.1", "port": self.port, "interval_s": 0.1, "read_timeout_s": 3.0,
            "placements": str(folder / "placements"), "state_file": str(folder / "state.json"),
            "socket": str(self.socket),
            "policy": {"act_after_s": 2.0, "critical_after_s": 0.5, "blind_after_s": 1.0, "cool_down_s": 0.3},
        }  # fmt: skip
        self.config = folder / "guard.json"
        self.config.write_text(json.dumps(config))
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gpu_cutover.guard.main", "run", "--config", str(self.config)]
        self.child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: web.answers(f"http://127.0.0.1:{self.port}/health"))

    def kill(self) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
            self.child = None

    def get(self, path: str) -> Any:
        return web.get_json(f"http://127.0.0.1:{self.port}{path}")

    def ask(self, command: str) -> dict[str, Any]:
        return control.ask(command, self.socket)


@pytest.fixture
def guard(board: Board, tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    made.start()
    yield made
    made.kill()


def test_the_guard_derates_by_itself_and_remembers_it_when_killed(board: Board, guard: Process) -> None:
    assert guard.get("/placement")["name"] == "healthy"
    board.set(gpu2__temp=90)
    until(lambda: guard.get("/placement")["name"] == "without-gpu2")
    guard.kill()
    guard.start()
    placed = guard.get("/placement")
    assert (placed["name"], placed["derated"], placed["previous"]) == ("without-gpu2", 2, "healthy")
    assert any("margin" in event["event"] for event in placed["events"])


def test_the_placement_names_the_boards_and_a_lost_one_keeps_its_name(board: Board, guard: Process) -> None:
    board.set(gpu0__uuid="GPU-a", gpu2__uuid="GPU-c")
    until(lambda: guard.get("/placement")["gpu_uuids"] == {"0": "GPU-a", "2": "GPU-c"})
    board.set(gpu2__lost=1)
    until(lambda: guard.get("/placement")["name"] == "without-gpu2")
    assert guard.get("/placement")["gpu_uuids"]["2"] == "GPU-c"


def test_commands_are_answered_and_refused_with_a_reason(board: Board, guard: Process) -> None:
    assert guard.ask("derate 1 drill")["placement"] == "without-gpu1"
    assert "restore it first" in guard.ask("derate 2")["reason"]
    assert "commands" in guard.ask("dance")["reason"]
    board.set(gpu1__temp=86)
    until(lambda: "cool for 0 s" in (guard.ask("restore")["reason"] or ""))
    board.set(**COOL)
    until(lambda: guard.ask("restore")["ok"])
    assert guard.get("/placement")["name"] == "healthy"


def test_the_guard_stays_alive_and_calls_when_the_driver_hangs(board: Board, guard: Process) -> None:
    board.set(hang=60)
    until(lambda: "blind" in guard.get("/health")["pages"])
    assert guard.get("/placement")["name"] == "healthy"
    assert "gpu_guard_sample_ok 0" in metrics(guard)


def metrics(guard: Process) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{guard.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def test_metrics_parse_and_history_has_the_curve(board: Board, guard: Process) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    rows = until(lambda: [row for row in guard.get("/history?seconds=60")["samples"] if row["gpus"][0]["power_w"]])
    assert rows[-1]["gpus"][0]["margin_celsius"] == 38
    until(lambda: "gpu_guard_margin_celsius" in metrics(guard))
    names = {family.name for family in text_string_to_metric_families(metrics(guard))}
    assert {"gpu_guard_level", "gpu_guard_sample_ok", "gpu_guard_placement_since_seconds"} <= names


@pytest.mark.parametrize("path", ["/history?seconds=x", "/nothing"])
def test_a_bad_request_is_answered(board: Board, guard: Process, path: str) -> None:
    with pytest.raises(OSError, match="HTTP 40"):
        guard.get(path)


def test_observe_only_survives_a_restart_and_does_nothing(board: Board, guard: Process) -> None:
    assert guard.ask("observe-only on")["ok"]
    guard.kill()
    guard.start()
    board.set(gpu2__temp=90)
    until(lambda: any("would" in event["event"] for event in guard.get("/placement")["events"]))
    assert guard.get("/placement")["name"] == "healthy"


def test_a_wrong_configuration_is_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_text('{"gpus": 4, "policy": {"act_after_s": "soon"}}')
    done = subprocess.run(
        [sys.executable, "-m", "gpu_cutover.guard.main", "run", "--config", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, "policy.act_after_s" in done.stderr) == (2, True)


# --- what runs ----------------------------------------------------------------------------------------------------


class Engine(http.server.BaseHTTPRequestHandler):
    """An engine that answers its health check and tells a version; `asked` counts how often."""

    told: ClassVar[dict[str, Any]] = {"version": "0.25.1"}
    asked = 0

    def do_GET(self) -> None:
        Engine.asked += self.path == "/version"
        body = json.dumps(self.told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


def test_an_engine_is_asked_for_its_version_once_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    unit = {"Id": "vllm@llama.service", "ActiveState": "active", "NRestarts": "0", "MainPID": "7"}
    monkeypatch.setattr(daemon.systemd, "show", lambda units: {"vllm@llama.service": unit})
    states = daemon.EngineStates()
    wanted = {"llama": placement.Engine("llama", "vllm@llama.service", (2,), url, f"{url}/health", "w", "d")}
    for _ in range(3):
        assert states(wanted)["llama"]["engine_version"] == "0.25.1"
    assert Engine.asked == 1
    monkeypatch.setattr(Engine, "told", {"version": "0.26.0"})
    unit["MainPID"] = "8"
    assert states(wanted)["llama"]["engine_version"] == "0.26.0"
    unit["MainPID"] = "9"
    monkeypatch.setattr(Engine, "told", {})
    assert states(wanted)["llama"]["engine_version"] == ""
    unit["ActiveState"] = "failed"
    assert (states(wanted)["llama"]["up"], states(wanted)["llama"]["engine_version"]) == (False, "")
    server.shutdown()
    server.server_close()


# --- finishing what was begun ----------------------------------------------------------------------------------------


class Samples:
    """A reader that repeats one sample."""

    def read(self, timeout_s: float) -> dict[str, Any]:
        gpus = [{"index": i, "margin_celsius": 30, "lost": False} for i in range(4)]
        return {"t": time.time(), "gpus": gpus, "xids": []}

    def close(self) -> None:
        """Nothing to close."""


def made(folder: Path, placements: Path, host: MemoryHost) -> daemon.Guard:
    config = Config(gpus=4, placements=placements, state_file=folder / "guard" / "state.json", drain_s=0.0)
    config = Config(**{**config.__dict__, "socket": folder / "guard" / "control"})
    (folder / "guard").mkdir(exist_ok=True)
    return daemon.Guard(config, Samples(), host, lambda gpu, watts: None, lambda engines: {})


@pytest.mark.parametrize("steps", range(5))
def test_a_guard_killed_in_the_middle_of_a_derate_finishes_it(
    tmp_path_factory: pytest.TempPathFactory,
    directory: Path,
    steps: int,
) -> None:
    folder, host = tmp_path_factory.mktemp("guard"), MemoryHost(directory)
    bring(directory, host, "healthy")
    first = made(folder, directory, host)
    assert first.command(["derate", "2", "drill"])["ok"]
    host.die_after = steps
    with contextlib.suppress(InterruptedError):
        first.change_if_needed()
    host.die_after = 10**9
    second = made(folder, directory, host)
    second.change_if_needed()
    wanted = placement.wanted_digests(placement.load_plan(directory)["without-gpu2"])
    assert host.units == wanted
    change = second.memory.changes[-1]
    assert (change.kind, change.gpu, change.finished is not None) == ("derate", 2, True)
    assert change.timeline


def test_a_guard_without_its_memory_does_not_bring_a_hot_gpu_back(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{torn")
    memory = store.load(tmp_path / "state.json", 4, "without-gpu2", 5.0)
    assert (memory.state.derated, memory.placement) == (2, "without-gpu2")
    assert list(tmp_path.glob("state.json.damaged-*"))


def test_the_socket_belongs_to_root_alone(tmp_path: Path) -> None:
    server = control.server(tmp_path / "control", lambda words: {"ok": True, "words": words})
    assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600
    server.server_close()
