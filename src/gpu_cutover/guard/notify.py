"""Tell systemd that the daemon is ready and alive. Stdlib only."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send one sd_notify message; nothing happens outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), name)
