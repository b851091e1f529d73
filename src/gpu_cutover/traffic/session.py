"""One open conversation with `gpu-cutover-route serve` on a gateway, over paramiko. Every wait is bounded."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .reach import Way

if TYPE_CHECKING:
    import paramiko

COMMAND = "/opt/gpu-cutover/bin/gpu-cutover-route serve"
CONNECT_S = 5.0
CHUNK = 65536


class LostError(Exception):
    """The gateway cannot be reached, or stopped answering; why, for a person."""


def import_paramiko() -> ModuleType:
    """paramiko without `invoke`, which only `Match exec` in its own configuration reader uses and which costs half of
    its import time; OpenSSH reads the configuration here."""
    if "paramiko" in sys.modules:
        return sys.modules["paramiko"]
    missing = "invoke" not in sys.modules
    if missing:
        sys.modules["invoke"] = None  # type: ignore[assignment] # the documented way to make an import fail
    try:
        import logging

        import paramiko

        logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what matters is raised; nobody reads the rest
        return paramiko
    finally:
        if missing:
            del sys.modules["invoke"]


def open_socket(way: Way, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connected socket to the gateway's SSH port, with TCP_NODELAY. Raises LostError."""
    try:
        opened = _through(way, timeout_s) if way.proxy else socket.create_connection((way.address, way.port), timeout_s)
        if opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    except OSError as error:
        raise LostError(f"{way.address} port {way.port}: {error}") from error


def _through(way: Way, timeout_s: float) -> socket.socket:
    """Run the ProxyCommand; with socket passing it hands over a connection and is gone, else it carries the bytes."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {way.proxy}"],
            stdin=subprocess.DEVNULL if way.passes_socket else theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is ours to answer
        )
    if not way.passes_socket:
        return ours
    with ours:
        ours.settimeout(timeout_s)
        try:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        except TimeoutError:
            process.kill()
            descriptors = []
        _, complaint = process.communicate()
        if not descriptors:
            raise OSError(complaint.decode(errors="replace").strip() or "the ProxyCommand handed over no connection")
        return socket.socket(fileno=descriptors[0])


class Session:
    """An authenticated connection with the gateway's program running at its other end."""

    def __init__(self, way: Way, opened: socket.socket, module: ModuleType, command: str = COMMAND) -> None:
        """Check the host key, log in, start the program. Raises LostError."""
        self.host = way.host
        self._rest = b""
        self._socket = opened
        try:
            self._transport = _logged_in(way, opened, module)
            self._channel = self._transport.open_session(timeout=CONNECT_S)
            self._channel.exec_command(f"sudo -n {command}" if way.become else command)
        except LostError:
            opened.close()
            raise
        except (module.SSHException, OSError, EOFError) as error:
            opened.close()
            raise LostError(f"SSH: {error or type(error).__name__}") from error

    def ask(self, order: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one order and read its answer. Raises LostError when none came in time: nobody knows what it did."""
        deadline = time.monotonic() + timeout_s
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(json.dumps(order).encode() + b"\n")
            answer = json.loads(self._line(deadline))
        except TimeoutError as error:
            raise LostError(f"no answer within {timeout_s:g} s") from error
        except (OSError, EOFError, ValueError) as error:
            raise LostError(f"the conversation broke off: {error}") from error
        if not isinstance(answer, dict):
            raise LostError("answered something that is no object")
        return answer

    def _line(self, deadline: float) -> bytes:
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            chunk = self._channel.recv(CHUNK)
            if not chunk:
                raise EOFError(self._complaint())
            parts.append(chunk)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _complaint(self) -> str:
        """What the program at the other end said on its way out."""
        self._channel.settimeout(0.5)
        try:
            said = self._channel.recv_stderr(CHUNK).decode(errors="replace").strip()
        except OSError:
            said = ""
        return said.splitlines()[-1] if said else "gpu-cutover-route ended"

    def close(self) -> None:
        self._transport.close()

    def abandon(self) -> None:
        """Close at once and send nothing more.

        The kernel would go on sending an order to a gateway whose cable is out, and it would be carried out when the
        cable is back, minutes later and after other orders.
        """
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.close()
        self._transport.join(CONNECT_S)  # a tenth of a second: until nobody reads any more it is not closed


def _logged_in(way: Way, opened: socket.socket, module: ModuleType) -> paramiko.Transport:
    """Raises LostError with the words that `runs.outcome` knows how to explain."""
    known = _known_keys(way, module)
    if not known:
        raise LostError(f"Host key verification failed: no key of {way.name} is recorded")
    transport: paramiko.Transport = module.Transport(opened)
    transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = CONNECT_S
    options = transport.get_security_options()
    types = {key.get_name() for key in known}
    options.key_types = [kind for kind in options.key_types if _family(kind) in types]
    transport.start_client(timeout=CONNECT_S)
    key = transport.get_remote_server_key()
    if key not in known:
        transport.close()
        raise LostError("Host key verification failed: its SSH host key is not the recorded one")
    if _revoked(way, key.get_base64()):
        transport.close()
        raise LostError("Host key verification failed: its SSH host key is revoked")
    return _authenticated(way, transport, module)


def _authenticated(way: Way, transport: paramiko.Transport, module: ModuleType) -> paramiko.Transport:
    reasons: list[str] = []
    for key in _own_keys(way, module, reasons):
        try:
            transport.auth_publickey(way.user, key)
            return transport
        except module.AuthenticationException as error:
            reasons.append(str(error))
    transport.close()
    raise LostError(f"Permission denied for {way.user}: {'; '.join(dict.fromkeys(reasons)) or 'no key to log in with'}")


def _own_keys(way: Way, module: ModuleType, reasons: list[str]) -> Iterator[paramiko.PKey]:
    for path in way.keys:
        try:
            yield module.PKey.from_path(path)
        except Exception as error:  # a passphrase, a format, a mode: the next key may do
            reasons.append(f"{path}: {error}")
    if way.agent:
        yield from module.Agent().get_keys()


def _known_keys(way: Way, module: ModuleType) -> list[paramiko.PKey]:
    """The keys recorded for this name. Lines of certificate authorities are not understood and so trust nobody."""
    entries = []
    for line in _known_lines(way):
        if not line.startswith("@"):
            with suppress(Exception):  # a line that OpenSSH would pass over as well
                entries.append(module.hostkeys.HostKeyEntry.from_line(line))
    return [entry.key for entry in entries if entry and _named(way.name, entry.hostnames, module)]


def _named(name: str, patterns: Sequence[str], module: ModuleType) -> bool:
    """Does a line of known_hosts speak of this name? Hashed names, wildcards and exceptions as in OpenSSH."""
    if any(fnmatchcase(name, pattern[1:]) for pattern in patterns if pattern.startswith("!")):
        return False
    hashed = [pattern for pattern in patterns if pattern.startswith("|1|")]
    if any(module.HostKeys.hash_host(name, pattern) == pattern for pattern in hashed):
        return True
    return any(name == pattern or ("[" not in pattern and fnmatchcase(name, pattern)) for pattern in patterns)


def _known_lines(way: Way) -> list[str]:
    lines = [line for path in way.known_hosts for line in path.read_text(errors="replace").splitlines()]
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _revoked(way: Way, key: str) -> bool:
    return any(line.startswith("@revoked") and key in line.split() for line in _known_lines(way))


def _family(kind: str) -> str:
    """The name of the key behind a signature algorithm."""
    return "ssh-rsa" if kind.startswith("rsa-sha2-") else kind
