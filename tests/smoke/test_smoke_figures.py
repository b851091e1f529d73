"""The benchmark's arithmetic, and its client against a small server that streams, stalls and breaks off."""

from __future__ import annotations

import http.server
import json
import struct
import threading
import time
import wave
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

from gpu_cutover.smoke import figures, questions
from gpu_cutover.smoke.client import Door, ask
from gpu_cutover.smoke.figures import Sample
from gpu_cutover.smoke.run import Scope, benchmark


def sample(first: float = 1.0, total: float = 3.0, tokens: int = 21, error: str = "", started: float = 0.0) -> Sample:
    return Sample("chat", "soap", first, total, tokens, error, started)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 21)]
    assert figures.percentile(values, 0.95) == 19.0
    assert figures.percentile(values, 0.5) == 10.0
    assert figures.percentile([7.0], 0.95) == 7.0
    assert figures.percentile([], 0.95) is None


def test_a_note_is_first_token_and_399_steps() -> None:
    assert figures.note_seconds(sample()) == pytest.approx(1.0 + 399 * 0.1)
    assert figures.note_seconds(sample(tokens=1)) is None


def test_one_failed_note_leaves_no_figure() -> None:
    assert figures.note_p95([sample(), sample()]) == pytest.approx(40.9)
    assert figures.note_p95([sample(), sample(error="broke off")]) is None
    assert figures.note_p95([sample(), sample(tokens=1)]) is None


def test_one_busy_round_does_not_decide() -> None:
    quiet, busy = [0.1] * 20, [0.1] * 10 + [0.9] * 10
    assert figures.p95_of_rounds([quiet, busy, quiet]) == 0.1
    assert figures.p95_of_rounds([busy, busy, quiet]) == 0.9
    assert figures.p95_of_rounds([]) is None
    assert figures.p95_of_rounds([quiet, []]) is None


def test_at_once_counts_answered_requests_that_overlap() -> None:
    overlapping = [sample(total=2.0, started=0.0), sample(total=2.0, started=1.0), sample(total=2.0, started=1.5)]
    assert figures.at_once(overlapping) == 3
    assert figures.at_once([*overlapping, sample(started=1.0, error="x")]) == 3
    assert figures.at_once([sample(total=1.0, started=0.0), sample(total=1.0, started=1.0)]) == 1


def test_the_recording_has_the_declared_length() -> None:
    with wave.open(BytesIO(questions.wav(600))) as recording:
        assert recording.getnframes() / recording.getframerate() == 600
        assert (recording.getnchannels(), recording.getsampwidth()) == (1, 1)


def test_the_picture_is_a_png_of_its_size() -> None:
    picture = questions.png(64, 48)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (64, 48)


class Server(http.server.BaseHTTPRequestHandler):
    """Streams four tokens 20 ms apart after 50 ms; `/broken` paths end without their mark, `/none` has no token."""

    protocol_version = "HTTP/1.0"
    mood = "good"

    def do_POST(self) -> None:
        """Answer by mood."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.mood == "error":
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b'{"error": "off"}')
            return
        self.send_response(200)
        self.end_headers()
        if b'"stream": true' not in body:
            self.wfile.write(b"{}")
            return
        time.sleep(0.05)
        self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number in range(0 if self.mood == "none" else 4):
            time.sleep(0.02 if number else 0)
            self.event({"choices": [{"delta": {"content": "word "}}]})
        if self.mood == "refusal":
            self.event({"error": {"message": "out of memory"}})
        self.event({"choices": [], "usage": {"completion_tokens": 4}})
        if self.mood != "broken":
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, data: dict[str, Any]) -> None:
        """One server-sent event."""
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def door() -> Iterator[Door]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Door(f"http://127.0.0.1:{server.server_port}", timeout_s=5)
    server.shutdown()


def test_times_are_taken_to_the_first_word_not_to_the_empty_role(door: Door) -> None:
    got = ask(door, questions.chat(4))
    assert (got.error, got.tokens) == ("", 4)
    assert 0.05 <= got.first_s < got.total_s
    assert got.inter_token_s == pytest.approx(0.02, rel=0.8)


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        ("broken", "the stream ended without its end mark"),
        ("none", "no token came"),
        ("refusal", "broke off: {'message': 'out of memory'}"),
        ("error", 'answered 503: {"error": "off"}'),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(
    door: Door, monkeypatch: pytest.MonkeyPatch, mood: str, error: str
) -> None:
    monkeypatch.setattr(Server, "mood", mood)
    assert ask(door, questions.chat(4)).error == error


def test_nobody_there_is_an_error_and_no_exception() -> None:
    assert "ConnectionRefusedError" in ask(Door("http://127.0.0.1:1", timeout_s=1), questions.chat(1)).error


def test_the_whole_benchmark_yields_every_figure(door: Door) -> None:
    reading = benchmark(door, Scope(requests=3, soap_sessions=4, chat_sessions=6, audio_s=1))
    assert [name for name, value in reading["figures"].items() if value is None] == []
    assert reading["figures"]["concurrent_soap"] == 4
    assert reading["figures"]["concurrent_chat"] == 6
    assert set(reading["workloads"]) == {"audio", "chat", "embed", "reason", "rerank", "soap", "vision"}
    assert reading["workloads"]["embed"]["requests"] == 60
    assert reading["warm_up_errors"] == []
    assert len(reading["attachment"]["content"]["burst"]) == 10


def test_a_route_that_fails_leaves_its_figures_empty(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "mood", "error")
    told = benchmark(door, Scope(requests=1, soap_sessions=1, chat_sessions=1, audio_s=1))
    measured = {name: value for name, value in told["figures"].items() if value is not None}
    assert measured == {"concurrent_soap": 0, "concurrent_chat": 0}
    assert told["workloads"]["chat"]["failed"] == 1
