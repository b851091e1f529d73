#!/usr/bin/python3
"""The cloud, as far as a rehearsal can see it: OpenAI's and Cohere's endpoints over TLS, and a count of who came.

Imitates: chat (whole and as server-sent events with usage), transcription, embeddings of 1536 dimensions, Cohere's
rerank (v1, v2),
the model list, 401 without a key, rate of speech of a hosted model. Every TCP connection and every request becomes
a line of
`/var/lib/twin/cloud.jsonl`; a request that names its tenant (`tenant=NAME` in any text, or `user`) has it in the
line, so that leaks
can be counted by tenant. Faults: `/var/lib/twin/cloud-fault.json` {"kind": delay|error|refuse|silent, "seconds": n}.
Does NOT imitate: models (see answers.py), billing, rate limits, HTTP/2, other endpoints (404), checking which key
it is.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import ssl
import sys
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path[:0] = ["/usr/local/lib/twin", str(Path(__file__).resolve().parent.parent / "shared")]
import answers  # noqa: E402

VOICE = "cloud"
DIMENSIONS = 1536
FIRST_TOKEN_S, BETWEEN_TOKENS_S = 0.15, 0.004
SILENCE_S = 120.0
LARGEST_LOG = 64 * 2**20
TENANT_MARKER = re.compile(rb'tenant=([a-z0-9-]{1,40})|"user"\s*:\s*"([a-z0-9-]{1,40})"')


class Book:
    """The record of connections and requests, one JSON line each; started anew when it grows too large."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._file = path.open("a", buffering=1)

    def write(self, **entry: Any) -> None:
        """Append one line."""
        with self._lock:
            if self._file.tell() > LARGEST_LOG:
                self._file.close()
                self._path.replace(self._path.with_suffix(".jsonl.1"))
                self._file = self._path.open("a", buffering=1)
            self._file.write(json.dumps({"t": round(time.time(), 3), **entry}) + "\n")


