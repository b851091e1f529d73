"""The lab's clock: answers SNTP requests (RFC 4330) with this machine's time, so that the time is really asked for.

Run as a file inside the lab's network: `python -I -S ntp.py ADDRESS`. The hosts share this machine's clock and cannot
set it; what a rehearsal proves is that the declared time server is reached and how far away it says they are.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

PORT = 123
EPOCH_1900 = 2_208_988_800  # seconds between 1900 and 1970
FORMAT = "!BBBbII4sQQQQ"
SIZE = struct.calcsize(FORMAT)  # 48 bytes
SERVER = 4
STRATUM_LOCAL_CLOCK = 10


def stamp(unix_s: float) -> int:
    """Seconds since 1900 as 64 bits, 32 of them for the fraction."""
    return int((unix_s + EPOCH_1900) * 2**32)


def reply(request: bytes, received_s: float, sent_s: float) -> bytes | None:
    """The answer to one request, None for what is none (unix times in seconds)."""
    if len(request) < SIZE:
        return None
    first, _, poll, *_, transmitted = struct.unpack(FORMAT, request[:SIZE])
    version_and_mode = first & 0x38 | SERVER
    reference = stamp(received_s)
    return struct.pack(
        FORMAT,
        version_and_mode,
        STRATUM_LOCAL_CLOCK,
        poll,
        -20,  # precision: about a microsecond
        0,
        0,
        b"LOCL",
        reference,
        transmitted,
        stamp(received_s),
        stamp(sent_s),
    )


def main(address: str) -> None:
    """Answer for ever; ended with its control group."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        while True:
            request, client = server.recvfrom(512)
            answer = reply(request, time.time(), time.time())
            if answer:
                server.sendto(answer, client)


if __name__ == "__main__":
    main(sys.argv[1])
