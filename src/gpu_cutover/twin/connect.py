"""A TCP connection into a lab from outside its network namespace.

Run as a file (`python -I -S connect.py LAB ADDRESS PORT`) this is an OpenSSH ProxyCommand for `ProxyUseFdpass`: it
connects inside the lab, hands the connected socket to ssh and is gone; no process copies bytes. `TWIN_LAB` in the
environment names another lab. Stand-alone and standard library only, because it starts once per SSH connection.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading

CLONE_NEWNET = 0x40000000
CONNECT_TIMEOUT_S = 10.0


def network_namespace(lab: str) -> str:
    """Where the lab's network namespace is named."""
    return f"/run/netns/{lab}"


def enter_network_of(lab: str) -> None:
    """Move the calling thread into the lab's network; raises OSError (FileNotFoundError: the lab is not up)."""
    descriptor = os.open(network_namespace(lab), os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network of lab {lab}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def connect(lab: str, address: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A connected TCP socket to `address` in `lab`; raises OSError (also when the lab is not up).

    A socket belongs to the network in which it was made; only a short-lived thread ever enters the lab, so the
    caller's own network stays what it was.
    """
    result: list[socket.socket | OSError] = []

    def in_thread() -> None:
        try:
            enter_network_of(lab)
            result.append(socket.create_connection((address, port), timeout_s))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=in_thread, daemon=True)
    thread.start()
    thread.join()
    outcome = result[0]
    if isinstance(outcome, OSError):
        raise outcome
    return outcome


def main(arguments: list[str]) -> int:
    """Connect and pass the socket over standard output; 1 with one line on standard error when that fails."""
    lab, address, port = arguments
    lab = os.environ.get("TWIN_LAB") or lab
    try:
        connection = connect(lab, address, int(port))
    except FileNotFoundError:
        print(f"the lab {lab} is not up (gpu-cutover twin up)", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{address} port {port} in lab {lab}: {error}", file=sys.stderr)
        return 1
    connection.setblocking(True)
    with socket.socket(fileno=os.dup(1)) as parent:
        socket.send_fds(parent, [b"\0"], [connection.fileno()])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
