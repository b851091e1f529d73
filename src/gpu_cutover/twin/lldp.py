"""The switch's voice: sends LLDP frames out of every bridge port, so that each host hears which port it hangs on.

Run as a file inside the lab's network: `python -I -S lldp.py WIRING.json`. The wiring is read again before every round:
`{"switch": NAME, "ports": {DEVICE: {"port": "Ethernet1/21", "description": "gpu1 eth0"}}}`. The frames leave through
the port's own device, not through the bridge, which never forwards LLDP: hosts hear the switch and not each other,
like on a real one.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from pathlib import Path

INTERVAL_S = 2.0
HOLD_S = 8  # a neighbour whose frames stop is forgotten after this long
MULTICAST = bytes.fromhex("0180c200000e")  # IEEE 802.1AB, nearest bridge
ETHERTYPE = bytes.fromhex("88cc")
CHASSIS = bytes.fromhex("02005e000001")  # locally administered address of the switch
MINIMUM_FRAME = 60


def element(kind: int, value: bytes) -> bytes:
    """One TLV of IEEE 802.1AB: seven bits of type, nine bits of length."""
    return struct.pack("!H", kind << 9 | len(value)) + value


def frame(source: bytes, switch: str, port: str, description: str) -> bytes:
    """The Ethernet frame a switch port sends: chassis, port, time to live, descriptions, capability bridge."""
    body = (
        element(1, b"\x04" + CHASSIS)
        + element(2, b"\x05" + port.encode())
        + element(3, struct.pack("!H", HOLD_S))
        + element(4, description.encode())
        + element(5, switch.encode())
        + element(6, b"twin switch")
        + element(7, struct.pack("!HH", 4, 4))
        + element(0, b"")
    )
    return (MULTICAST + source + ETHERTYPE + body).ljust(MINIMUM_FRAME, b"\0")


def announce(wiring: dict[str, object]) -> None:
    """Send one frame out of every port that exists now; a port whose host is down is left out."""
    ports = wiring.get("ports")
    for device, text in ports.items() if isinstance(ports, dict) else ():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            try:
                link.bind((device, 0))
                source = link.getsockname()[4]
                link.send(frame(source, str(wiring["switch"]), text["port"], text["description"]))
            except OSError:
                continue


def main(path: str) -> None:
    """Announce for ever; ended with its control group."""
    while True:
        announce(json.loads(Path(path).read_text()))
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main(sys.argv[1])
