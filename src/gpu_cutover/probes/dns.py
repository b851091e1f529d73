"""Asking one resolver directly, whatever the host's own configuration says: A and PTR over UDP."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

TIMEOUT_S = 2.0
TRIES = 2
A, PTR, INTERNET = 1, 12, 1

Ask = Callable[[str, int], list[str]]


class DnsError(Exception):
    """The resolver did not answer or refused; one sentence."""


def read_names(names: Mapping[str, str], resolver: str) -> dict[str, Any]:
    """{name: {expected, forward: [...], reverse: [...]}} or with {error} where the resolver did not answer."""
    return resolve_names(names, lambda name, kind: query(resolver, name, kind))


def resolve_names(names: Mapping[str, str], ask: Ask) -> dict[str, Any]:
    """The same with any way of asking."""
    found: dict[str, Any] = {}
    for name, address in names.items():
        try:
            forward, reverse = ask(name, A), ask(ipaddress.ip_address(address).reverse_pointer, PTR)
            found[name] = {"expected": address, "forward": forward, "reverse": reverse}
        except (DnsError, ValueError) as error:
            found[name] = {"expected": address, "error": str(error)}
    return found


def query(resolver: str, name: str, kind: int, port: int = 53) -> list[str]:
    """Addresses (A) or names without the last dot (PTR); [] when the name does not exist. Raises DnsError."""
    identity = secrets.randbits(16)
    question = encode_question(identity, name, kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(TIMEOUT_S)
        for _ in range(TRIES):
            try:
                link.sendto(question, (resolver, port))
                return decode_answer(link.recv(4096), identity, kind)
            except TimeoutError:
                continue
            except OSError as error:
                raise DnsError(f"resolver {resolver}: {error.strerror or error}") from error
    raise DnsError(f"resolver {resolver}: no answer in {TRIES * TIMEOUT_S:g} s")


def encode_question(identity: int, name: str, kind: int) -> bytes:
    """A recursive query for one name. Raises DnsError for a name that DNS cannot say."""
    try:
        labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
    except UnicodeError as error:
        raise DnsError(f"{name}: {error}") from error
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + wire + struct.pack("!2H", kind, INTERNET)


def decode_answer(packet: bytes, identity: int, kind: int) -> list[str]:
    """The answers of one kind. Raises DnsError for a refusal or a packet that is no answer to the question."""
    try:
        answered, flags, questions, answers, _, _ = struct.unpack_from("!6H", packet)
        code = flags & 0xF
        if answered != identity or not flags & 0x8000:
            raise DnsError("an answer to another question")
        if code not in (0, 3):
            raise DnsError(f"the resolver answers with error code {code}")
        offset = 12
        for _ in range(questions):
            offset = _name(packet, offset)[1] + 4
        return _records(packet, offset, answers, kind)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DnsError(f"a broken answer ({error})") from error


def _records(packet: bytes, offset: int, count: int, wanted: int) -> list[str]:
    found = []
    for _ in range(count):
        offset = _name(packet, offset)[1]
        kind, _, _, length = struct.unpack_from("!HHIH", packet, offset)
        offset += 10
        if kind == wanted == A:
            found.append(socket.inet_ntoa(packet[offset : offset + 4]))
        elif kind == wanted == PTR:
            found.append(_name(packet, offset)[0])
        offset += length
    return found


def _name(packet: bytes, offset: int) -> tuple[str, int]:
    """The name at `offset` and the offset after it; compression pointers only ever lead backwards, so it ends."""
    labels: list[str] = []
    after, limit = -1, offset
    while packet[offset]:
        length = packet[offset]
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | packet[offset + 1]
            after = offset + 2 if after < 0 else after
            if target >= limit:
                raise IndexError("a compression pointer that leads forwards")
            offset = limit = target
        else:
            labels.append(packet[offset + 1 : offset + 1 + length].decode("ascii"))
            offset += 1 + length
    return ".".join(labels), offset + 1 if after < 0 else after
