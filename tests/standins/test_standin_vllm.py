"""The engine's stand-in over HTTP: endpoints, streams, metrics, and when it refuses to start."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin_lab import CHECKOUT, Driver, answers_at, free_port, wait_for

from gpu_cutover.twin.parts import model_files, vllm_files

QUESTION = [{"role": "user", "content": "SOAP please. Patient reports a cough. Takes metformin 500 mg. 140/90"}]


class Engine:
    """One running stand-in."""

    def __init__(self, driver: Driver, model: str, *flags: str, gpus: str = "2,3") -> None:
        self.port = free_port()
        packages, self.model_dir = driver.directory / "packages", driver.directory / "models" / model
        for directory, files in ((packages, vllm_files(CHECKOUT)), (self.model_dir, model_files(model, "0" * 40))):
            for name, content in files.items():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (directory / name).write_bytes(content)
        self.url = f"http://127.0.0.1:{self.port}"
        self._argv = [sys.executable, "-m", "vllm.cli", "serve", str(self.model_dir), "--host", "127.0.0.1"]
        self._argv += ["--port", str(self.port), "--served-model-name", model, *flags]
        speed = driver.directory / "engine-speed.json"
        speed.write_text(json.dumps({model: {"ttft_s": 0.1, "itl_s": 0.002, "batch_slope": 0.0, "rtf": 0.001}}))
        self._environment = {
            **driver.environment,
            "PYTHONPATH": str(packages),
            "CUDA_VISIBLE_DEVICES": gpus,
            "ENGINE_SPEED": str(speed),
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._argv, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def refusal(self) -> tuple[int, str]:
        """Exit status and output of an engine that does not start."""
        process = self.start()
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    def ask(self, path: str, data: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        request = urllib.request.Request(self.url + path, body, {**kind, **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.fixture
def running(driver: Driver, request: pytest.FixtureRequest) -> Iterator[Engine]:
    model, *flags = request.param
    engine = Engine(driver, model, *flags)
    process = engine.start()
    try:
        wait_for(lambda: answers_at(f"{engine.url}/health"))
        yield engine
    finally:
        process.terminate()
        process.wait(10)


decoder = pytest.mark.parametrize("running", [("llama-3.1-70b-instruct", "-tp", "2")], indirect=True)
speech = pytest.mark.parametrize("running", [("whisper-large-v3",)], indirect=True)
encoder = pytest.mark.parametrize("running", [("colbertv2", "--runner", "pooling")], indirect=True)


@decoder
def test_a_whole_answer_a_stream_and_the_metrics_of_both(running: Engine, driver: Driver) -> None:
    status, body = running.ask("/v1/chat/completions", {"model": "llama-3.1-70b-instruct", "messages": QUESTION})
    whole = json.loads(body)
    assert status == 200
    assert "metformin 500 mg" in whole["choices"][0]["message"]["content"]
    asked = {"messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    _, body = running.ask("/v1/chat/completions", asked)
    events = [line.removeprefix("data: ") for line in body.decode().splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    page = running.ask("/metrics")[1].decode()
    labels = '{engine="0",model_name="llama-3.1-70b-instruct"}'
    for line in (
        f"vllm:num_requests_running{labels} 0",
        f"vllm:num_requests_waiting{labels} 0",
        f"vllm:num_preemptions_total{labels} 0",
        f"vllm:time_to_first_token_seconds_count{labels} 2",
        f"vllm:e2e_request_latency_seconds_count{labels} 2",
        f"vllm:generation_tokens_total{labels} {2 * whole['usage']['completion_tokens']}",
    ):
        assert line in page.splitlines()
    used = "print([n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(i)).used >> 30 for i in range(4)])"
    wait_for(lambda: driver.python(used) == "[0, 0, 41, 41]")


@decoder
def test_it_says_who_it_is_and_refuses_what_it_does_not_serve(running: Engine) -> None:
    assert json.loads(running.ask("/v1/models")[1])["data"][0]["id"] == "llama-3.1-70b-instruct"
    assert json.loads(running.ask("/version")[1])["version"].endswith("+standin")
    assert running.ask("/v1/chat/completions", {"model": "gpt-4o", "messages": QUESTION})[0] == 404
    assert running.ask("/v1/chat/completions", b"{no json")[0] == 400
    assert running.ask("/v1/embeddings", {"input": "x"})[0] == 400
    assert running.ask("/v1/audio/transcriptions", {"x": 1})[0] == 400


@decoder
def test_an_answer_that_is_cut_says_so_and_min_tokens_are_written(running: Engine) -> None:
    cut = json.loads(running.ask("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 3})[1])
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 3)
    asked = {"messages": QUESTION, "max_tokens": 90, "ignore_eos": True}
    long = json.loads(running.ask("/v1/chat/completions", asked)[1])
    assert long["usage"]["completion_tokens"] == 90


@decoder
def test_a_lost_gpu_ends_the_engine(running: Engine, driver: Driver) -> None:
    driver.break_it(lost=[3])
    wait_for(lambda: not answers_at(f"{running.url}/health"), 5)


@speech
def test_a_recording_is_transcribed(running: Engine) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + bytes(64_000)
        + b"\r\n--b--\r\n"
    )
    status, answer = running.ask("/v1/audio/transcriptions", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert status == 200
    assert len(json.loads(answer)["text"].split()) > 5
    assert running.ask("/v1/chat/completions", {"messages": QUESTION})[0] == 400


@encoder
def test_rank_and_embed(running: Engine) -> None:
    documents = ["wound dressing", "cough and lisinopril", "vaccination"]
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        ranked = json.loads(running.ask(path, {"query": "lisinopril cough", "documents": documents, "top_n": 2})[1])
        assert ranked["results"][0]["index"] == 1
        assert len(ranked["results"]) == 2
    vector = json.loads(running.ask("/v1/embeddings", {"input": ["a cough"]})[1])["data"][0]["embedding"]
    assert sum(value * value for value in vector) == pytest.approx(1.0)


def test_an_unknown_flag_is_refused(driver: Driver) -> None:
    status, output = Engine(driver, "colbertv2", "--no-such-flag").refusal()
    assert status == 2
    assert "--no-such-flag" in output


def test_it_does_not_start_without_its_gpu(driver: Driver) -> None:
    driver.break_it(lost=[2])
    assert Engine(driver, "colbertv2", gpus="2").refusal() == (1, "ERROR: CUDA error: device 2 is lost\n")
    assert "World size (2)" in Engine(driver, "colbertv2", "-tp", "2", gpus="1").refusal()[1]
    assert "No CUDA GPUs" in Engine(driver, "colbertv2", gpus="9").refusal()[1]


def test_it_does_not_start_without_its_weights(driver: Driver) -> None:
    engine = Engine(driver, "colbertv2")
    shard = next(engine.model_dir.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "incomplete" in engine.refusal()[1]
    shard.unlink()
    assert engine.refusal()[0] == 1


def test_two_engines_need_room_for_both(driver: Driver) -> None:
    first = Engine(driver, "colbertv2", "--gpu-memory-utilization", "0.6", gpus="0")
    process = first.start()
    try:
        wait_for(lambda: answers_at(f"{first.url}/health"))
        wait_for(lambda: "gpu0.processes=\n" not in Path(driver.state).read_text())
        assert "Free memory on device" in Engine(driver, "colbertv2", gpus="0").refusal()[1]
    finally:
        process.terminate()
        process.wait(10)
    wait_for(lambda: "gpu0.processes=\n" in Path(driver.state).read_text())
