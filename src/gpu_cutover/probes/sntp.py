"""How far this host's clock is from the site's time servers: one SNTP exchange (RFC 4330), no daemon needed."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

TIMEOUT_S = 2.0
TO_UNIX = 2_208_988_800  # seconds from 1900 to 1970
CLIENT = b"\x23" + 47 * b"\0"  # version 4, mode client
SERVER_MODES = (4, 5)


def read_clock(servers: Sequence[str], port: int = 123, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """{server, offset_s, stratum} of the first server that answers, or {error} with every server's reason."""
    reasons = []
    for server in servers:
        try:
            return {"server": server, **_ask(server, port, clock)}
        except (OSError, ValueError) as error:
            reasons.append(f"{server}: {str(error) or 'no answer'}")
    return {"error": "; ".join(reasons) or "no time server is declared"}


def _ask(server: str, port: int, clock: Callable[[], float]) -> dict[str, Any]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(TIMEOUT_S)
        link.connect((server, port))
        sent = clock()
        link.send(CLIENT)
        packet = link.recv(256)
        return decode(packet, sent, clock())


def decode(packet: bytes, sent: float, received: float) -> dict[str, Any]:
    """Offset (server minus here) in s from a server's packet and our two epoch times. Raises ValueError."""
    if len(packet) < 48:
        raise ValueError("a broken answer")
    leap, mode, stratum = packet[0] >> 6, packet[0] & 0x7, packet[1]
    if mode not in SERVER_MODES or leap == 3 or not 0 < stratum < 16:
        raise ValueError(f"not synchronised itself (stratum {stratum})")
    taken, given = (_seconds(packet, place) for place in (32, 40))
    return {"offset_s": round(((taken - sent) + (given - received)) / 2, 6), "stratum": stratum}


def _seconds(packet: bytes, place: int) -> float:
    whole, fraction = struct.unpack_from("!2I", packet, place)
    return float(whole - TO_UNIX + fraction / 2**32)
