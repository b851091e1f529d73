"""What the benchmark asks: made here, the same every time, of realistic size, about nobody. Pure."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import dataclass

WORDS_PER_TURN = (
    "Doctor: how have you been since the last visit?",
    "Patient reports a dry cough for five days and some tiredness, no fever, no chest pain.",
    "Doctor: blood pressure is 132/84 today, pulse 76 and regular, lungs are clear on both sides.",
    "Patient: I take lisinopril 10 mg every morning and metformin 500 mg twice a day.",
    "Doctor: we continue lisinopril 10 mg and metformin 500 mg and look again in two weeks.",
)
TRANSCRIPT_BYTES = 12_000  # about 3,000 tokens: a consultation of the plan
QUESTION = "What is the usual first step when a patient on metformin 500 mg reports mild nausea?"
PASSAGE = "Guideline {number}: adults with stable hypertension on lisinopril 10 mg are reviewed every three months. "
BOUNDARY = "gpu-cutover-smoke"
SAMPLE_RATE = 8000  # Hz; 8 bits, mono: the lightest that carries speech


@dataclass(frozen=True)
class Request:
    """One request as the edge takes it."""

    route: str
    workload: str
    body: bytes
    content_type: str
    stream: bool


def _json(route: str, workload: str, data: dict[str, object]) -> Request:
    return Request(route, workload, json.dumps(data).encode(), "application/json", data.get("stream") is True)


def transcript() -> str:
    """A consultation of TRANSCRIPT_BYTES."""
    turns = "\n".join(WORDS_PER_TURN) + "\n"
    return (turns * (TRANSCRIPT_BYTES // len(turns) + 1))[:TRANSCRIPT_BYTES]


def _chat(route: str, workload: str, content: object, tokens: int) -> Request:
    messages = [{"role": "user", "content": content}]
    options = {"include_usage": True}
    return _json(
        route, workload, {"messages": messages, "max_tokens": tokens, "stream": True, "stream_options": options}
    )


def soap(tokens: int) -> Request:
    """A note from a transcript, cut off after `tokens`."""
    return _chat("chat", "soap", f"Write a SOAP note from this consultation.\n{transcript()}", tokens)


def chat(tokens: int) -> Request:
    """A clinician's short question."""
    return _chat("chat", "chat", QUESTION, tokens)


def reason(tokens: int) -> Request:
    """The same to the reasoning model."""
    return _chat("reason", "reason", f"Weigh the alternatives step by step. {QUESTION}", tokens)


def vision(tokens: int) -> Request:
    """A form to read: a grey page as PNG."""
    url = f"data:image/png;base64,{base64.b64encode(png(640, 480)).decode()}"
    parts = [{"type": "text", "text": "Read this form."}, {"type": "image_url", "image_url": {"url": url}}]
    return _chat("vision", "vision", parts, tokens)


def embed() -> Request:
    """A question to be searched for."""
    return _json("embed", "embed", {"input": [QUESTION]})


def rerank(documents: int = 20) -> Request:
    """Passages to be put in order."""
    texts = [PASSAGE.format(number=number) * 3 for number in range(documents)]
    return _json("rerank", "rerank", {"query": QUESTION, "documents": texts, "top_n": 5})


def audio(seconds: float) -> Request:
    """A recording of that length as a form with a file."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="response_format"\r\n\r\njson\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="smoke.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    body = head.encode() + wav(seconds) + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Request("audio", "audio", body, f"multipart/form-data; boundary={BOUNDARY}", False)


def wav(seconds: float) -> bytes:
    """Unsigned 8-bit mono PCM at SAMPLE_RATE: a quiet saw tooth, so that no engine skips it as silence."""
    period = bytes(128 + (index % 32) - 16 for index in range(32))
    count = int(seconds * SAMPLE_RATE)
    data = (period * (count // len(period) + 1))[:count]
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE, 1, 8)
    return struct.pack("<4sI4s", b"RIFF", 36 + count, b"WAVE") + form + struct.pack("<4sI", b"data", count) + data


def png(width: int, height: int) -> bytes:
    """A grey picture with a darker band, as PNG."""
    rows = b"".join(b"\0" + bytes([200 if row % 40 else 60]) * width for row in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
