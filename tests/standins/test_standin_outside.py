"""The cloud counts who came; BMC, DMI and tools show the purchased machine; the clinic's requests are answerable."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import answers  # type: ignore[import-not-found]
import bmc  # type: ignore[import-not-found]
import clinic  # type: ignore[import-not-found]
import machine_tool  # type: ignore[import-not-found]
import pytest
from standin_lab import CHECKOUT, SITE_DIR, TWIN, Driver, answers_at, free_port, site, wait_for

from gpu_cutover.compare import ranking, soap, text, vectors, vision
from gpu_cutover.compare.kinds import primary
from gpu_cutover.probes.dmi import parse_dmi
from gpu_cutover.probes.driver import parse_dcgm
from gpu_cutover.probes.gpus import FIELDS, parse_gpus
from gpu_cutover.probes.machine import parse_nvme
from gpu_cutover.probes.nccl import parse_all_reduce
from gpu_cutover.probes.redfish import parts_of
from gpu_cutover.twin import standins

PURCHASE = standins._records(SITE_DIR, "purchase.yml")["hosts"]["gpu1"]
MACHINE = standins._machine("gpu1", site(), SITE_DIR, PURCHASE)


LEVEL_2 = ("software", "memory", "pcie")


class Cloud:
    """A running cloud stand-in without TLS."""

    def __init__(self, directory: Path) -> None:
        self.port, self.book, self.faults = free_port(), directory / "cloud.jsonl", directory / "fault.json"
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, str(TWIN / "outside/cloud.py"), "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen([*argv, "--book", str(self.book), "--faults", str(self.faults)])

    def ask(self, path: str, data: Any, key: str | None = "sk-x") -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        request = urllib.request.Request(self.url + path, json.dumps(data).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.book.read_text().splitlines()) if line["event"] == event]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    found = Cloud(tmp_path)
    try:
        wait_for(lambda: answers_at(found.url))
        yield found
    finally:
        found.process.terminate()
        found.process.wait(10)


def test_every_connection_and_every_tenant_is_counted(cloud: Cloud) -> None:
    before = len(cloud.lines("connection"))
    hello = [{"role": "user", "content": "tenant=klinik-amanah hello"}]
    assert cloud.ask("/v1/chat/completions", {"messages": hello})[0] == 200
    assert cloud.ask("/v1/embeddings", {"input": "a", "user": "doc-zam"})[0] == 200
    assert cloud.ask("/v1/embeddings", {"input": "a"}, key=None)[0] == 401
    assert len(cloud.lines("connection")) == before + 3
    wait_for(lambda: len(cloud.lines("request")) >= 4)
    told = [(line["tenant"], line["status"]) for line in cloud.lines("request")[-3:]]
    assert told == [("klinik-amanah", 200), ("doc-zam", 200), (None, 401)]


def test_a_cloud_stream_is_whole_and_has_usage(cloud: Cloud) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True}}
    events = [line for line in cloud.ask("/v1/chat/completions", asked)[1].decode().splitlines() if line]
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["usage"]["completion_tokens"] > 3


def test_cloud_faults(cloud: Cloud) -> None:
    cloud.faults.write_text('{"kind": "error"}')
    assert cloud.ask("/v1/embeddings", {"input": "a"})[0] == 500
    cloud.faults.write_text('{"kind": "refuse"}')
    with pytest.raises(OSError, match=r"."):
        cloud.ask("/v1/embeddings", {"input": "a"})
    cloud.faults.write_text('{"kind": ""}')
    assert cloud.ask("/v1/embeddings", {"input": "a"})[0] == 200


def chat_answer(messages: list[dict[str, Any]], voice: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": answers.chat(messages, voice)}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(("route", "compare"), [("soap", soap), ("chat", text), ("reason", text), ("vision", vision)])
def test_cloud_and_engine_say_the_same_in_other_words(route: str, compare: Any) -> None:
    for seed in range(40):
        _, _, body = clinic.request_of(route, "doc-zam", random.Random(seed))
        messages = json.loads(body)["messages"]
        base, candidate = chat_answer(messages, "cloud"), chat_answer(messages, "onprem")
        assert base != candidate
        result = compare.compare({"messages": messages}, base, candidate)
        assert result.critical == ()
        assert result.scores[primary("text" if route in ("chat", "reason") else route)] == 1.0


def test_vectors_of_both_agree_about_what_is_alike() -> None:
    scores = []
    for seed in range(10):
        inputs = json.loads(clinic.request_of("embed", "doc-zam", random.Random(seed))[2])["input"]
        rows = [
            {"data": [{"index": n, "embedding": answers.embedding(one, size)} for n, one in enumerate(inputs)]}
            for size in (1536, 1024)
        ]
        result = vectors.compare({}, rows[0], rows[1])
        assert result.critical == ()
        scores.append(result.scores[primary("vectors")])
    assert scores == [1.0] * 10


def test_both_rank_alike() -> None:
    for seed in range(20):
        asked = json.loads(clinic.request_of("rerank", "doc-zam", random.Random(seed))[2])
        both = [
            {
                "results": [
                    {"index": n, "relevance_score": s}
                    for n, s in answers.ranking(asked["query"], asked["documents"], voice)
                ]
            }
            for voice in ("cloud", "onprem")
        ]
        assert ranking.compare({}, both[0], both[1]).scores[primary("ranking")] == 1.0


def test_every_request_of_a_clinic_names_its_tenant() -> None:
    for route in standins.ROUTE_WEIGHTS:
        path, headers, body = clinic.request_of(route, "klinik-seri", random.Random(1))
        assert b"tenant=klinik-seri" in body
        assert path == ("/chat" if route == "soap" else f"/{route}")
        assert headers.get("x-workload") == ("soap" if route == "soap" else None)


def test_the_clips_are_wav_files() -> None:
    body = clinic.clip("tenant=x", random.Random(1))
    sound = body[body.index(b"RIFF") : body.rindex(b"\r\n--")]
    assert sound[8:16] == b"WAVEfmt "
    assert answers.clip_seconds(sound) == pytest.approx(1.0)


def test_the_bmc_shows_the_purchased_machine_and_its_faults() -> None:
    healthy = bmc.resources(MACHINE, {}, 120.0)
    parts = parts_of(lambda path: healthy[path])
    assert [psu["serial"] for psu in parts["psus"]] == [psu["serial"] for psu in PURCHASE["psus"]]
    assert [nic["gbit_s"] for nic in parts["nics"]] == [25, 25]
    assert [gpu["serial"] for gpu in parts["gpus"]] == [gpu["serial"] for gpu in PURCHASE["gpus"]]
    assert parts["inlet_celsius"] == {"1": 24.0}
    assert parts["power_w"] == MACHINE["idle_watts"] + 120
    broken = bmc.resources(MACHINE, {"psu_failed": [1], "inlet_celsius": 46.0}, 0.0)
    parts = parts_of(lambda path: broken[path])
    assert [psu["health"] for psu in parts["psus"]] == ["OK", "Critical", "OK", "OK"]
    assert parts["inlet_celsius"] == {"1": 46.0}


def test_the_tools_show_the_purchased_machine() -> None:
    machine = parse_dmi(machine_tool.dmidecode(MACHINE, ["-t", "0,1,4,17"]))
    assert machine["system"] == PURCHASE["system"]
    assert machine["memory_gib"] == PURCHASE["memory_gib"]
    assert [cpu["cores"] for cpu in machine["cpus"]] == [32, 32]
    drives = parse_nvme(machine_tool.nvme(MACHINE, ["list", "-o", "json"]))["nvme"]
    assert drives == PURCHASE["nvme"]


def test_nvidia_smi_dcgmi_and_nccl_tests_answer_in_the_real_formats(driver: Driver) -> None:
    tools = TWIN / "gpu_host"
    smi = [
        sys.executable,
        str(tools / "nvidia_smi.py"),
        f"--query-gpu={','.join(FIELDS)}",
        "--format=csv,noheader,nounits",
    ]
    gpus = parse_gpus(driver.run(*smi).stdout)["gpus"]
    assert [gpu["serial"] for gpu in gpus] == [f"132462300001{number}" for number in range(4)]
    assert gpus[0]["pcie_width"] == 16
    level_2 = parse_dcgm(driver.run(sys.executable, str(tools / "dcgmi.py"), "diag", "-r", "2", "-j").stdout)
    assert {name: test["results"] for name, test in level_2["tests"].items()} == {key: {"pass": 4} for key in LEVEL_2}
    report = driver.directory / "nccl.json"
    nccl = [sys.executable, str(tools / "all_reduce_perf.py"), "-b", "8", "-e", "1G", "-f", "2", "-g", "4", "-J"]
    assert driver.run(*nccl, str(report)).returncode == 0
    measured = parse_all_reduce(report.read_text(), 4)
    assert measured["busbw_gb_s"] == pytest.approx(12.6, rel=0.01)
    assert measured["wrong"] == 0
    driver.break_it(ecc={"2": 1})
    broken = driver.run(sys.executable, str(tools / "dcgmi.py"), "diag", "-r", "1", "-j")
    assert broken.returncode != 0
    assert parse_dcgm(broken.stdout)["tests"]["software"]["results"] == {"pass": 3, "fail": 1}


def test_a_tensor_load_heats_its_gpu_alone(driver: Driver) -> None:
    result = driver.run(sys.executable, str(TWIN / "gpu_host/tensor_load.py"), "--seconds", "2", "--gpu", "1")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["gpu"] for line in lines] == [1, 1]
    assert all(line["tflops"] == pytest.approx(268, rel=0.02) for line in lines)
    temperatures = "print([n.nvmlDeviceGetTemperatureV(n.nvmlDeviceGetHandleByIndex(i), 0) for i in range(4)])"
    idle, loaded = (json.loads(driver.python(temperatures))[index] for index in (0, 1))
    assert loaded >= idle + 5


def test_what_lies_on_each_host(tmp_path: Path) -> None:
    (tmp_path / "records").symlink_to(SITE_DIR / "records")
    files = {host: standins.files_for(host, site(), tmp_path) for host in ("gpu1", "gw1", "cloud", "clinic")}
    authority = (tmp_path / ".state/lab/outside/ca.pem").read_bytes()
    assert files["gw1"]["/usr/local/share/ca-certificates/twin-cloud.crt"].content == authority
    assert files["cloud"]["/etc/twin/cloud.key"].mode == 0o600
    assert "/usr/local/share/ca-certificates/twin-cloud.crt" not in files["clinic"]
    given = json.loads(files["clinic"]["/etc/twin/clinic.json"].content or b"")
    assert "drill" not in given["tenants"]
    assert files["gpu1"]["/usr/bin/nvidia-smi"].source == CHECKOUT / "twin/gpu_host/nvidia_smi.py"
    assert len(json.loads(files["gpu1"]["/etc/twin/gpus.json"].content or b"")) == 4
    assert standins.files_for("gpu1", {}) == {}


def test_certificates_are_made_once_and_for_the_cloud_s_names(tmp_path: Path) -> None:
    first = standins._certificate(tmp_path, "cloud", standins.CLOUD_NAMES)[0].read_bytes()
    assert standins._certificate(tmp_path, "cloud", standins.CLOUD_NAMES)[0].read_bytes() == first
    assert standins._certificate(tmp_path, "cloud", ("other.test",))[0].read_bytes() != first


def test_hosts_that_are_prepared_side_by_side_share_one_authority(tmp_path: Path) -> None:
    (tmp_path / "records").symlink_to(SITE_DIR / "records")
    with ThreadPoolExecutor(max_workers=5) as pool:
        laid = list(pool.map(lambda host: standins.files_for(host, site(), tmp_path), ["gw1", "mon1", "cloud"] * 3))
    trusted = {files["/usr/local/share/ca-certificates/twin-cloud.crt"].content for files in laid[::3]}
    assert trusted == {(tmp_path / ".state/lab/outside/ca.pem").read_bytes()}
