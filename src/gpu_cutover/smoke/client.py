"""Asking one request and taking the times. One connection per request, as a clinic's app tier opens them."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.parse
from dataclasses import dataclass

from .figures import Sample
from .questions import Request

DONE = b"[DONE]"


@dataclass(frozen=True)
class Door:
    """Where requests go: the edge (https, `ca` and `certificate`), or a router or engine directly (http)."""

    url: str
    server_name: str = ""
    ca: str = ""
    certificate: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 120.0

    def connection(self) -> http.client.HTTPConnection:
        """A fresh connection, not yet open."""
        parts = urllib.parse.urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.certificate:
            context.load_cert_chain(self.certificate)
        return _NamedConnection(host, port, self.server_name or host, context, self.timeout_s)


class _NamedConnection(http.client.HTTPSConnection):
    """HTTPS to an address, with the name that the certificate must carry."""

    def __init__(self, host: str, port: int | None, name: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._named, self._tls = name, context

    def connect(self) -> None:
        """TCP, then TLS for the declared name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._named)


def ask(door: Door, request: Request, started_s: float = 0.0) -> Sample:
    """Send one request and read its answer to the end. Never raises: what went wrong is the sample's `error`."""
    begin = time.monotonic()
    try:
        first, tokens, error = _exchange(door, request)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        first, tokens, error = None, 0, f"{type(problem).__name__}: {problem}"
    end = time.monotonic()
    first_s = (first or end) - begin
    return Sample(request.route, request.workload, first_s, end - begin, tokens, error, started_s)


def _exchange(door: Door, request: Request) -> tuple[float | None, int, str]:
    connection = door.connection()
    try:
        headers = {"content-type": request.content_type, "x-workload": request.workload, **dict(door.headers)}
        connection.request("POST", f"/{request.route}", body=request.body, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return None, 0, f"answered {answer.status}: {answer.read(200).decode(errors='replace')}"
        if not request.stream:
            return time.monotonic(), 0, "" if answer.read() else "answered with nothing in it"
        return _stream(answer)
    finally:
        connection.close()


def _stream(answer: http.client.HTTPResponse) -> tuple[float | None, int, str]:
    """Time of the first token, tokens, and why the stream is not whole (empty when it is)."""
    first: float | None = None
    tokens, ended = 0, False
    while line := answer.readline():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == DONE:
            ended = True
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            return first, tokens, f"broke off: {chunk['error']}"
        if any((choice.get("delta") or {}).get("content") for choice in chunk.get("choices") or []):
            tokens += 1
            first = first or time.monotonic()
    if not ended or first is None:
        return first, tokens, "the stream ended without its end mark" if first else "no token came"
    return first, tokens, ""
