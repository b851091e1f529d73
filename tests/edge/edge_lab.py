"""Parts of the edge's tests: a small certificate authority, recording routers, the role's template rendered."""

from __future__ import annotations

import datetime
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROLE = Path(__file__).parents[2] / "roles" / "edge"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Authority:
    """A small certificate authority for tests."""

    name: str
    directory: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.path = self.directory / f"{self.name}.pem"
        self.path.write_bytes(self._sign(self.subject, self.key.public_key(), ca=True))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("edge.test")]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def list_revoked(self, certificates: Iterable[Path] = ()) -> Path:
        """The list of revoked certificates (PEM files of `issue`), written whole."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.subject)
            .last_update(now)
            .next_update(now + datetime.timedelta(days=1))
        )
        for path in certificates:
            serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(one.build())
        path = self.directory / f"{self.name}-revoked.pem"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, name: str) -> Path:
        """One PEM with certificate and key for the common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        path = self.directory / f"{self.name}-{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(self._sign(subject, key.public_key(), ca=False) + private)
        return path


class Recorder(http.server.BaseHTTPRequestHandler):
    """A router that answers 200 and tells what it was sent."""

    protocol_version = "HTTP/1.1"
    pool = ""

    def do_POST(self) -> None:
        """Tell what came."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if b'"pieces"' in body:
            self._stream(**json.loads(body))
            return
        told = {"pool": self.pool, "headers": {k.lower(): v for k, v in self.headers.items()}, "bytes": len(body)}
        answer = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-litellm-model-api-base", "http://10.0.0.1")
        self.send_header("llm_provider-x", "y")
        self.send_header("x-served-by", "onprem")
        for name in (
            "via",
            "x-powered-by",
            "set-cookie",
            "alt-svc",
            "x-ratelimit-limit-requests",
            "openai-organization",
        ):
            self.send_header(name, "inner")
        self.end_headers()
        self.wfile.write(answer)

    def _stream(self, pieces: int, pause_ms: int) -> None:
        """A long answer in chunks."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(pieces):
            self.wfile.write(b"8\r\npiece%03d\r\n" % number)
            time.sleep(pause_ms / 1000)
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self) -> None:
        """Health."""
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@dataclass
class Edge:
    """Where the running edge is and how to reach it."""

    port: int
    metrics_port: int
    ca: Authority
    foreign: Authority
    config: Path


class Server(http.server.ThreadingHTTPServer):
    """Quiet about health checks, which hang up without a word."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing to tell."""


def render(variables: dict[str, Any]) -> str:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    text = (ROLE / "templates" / "haproxy.cfg.j2").read_text()
    return environment.from_string(text).render({**defaults, **variables})


def serve(pool: str, port: int = 0) -> http.server.ThreadingHTTPServer:
    handler = type(f"Recorder_{pool}", (Recorder,), {"pool": pool})
    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def wait_for(port: int, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