class Faults:
    """The fault in force, read at every connection and request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> tuple[str, float]:
        """Kind ("" for none) and seconds."""
        try:
            data = json.loads(self._path.read_text())
            return str(data.get("kind", "")), float(data.get("seconds", 5.0))
        except (OSError, ValueError, AttributeError):
            return "", 0.0


class Server(ThreadingHTTPServer):
    """Counts connections before anything else, then speaks TLS in the connection's own thread."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, book: Book, faults: Faults) -> None:
        super().__init__(address, Handler)
        self.tls, self.book, self.faults = tls, book, faults

    def verify_request(self, request: socket.socket, client_address: tuple[str, int]) -> bool:  # type: ignore[override]
        """Note the connection; a refusing cloud closes it."""
        kind, _ = self.faults.now()
        self.book.write(event="connection", client=client_address[0], fault=kind or None)
        return kind != "refuse"

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """TLS handshake with a time limit, then HTTP."""
        request.settimeout(60)
        if self.tls:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError):
                return
        Handler(request, client_address, self)
        if self.tls:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report."""


class Handler(BaseHTTPRequestHandler):
    """One connection's requests."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """The book is the log."""

    def do_GET(self) -> None:
        """The model list, and whether it lives."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Everything else."""
        self._answer(self._post)

    def _answer(self, how: Any) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 64 * 2**20))
        marker = TENANT_MARKER.search(body)
        tenant = (marker.group(1) or marker.group(2)).decode() if marker else None
        kind, seconds = self.server.faults.now()
        started, status = time.monotonic(), 0
        if kind == "delay":
            time.sleep(seconds)
        try:
            if kind == "silent":
                time.sleep(SILENCE_S)
                self.close_connection = True
            elif kind == "error":
                status = self._json(500, {"error": {"message": "The server had an error", "type": "server_error"}})
            elif not (self.headers.get("Authorization") or "").startswith("Bearer "):
                status = self._json(
                    401, {"error": {"message": "You didn't provide an API key.", "type": "invalid_request_error"}}
                )
            else:
                status = how(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            status = self._json(
                400, {"error": {"message": f"Invalid request: {error}", "type": "invalid_request_error"}}
            )
        finally:
            milliseconds = round((time.monotonic() - started) * 1000, 1)
            self.server.book.write(
                event="request",
                client=self.client_address[0],
                path=self.path,
                tenant=tenant,
                status=status,
                ms=milliseconds,
            )

    def _json(self, status: int, data: dict[str, Any]) -> int:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return status

    def _get(self, body: bytes) -> int:
        if self.path.split("?")[0] == "/v1/models":
            names = ("gpt-4o", "gpt-4.1", "whisper-1", "text-embedding-3-large")
            return self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
        return self._json(404, {"error": {"message": f"Unknown path {self.path}"}})

    def _post(self, body: bytes) -> int:
        path = self.path.split("?")[0]
        if path == "/v1/audio/transcriptions":
            return self._transcription(body)
        data = json.loads(body)
        if path == "/v1/chat/completions":
            return self._chat(data)
        if path == "/v1/embeddings":
            return self._embeddings(data)
        if path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            return self._rerank(data)
        return self._json(404, {"error": {"message": f"Unknown path {path}"}})

    def _chat(self, data: dict[str, Any]) -> int:
        pieces = answers.pieces(answers.chat(data["messages"], VOICE))
        limit = data.get("max_completion_tokens") or data.get("max_tokens") or len(pieces)
        reason, pieces = "length" if limit < len(pieces) else "stop", pieces[:limit]
        head = {"id": f"chatcmpl-{time.time_ns()}", "created": int(time.time()), "model": data.get("model", "gpt-4o")}
        prompt = len(json.dumps(data["messages"])) // 6
        usage = {"prompt_tokens": prompt, "completion_tokens": len(pieces), "total_tokens": prompt + len(pieces)}
        time.sleep(FIRST_TOKEN_S)
        if data.get("stream"):
            return self._stream(
                head, pieces, reason, usage, bool((data.get("stream_options") or {}).get("include_usage"))
            )
        time.sleep(BETWEEN_TOKENS_S * len(pieces))
        message = {"role": "assistant", "content": "".join(pieces)}
        choices = [{"index": 0, "message": message, "finish_reason": reason}]
        return self._json(200, {**head, "object": "chat.completion", "choices": choices, "usage": usage})

    def _stream(
        self, head: dict[str, Any], pieces: list[str], reason: str, usage: dict[str, int], with_usage: bool
    ) -> int:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunk = {**head, "object": "chat.completion.chunk"}
        self._event(
            {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        )
        for piece in pieces:
            time.sleep(BETWEEN_TOKENS_S)
            self._event({**chunk, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        self._event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if with_usage:
            self._event({**chunk, "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")
        return 200

    def _event(self, data: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def _transcription(self, body: bytes) -> int:
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(header + body).iter_parts()
        files = [
            part.get_payload(decode=True)
            for part in parts
            if part.get_param("name", header="content-disposition") == "file"
        ]
        if not files:
            raise ValueError("file is required")
        time.sleep(FIRST_TOKEN_S + 0.01 * answers.clip_seconds(files[0]))
        return self._json(200, {"text": answers.transcript(files[0], VOICE)})

    def _embeddings(self, data: dict[str, Any]) -> int:
        texts = [data["input"]] if isinstance(data["input"], str) else list(data["input"])
        size = int(data.get("dimensions") or DIMENSIONS)
        time.sleep(0.03)
        rows = [
            {"object": "embedding", "index": n, "embedding": answers.embedding(str(text), size)}
            for n, text in enumerate(texts)
        ]
        tokens = sum(len(str(text)) // 6 + 1 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return self._json(200, {"object": "list", "model": data.get("model"), "data": rows, "usage": usage})

    def _rerank(self, data: dict[str, Any]) -> int:
        texts = [one if isinstance(one, str) else str(one.get("text", "")) for one in data["documents"]]
        time.sleep(0.03)
        ranked = answers.ranking(str(data["query"]), texts, VOICE)[: data.get("top_n") or len(texts)]
        results: list[dict[str, Any]] = [{"index": index, "relevance_score": score} for index, score in ranked]
        if data.get("return_documents"):
            results = [{**result, "document": {"text": texts[result["index"]]}} for result in results]
        units = {"billed_units": {"search_units": 1}}
        return self._json(200, {"id": f"rerank-{time.time_ns()}", "results": results, "meta": units})


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="cloud")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--book", type=Path, default=Path("/var/lib/twin/cloud.jsonl"))
    parser.add_argument("--faults", type=Path, default=Path("/var/lib/twin/cloud-fault.json"))
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    options.book.parent.mkdir(parents=True, exist_ok=True)
    Server((options.host, options.port), tls, Book(options.book), Faults(options.faults)).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
