"""The guard's unix socket: one command line in, one JSON answer out. Used by the command line, modules and tests."""

from __future__ import annotations

import json
import socket
import socketserver
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import SOCKET

ANSWER_LIMIT = 4_000_000


def ask(command: str, path: Path = SOCKET, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send a command to the running guard. Raises OSError when it is not there or does not answer in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout_s)
        channel.connect(str(path))
        channel.sendall(command.encode() + b"\n")
        chunks: list[bytes] = []
        while chunk := channel.recv(65536):
            chunks.append(chunk)
            if sum(map(len, chunks)) > ANSWER_LIMIT:
                raise OSError("the guard's answer is too long")
    try:
        answer: dict[str, Any] = json.loads(b"".join(chunks))
    except ValueError as error:
        raise OSError("the guard closed the connection without an answer") from error
    return answer


def server(path: Path, handle: Callable[[list[str]], dict[str, Any]]) -> socketserver.ThreadingUnixStreamServer:
    """A server (not yet serving) that gives each command's words to `handle`. The socket is root's alone."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            words = self.rfile.readline(4096).decode(errors="replace").split()
            self.wfile.write(json.dumps(handle(words)).encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    made.daemon_threads = True
    path.chmod(0o600)
    return made
