"""Tell the thermal process what this process does to its GPUs: one datagram a second. After three seconds of
silence the process counts as idle; its memory is its own until it ends.

A socket and not a file, because the units that serve engines may write nothing outside their state directory.
Message: `load <name> <share 0..1> <bytes per GPU> <gpu>[,<gpu>…]`; the kernel adds the sender's process id.
"""

from __future__ import annotations

import contextlib
import os
import socket

SOCKET = os.environ.get("NVML_STANDIN_SOCKET", "/run/twin/load.sock")


def declare(name: str, share: float, memory_bytes: int, gpus: list[int]) -> None:
    """Declare a load; without a thermal process (a test) nothing happens."""
    message = f"load {name} {min(1.0, max(0.0, share)):.3f} {memory_bytes} {','.join(map(str, gpus)) or '-'}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(message.encode(), SOCKET)
