#!/usr/bin/env python3
"""A time server for the lab: SNTP answers with this machine's own clock, which all twin hosts share anyway.

Imitates: a stratum-2 server's answer to a client (RFC 4330). Does NOT imitate: synchronisation, drift, symmetric modes, authentication.
Standard library only.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time

TO_UNIX = 2_208_988_800  # seconds from 1900 to 1970


def stamp(seconds: float) -> bytes:
    """An NTP timestamp."""
    whole = int(seconds)
    return struct.pack("!2I", (whole + TO_UNIX) & 0xFFFFFFFF, int((seconds - whole) * 2**32))


def answer(packet: bytes, received: float, sent: float) -> bytes | None:
    """The reply to a client's packet; None for anything else."""
    if len(packet) < 48 or packet[0] & 0x7 != 3:
        return None
    head = struct.pack("!BBbb3I", packet[0] & 0x38 | 4, 2, packet[2] if packet[2] < 128 else 0, -20, 0, 0, 0x7F000001)
    return head + stamp(received - 1) + packet[40:48] + stamp(received) + stamp(sent)


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="ntp")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=123)
    options = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind((options.host, options.port))
        while True:
            packet, client = channel.recvfrom(512)
            reply = answer(packet, time.time(), time.time())
            if reply:
                channel.sendto(reply, client)


if __name__ == "__main__":
    sys.exit(main())
