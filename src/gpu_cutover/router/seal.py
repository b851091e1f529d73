"""Does the kernel refuse what the sealed router's user sends? Tried, not believed. Standard library only."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
from typing import Any

COMMAND = ("nft", "-j", "list", "counter", "inet", "gpu_cutover_seal", "sealed_refused")
TIMEOUT_S = 5.0


def reading(user: str, address: str, port: int = 443) -> dict[str, Any]:
    """Try to connect to `address` as `user` and see the seal count it. `{loaded, refused, counted}` or `{error}`.

    `address` must be reachable by a route and not be one of the allowed; without a route no packet is made and nothing
    is proven.
    """
    before = refused_packets()
    if before is None:
        return {"loaded": False, "refused": False, "error": "the table gpu_cutover_seal is not loaded"}
    try:
        connected = _connects_as(user, address, port)
    except (KeyError, OSError) as error:
        return {"loaded": True, "error": f"could not try as {user}: {error}"}
    counted = (refused_packets() or 0) - before
    return {"loaded": True, "refused": not connected and counted > 0, "counted": counted, "tried": f"{address}:{port}"}


def refused_packets() -> int | None:
    """Packets the seal refused so far; None when it is not loaded or nft hangs."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, timeout=TIMEOUT_S, check=True)
        entries = json.loads(done.stdout)["nftables"]
        return next(int(entry["counter"]["packets"]) for entry in entries if "counter" in entry)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, StopIteration):
        return None


def _connects_as(user: str, address: str, port: int) -> bool:
    """In a child process with the user's id, so that nothing else ever runs as that user."""
    uid = pwd.getpwnam(user).pw_uid
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(uid)
            socket.create_connection((address, port), timeout=1.0).close()
            code = 1
        except OSError:
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise OSError("the attempt itself failed")
    return code == 1
