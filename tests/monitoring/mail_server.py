"""A mail server of a few lines: EHLO, STARTTLS, one mail."""

from __future__ import annotations

import datetime
import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANSWERS = {"MAIL": "250 ok", "RCPT": "250 ok", "RSET": "250 ok", "QUIT": "221 bye"}


@dataclass
class MailServer:
    """Where it listens, whom to believe, and what it got."""

    port: int
    certificate: Path
    mails: list[str] = field(default_factory=list)


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem, private = directory / "mail.pem", directory / "mail.key"
    pem.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private


@contextmanager
def mail_server(directory: Path) -> Iterator[MailServer]:
    """Serve until the end of the block. Mail that comes before STARTTLS is refused."""
    pem, private = _certificate(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, private)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection, encrypted = self.request, False
            stream = connection.makefile("rb")
            connection.sendall(b"220 localhost\r\n")
            while line := stream.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "STARTTLS":
                    connection.sendall(b"220 go\r\n")
                    try:
                        connection = tls.wrap_socket(connection, server_side=True)
                    except ssl.SSLError:
                        return
                    stream, encrypted = connection.makefile("rb"), True
                elif word in ("EHLO", "HELO"):
                    connection.sendall(b"250-localhost\r\n250 STARTTLS\r\n")
                elif word == "DATA" and encrypted:
                    connection.sendall(b"354 go\r\n")
                    lines = []
                    while (text := stream.readline().decode()) not in (".\r\n", ""):
                        lines.append(text)
                    made.mails.append("".join(lines))
                    connection.sendall(b"250 ok\r\n")
                else:
                    connection.sendall(
                        (ANSWERS.get(word, "500 no") if encrypted else "530 STARTTLS first").encode() + b"\r\n"
                    )

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = MailServer(server.server_address[1], pem)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
