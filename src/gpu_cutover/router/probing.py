"""Asking legs and edges a small question, from the gateway, to know whether they answer. Standard library only."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import ssl
import struct
import time
import wave
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "gpu-cutover-probe"
SAY = "Readiness check. Answer with the one word: ready."


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to put: where, with which body, how long to wait (seconds).

    `server_name` is the name that an https server's certificate must carry, where it is asked by address.
    """

    url: str
    path: str
    route: str
    model: str
    headers: Mapping[str, str]
    timeout_s: float = 15.0
    server_name: str = ""


def question(route: str, model: str) -> tuple[bytes, str]:
    """A small request of this route and its content type. It holds nothing of any patient."""
    if route == "audio":
        return _multipart(model), f"multipart/form-data; boundary={BOUNDARY}"
    bodies: dict[str, dict[str, Any]] = {
        "embed": {"input": ["ready"]},
        "rerank": {"query": "ready", "documents": ["ready", "not yet"]},
        "vision": {"messages": [{"role": "user", "content": _picture_and_words()}], "max_tokens": 8},
    }
    chat = {"messages": [{"role": "user", "content": SAY}], "max_tokens": 8, "temperature": 0}
    return json.dumps({"model": model, **bodies.get(route, chat)}).encode(), "application/json"


def _picture_and_words() -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": SAY},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(picture()).decode()}},
    ]


def _multipart(model: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
    file = 'Content-Disposition: form-data; name="file"; filename="ready.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    return f"{head}--{BOUNDARY}\r\n{file}".encode() + silence(0.5) + f"\r\n--{BOUNDARY}--\r\n".encode()


def silence(seconds: float) -> bytes:
    """A WAV file of silence, 16 kHz mono 16 bit, as speech models take it."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16000)
        audio.writeframes(bytes(2 * int(16000 * seconds)))
    return buffer.getvalue()


def ask(probe: Probe, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    """Put one question. Returns `{ok, status, ms, served_by, model, error}`; never raises."""
    started = time.monotonic()
    body, content_type = question(probe.route, probe.model)
    try:
        status, headers, answer = _post(probe, body, content_type, context)
    except (OSError, http.client.HTTPException) as error:
        return _result(False, None, started, error=f"{type(error).__name__}: {error}")
    sound = 200 <= status < 300 and _is_answer(probe.route, answer)
    return _result(
        sound,
        status,
        started,
        served_by=headers.get("x-served-by"),
        model=headers.get("x-model"),
        error=None if sound else f"answered {status} without a usable answer",
    )


def ask_all(probes: Sequence[Probe], context: ssl.SSLContext | None = None, at_once: int = 8) -> list[dict[str, Any]]:
    """Put several questions at once; results in the same order."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        return list(pool.map(lambda probe: ask(probe, context), probes))


def get_json(url: str, timeout_s: float = 3.0) -> dict[str, Any]:
    """Fetch a JSON object. Raises OSError or ValueError."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        data = json.loads(connection.getresponse().read())
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


def _post(
    probe: Probe, body: bytes, content_type: str, context: ssl.SSLContext | None
) -> tuple[int, Mapping[str, str], bytes]:
    parts = urlsplit(probe.url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = _NamedConnection(parts.netloc, probe, context or ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=probe.timeout_s)
    try:
        connection.request("POST", probe.path, body, {"content-type": content_type, **probe.headers})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()
    finally:
        connection.close()


class _NamedConnection(http.client.HTTPSConnection):
    """Connects to an address and checks the certificate against a name."""

    def __init__(self, netloc: str, probe: Probe, context: ssl.SSLContext) -> None:
        super().__init__(netloc, timeout=probe.timeout_s, context=context)
        self._tls, self._name = context, probe.server_name

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._name or self.host)


def _is_answer(route: str, answer: bytes) -> bool:
    wanted = {"audio": "text", "embed": "data", "rerank": "results"}.get(route, "choices")
    try:
        data = json.loads(answer)
    except ValueError:
        return False
    return isinstance(data, dict) and wanted in data


def _result(ok: bool, status: int | None, started: float, **more: Any) -> dict[str, Any]:
    base = {"ok": ok, "status": status, "ms": round((time.monotonic() - started) * 1000, 1)}
    return base | {"served_by": None, "model": None, "error": None} | more


def picture(side: int = 16) -> bytes:
    """A grey PNG of `side` by `side` pixels."""
    rows = (b"\0" + b"\x80" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
