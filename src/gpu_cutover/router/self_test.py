"""Is this very process sealed? It tries what the kernel must refuse it. Standard library only.

Three findings that are not alike: something outside *answered* (a refused connection is an answer too: the question
got out), so there is no seal or it has a hole; nothing answered, and the canary says that the seal is loaded; nothing
answered, and the canary says that it is not. Only the second is a pass: out of reach by luck is not sealed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

ATTEMPT_S = 1.0
LOOK_S = 3.0  # all attempts together, names asked for included
LOOPBACK = ("127.0.0.1", "::1")

ANSWERED, REFUSED, SILENT, NO_WAY = "answered", "refused", "silent", "no way"


@dataclass(frozen=True, slots=True)
class Target:
    """An address or name and a port that must be out of reach."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What one sealed process tries. The seal drops what is sent to the UDP port `canary`, on the loopback too."""

    never: tuple[Target, ...]
    canary: int

    def look(self, thorough: bool = True) -> str:
        """Why this process is not sealed, "" when it is. At most `LOOK_S` seconds; the canary alone takes none."""
        passed = [address for address in LOOPBACK if passes(address, self.canary)]
        return judge(passed, try_all(self.never) if thorough else {})


def parse_target(text: str) -> Target:
    """`HOST:PORT` or `[IPV6]:PORT`. Raises InputError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            "command line", "--never", f"{text!r} is no HOST:PORT", "write api.example:443 or [2001:db8::1]:443"
        )
    return Target(host.strip("[]"), int(port))


def judge(passed: Sequence[str], outside: Mapping[Target, str]) -> str:
    """Why a process with these findings is not sealed, "" when it is. Pure.

    `passed`: where the canary got through. On the loopback only a connection counts: there the seal refuses as a closed
    port does.
    """
    reached = [
        target
        for target, came in outside.items()
        if came == ANSWERED or (came == REFUSED and not _on_loopback(target.host))
    ]
    if reached:
        return f"the kernel lets this process reach {', '.join(map(str, reached))}: load the seal, or close its hole"
    if passed:
        return (
            f"the seal is not in force for this process (asked on {', '.join(passed)}): load gpu-cutover-seal.service"
        )
    return ""


def passes(address: str, port: int) -> bool:
    """Does a datagram to this port of this host leave the process? What the kernel drops at once is told by EPERM.

    Anything but that refusal counts as passed, also what could not be tried; only IPv6 may be missing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as canary:
            canary.sendto(b"canary", (address, port))
    except PermissionError:
        return False
    except OSError:
        return family == socket.AF_INET
    return True


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def attempt(address: str, port: int, timeout_s: float = ATTEMPT_S) -> str:
    """What one connection from this process comes to."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
            connection.settimeout(timeout_s)
            connection.connect((address, port))
        return ANSWERED
    except TimeoutError:
        return SILENT
    except ConnectionRefusedError:
        return REFUSED
    except OSError:
        return NO_WAY


def try_all(
    targets: Sequence[Target], once: Callable[[str, int], str] = attempt, patience_s: float = LOOK_S
) -> dict[Target, str]:
    """What each target comes to, all tried at once. A name is asked for here, too: one that is known was reached for.

    A name that stays unknown is `no way`; what does not end in time is `silent`. Threads, because asking for a name
    cannot be bounded otherwise.
    """
    found: dict[Target, str] = {}

    def one(target: Target) -> None:
        found[target] = _best(once(address, target.port) for address in _addresses(target))

    threads = [threading.Thread(target=one, args=(target,), daemon=True) for target in targets]
    deadline = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    ended = dict(found)
    return {target: ended.get(target, SILENT) for target in targets}


def _best(findings: Iterable[str]) -> str:
    """The finding that says most of several addresses: an answer before a refusal before anything else."""
    last = NO_WAY
    for came in findings:
        if came == ANSWERED:
            return came
        last = came if last != REFUSED else last
    return last


def _addresses(target: Target) -> list[str]:
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(target.host))]
    try:
        told = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(one[4][0]) for one in told))
