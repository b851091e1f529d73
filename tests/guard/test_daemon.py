"""The guard as real processes and threads: a simulated NVML library underneath, real sockets above."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gpu_cutover.guard import control, daemon, engines, placement, store
from gpu_cutover.guard.config import Config
from gpu_cutover.probes import nvml

from .guard_host import MemoryHost, bring
from .real_guard import Board, Engines, Guard, until

COOL = {f"gpu{i}.temp": 50 for i in range(4)}


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


@pytest.fixture
def guard(board: Board, tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path)
    made.start()
    yield made
    made.kill()


def test_the_guard_derates_by_itself_and_remembers_it_when_killed(board: Board, guard: Guard) -> None:
    assert guard.get("/placement")["name"] == "healthy"
    board.set(gpu2__temp=90)
    until(lambda: guard.get("/placement")["name"] == "without-gpu2")
    guard.kill()
    guard.start()
    placed = guard.get("/placement")
    assert (placed["name"], placed["derated"], placed["previous"]) == ("without-gpu2", 2, "healthy")
    assert any("margin" in event["event"] for event in placed["events"])


def test_the_placement_names_the_boards_and_a_lost_one_keeps_its_name(board: Board, guard: Guard) -> None:
    until(lambda: guard.get("/placement")["gpu_uuids"] == {str(slot): f"GPU-{slot}" for slot in range(4)})
    board.set(gpu2__lost=1)
    until(lambda: guard.get("/placement")["name"] == "without-gpu2")
    assert guard.get("/placement")["gpu_uuids"]["2"] == "GPU-2"


def reboot(board: Board, guard: Guard, *seats: int | str) -> None:
    """The machine boots with these boards; the driver numbers them anew."""
    until(lambda: guard.ask("status")["roster"])
    guard.kill()
    board.seat(*seats)
    guard.start()


def test_after_a_boot_without_a_board_that_gpu_is_lost_and_no_other_is_taken_for_it(board: Board, guard: Guard) -> None:
    reboot(board, guard, 0, 2, 3)
    until(lambda: guard.get("/placement")["name"] == "without-gpu1")
    board.set(gpu1__temp=70)  # NVML's 1 is the site's GPU 2
    until(lambda: guard.ask("status")["sample"]["gpus"][2]["margin_celsius"] == 18)
    status = guard.ask("status")
    assert (status["derated"], status["gpus"][1]["fault"]) == (1, "its board is not there")
    assert "is not there" in guard.ask("restore")["reason"] or "cannot be read" in guard.ask("restore")["reason"]


def test_a_replaced_board_stays_out_until_it_is_accepted(board: Board, guard: Guard) -> None:
    reboot(board, guard, 0, "new", 2, 3)
    until(lambda: guard.get("/placement")["name"] == "without-gpu1")
    until(lambda: "board GPU-new" in guard.get("/health")["pages"])
    assert guard.ask("accept") == {"ok": True, "reason": None, "placement": "without-gpu1"}
    until(lambda: guard.get("/health")["pages"] == {})
    assert guard.get("/placement")["gpu_uuids"]["1"] == "GPU-new"
    until(lambda: guard.ask("restore")["ok"])
    guard.kill()
    guard.start()
    assert guard.get("/placement")["name"] == "healthy"
    assert guard.ask("status")["roster"][1]["source"].startswith("accepted ")


def test_boards_that_changed_places_serve_on_and_are_called_for(board: Board, guard: Guard) -> None:
    reboot(board, guard, 2, 1, 0, 3)
    until(lambda: set(guard.get("/health")["pages"]) == {"boards moved"})
    board.set(gpu0__temp=70)
    until(lambda: guard.ask("status")["sample"]["gpus"][2]["margin_celsius"] == 18)
    assert guard.get("/placement")["name"] == "healthy"
    assert guard.ask("accept")["ok"]
    until(lambda: guard.get("/health")["pages"] == {})
    assert guard.ask("status")["sample"]["gpus"][0]["margin_celsius"] == 18


def test_a_bad_board_is_not_accepted_into_another_slot(board: Board, guard: Guard) -> None:
    guard.ask("derate 1 bad board")
    reboot(board, guard, 1, 0, 2, 3)
    assert "GPU 1 is out and its board sits in another slot" in until(lambda: guard.ask("accept")["reason"])


def test_declared_boards_need_no_learning_and_no_one_else_is_accepted(board: Board, tmp_path: Path) -> None:
    guard = Guard(tmp_path, uuids=["GPU-3", "GPU-2", "GPU-1", "GPU-0"])
    guard.start()
    board.set(gpu3__temp=70)
    until(lambda: guard.ask("status")["sample"]["gpus"][0].get("margin_celsius") == 18)
    assert "declared otherwise" in guard.ask("accept")["reason"]
    guard.kill()


def test_an_xid_is_acted_on_without_waiting_for_the_next_sample(board: Board, tmp_path: Path) -> None:
    guard = Guard(tmp_path, interval_s=20.0)
    guard.start()
    until(lambda: guard.ask("status")["sample_age_s"] is not None)
    board.xid(2, 79)
    until(lambda: guard.get("/placement")["name"] == "without-gpu2", seconds=15.0)
    guard.kill()


def test_whoever_knows_the_placement_hears_of_the_next_one(board: Board, guard: Guard) -> None:
    until(lambda: guard.get("/placement")["gpu_uuids"])
    tag = guard.get("/placement")["tag"]
    assert guard.get(f"/placement?after={tag}&wait=0.2")["tag"] == tag
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.append(guard.get(f"/placement?after={tag}&wait=25")))
    waiting.start()
    guard.ask("derate 2 drill")
    waiting.join(20.0)
    assert heard[0]["name"] == "without-gpu2"
    assert guard.get(f"/placement?after={tag}&wait=25")["name"] == "without-gpu2"  # an old one is answered at once


def test_commands_are_answered_and_refused_with_a_reason(board: Board, guard: Guard) -> None:
    assert guard.ask("derate 1 drill")["placement"] == "without-gpu1"
    assert "restore it first" in guard.ask("derate 2")["reason"]
    assert "commands" in guard.ask("dance")["reason"]
    board.set(gpu1__temp=86)
    until(lambda: "cool for 0 s" in (guard.ask("restore")["reason"] or ""))
    board.set(**COOL)
    until(lambda: guard.ask("restore")["ok"])
    assert guard.get("/placement")["name"] == "healthy"


def test_the_guard_stays_alive_and_calls_when_the_driver_hangs(board: Board, guard: Guard) -> None:
    board.set(hang=60)
    until(lambda: {"blind", "nvml hung"} <= set(guard.get("/health")["pages"]))
    assert guard.get("/placement")["name"] == "healthy"
    assert "gpu_guard_sample_ok 0" in metrics(guard)


def metrics(guard: Guard) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{guard.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def test_metrics_parse_and_history_has_the_curve(board: Board, guard: Guard) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    rows = until(lambda: [row for row in guard.get("/history?seconds=60")["samples"] if row["gpus"][0]["power_w"]])
    assert rows[-1]["gpus"][0]["margin_celsius"] == 38
    until(lambda: "gpu_guard_margin_celsius" in metrics(guard))
    names = {family.name for family in text_string_to_metric_families(metrics(guard))}
    assert {"gpu_guard_level", "gpu_guard_sample_ok", "gpu_guard_placement_since_seconds"} <= names


@pytest.mark.parametrize("path", ["/history?seconds=x", "/nothing"])
def test_a_bad_request_is_answered(board: Board, guard: Guard, path: str) -> None:
    with pytest.raises(OSError, match="HTTP 40"):
        guard.get(path)


def test_observe_only_survives_a_restart_and_does_nothing(board: Board, guard: Guard) -> None:
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
    monkeypatch.setattr("gpu_cutover.guard.engines.systemd.show", lambda units: {"vllm@llama.service": unit})
    states = engines.EngineStates()
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

    def set_limit(self, uuid: str, watts: float, timeout_s: float) -> str | None:
        return None

    def wait(self, seconds: float) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """Nothing to close."""


def made(folder: Path, placements: Path, host: MemoryHost) -> daemon.Guard:
    config = Config(gpus=4, placements=placements, state_file=folder / "guard" / "state.json", drain_s=0.0)
    config = Config(**{**config.__dict__, "socket": folder / "guard" / "control"})
    (folder / "guard").mkdir(exist_ok=True)
    return daemon.Guard(config, Samples(), host, lambda engines: {})


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


@pytest.mark.parametrize("when", [f"{how} {act}" for act in range(4) for how in ("before", "after")])
def test_a_guard_killed_at_any_change_of_a_unit_finishes_the_derate(board: Board, tmp_path: Path, when: str) -> None:
    host, guard = Engines(tmp_path), Guard(tmp_path)
    try:
        host.place(guard.placements)
        guard.start()
        kept = host.running()["triton@bge.service"]
        host.kill_at(when)
        guard.ask("derate 2 drill")
        assert guard.died() == -signal.SIGKILL
        host.kill_at("")
        guard.start()
        until(lambda: not guard.ask("status")["changing"])
        wanted = placement.wanted_digests(placement.load_plan(guard.placements)["without-gpu2"])
        assert (host.running(), host.enabled()) == (wanted, set(wanted))
        assert host.running()["triton@bge.service"] == kept
        change = guard.ask("status")["changes"][-1]
        assert (change["kind"], change["gpu"], change["finished"] is not None) == ("derate", 2, True)
    finally:
        guard.kill()
        host.close()


def test_models_that_start_anew_are_away_until_they_answer(board: Board, tmp_path: Path) -> None:
    host, guard = Engines(tmp_path), Guard(tmp_path)
    try:
        host.place(guard.placements)
        guard.start()
        host.healthy.clear()
        guard.ask("derate 2 drill")
        assert guard.get("/placement")["away"] == ["llama"]
        guard.kill()
        guard.start()
        assert guard.get("/placement")["away"] == ["llama"]
        host.healthy.set()
        until(lambda: guard.get("/placement")["away"] == [])
    finally:
        guard.kill()
        host.close()


def test_engines_start_anew_on_a_board_that_was_accepted_elsewhere(board: Board, tmp_path: Path) -> None:
    host, guard = Engines(tmp_path), Guard(tmp_path)
    try:
        host.place(guard.placements)
        guard.start()
        reboot(board, guard, 1, 0, 2, 3)
        before = {path.name: path.read_text() for path in (host.folder / "units").iterdir()}
        until(lambda: "boards moved" in guard.get("/health")["pages"])
        assert guard.ask("accept")["ok"]
        until(lambda: not guard.ask("status")["changing"])
        after = {path.name: path.read_text() for path in (host.folder / "units").iterdir()}
        assert {unit for unit, pid in after.items() if before[unit] != pid} == {
            "triton@bge.service",
            "vllm@llava.service",
        }
    finally:
        guard.kill()
        host.close()


def test_a_clock_that_is_set_changes_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 101.0, 102.0])
    monkeypatch.setattr(store, "clock", lambda: 5000.0)
    now = store.steady(9000.0, lambda: next(ticks))
    assert [now(), now()] == [9001.0, 9002.0]


def test_a_guard_without_its_memory_does_not_bring_a_hot_gpu_back(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{torn")
    memory = store.load(tmp_path / "state.json", 4, "without-gpu2", 5.0)
    assert (memory.state.derated, memory.placement) == (2, "without-gpu2")
    assert list(tmp_path.glob("state.json.damaged-*"))


def test_the_socket_belongs_to_root_alone(tmp_path: Path) -> None:
    server = control.server(tmp_path / "control", lambda words: {"ok": True, "words": words})
    assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600
    server.server_close()
