"""Names and time over real UDP sockets, and answers that are broken on purpose."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.probes.dns import PTR, A, DnsError, decode_answer, encode_question, query, resolve_names
from gpu_cutover.probes.sntp import TO_UNIX, decode, read_clock


@contextmanager
def server(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """Answers one datagram on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        link.settimeout(10)

        def serve() -> None:
            packet, peer = link.recvfrom(1024)
            link.sendto(answer(packet), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield link.getsockname()[1]
        thread.join(timeout=10)


def reply(question: bytes, *records: tuple[int, bytes], code: int = 0) -> bytes:
    identity = question[:2]
    body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 5, len(data)) + data for kind, data in records)
    return identity + struct.pack("!5H", 0x8180 | code, 1, len(records), 0, 0) + question[12:] + body


def test_an_address_over_a_real_socket() -> None:
    with server(lambda question: reply(question, (5, b"\x01x\x00"), (A, bytes([10, 87, 0, 21])))) as port:
        assert query("127.0.0.1", "gpu1.clinic.test", A, port) == ["10.87.0.21"]


def test_a_name_for_an_address_with_a_compressed_suffix() -> None:
    """The suffix points back into the question, as servers write it."""
    question = encode_question(7, "21.0.87.10.in-addr.arpa", PTR)
    suffix = 12 + len("21.0.87.10.") - len("10.") + 0
    packet = reply(question, (PTR, b"\x04gpu1\x06clinic\x04test\x00"))
    assert decode_answer(packet, 7, PTR) == ["gpu1.clinic.test"]
    packet = reply(question, (PTR, b"\x04gpu1" + struct.pack("!H", 0xC000 | suffix)))
    assert decode_answer(packet, 7, PTR) == ["gpu1.10.in-addr.arpa"]


def test_a_name_that_does_not_exist_is_no_error() -> None:
    question = encode_question(7, "nobody.clinic.test", A)
    assert decode_answer(reply(question, code=3), 7, A) == []


def test_a_refusal_and_a_stranger_are_errors() -> None:
    question = encode_question(7, "gpu1.clinic.test", A)
    with pytest.raises(DnsError, match="error code 5"):
        decode_answer(reply(question, code=5), 7, A)
    with pytest.raises(DnsError, match="another question"):
        decode_answer(reply(question), 8, A)


@given(st.binary(max_size=200))
def test_no_packet_hangs_or_breaks_the_reader(noise: bytes) -> None:
    packet = struct.pack("!6H", 7, 0x8180, 1, 3, 0, 0) + noise
    try:
        decode_answer(packet, 7, A)
    except DnsError as error:
        assert "broken" in str(error)


def test_a_pointer_to_itself_ends() -> None:
    packet = struct.pack("!6H", 7, 0x8180, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01"
    with pytest.raises(DnsError):
        decode_answer(packet, 7, A)


def test_each_name_has_its_own_answer_or_reason() -> None:
    def ask(name: str, kind: int) -> list[str]:
        if name.startswith("gw1"):
            raise DnsError("resolver 10.87.0.1: no answer in 4 s")
        return ["gpu1.clinic.test"] if kind == PTR else ["10.87.0.21"]

    found = resolve_names({"gpu1.clinic.test": "10.87.0.21", "gw1.clinic.test": "10.87.0.11", "x": "no address"}, ask)
    assert found["gpu1.clinic.test"]["reverse"] == ["gpu1.clinic.test"]
    assert "no answer" in found["gw1.clinic.test"]["error"]
    assert "error" in found["x"]


def test_a_name_that_dns_cannot_say_is_an_error() -> None:
    with pytest.raises(DnsError):
        encode_question(1, "a" * 64 + ".test", A)


def time_packet(taken: float, given_: float, first: int = 0x24, stratum: int = 2) -> bytes:
    def stamp(moment: float) -> bytes:
        return struct.pack("!2I", int(moment) + TO_UNIX, int((moment % 1) * 2**32))

    return bytes([first, stratum]) + bytes(30) + stamp(taken) + stamp(given_)


def test_the_offset_is_free_of_an_even_delay() -> None:
    """Here is 2.5 s behind; the packet took 0.5 s each way."""
    answer = decode(time_packet(1003.0, 1003.0), sent=1000.0, received=1001.0)
    assert answer["offset_s"] == pytest.approx(2.5, abs=1e-5)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(20),
        time_packet(1, 1, 0x24, 0),
        time_packet(1, 1, 0x24, 16),
        time_packet(1, 1, 0xE4),
        time_packet(1, 1, 0x23),
    ],
)
def test_a_server_that_is_not_synchronised_proves_nothing(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"broken|synchronised"):
        decode(packet, 0, 1)


def test_the_first_server_that_answers_counts() -> None:
    with server(lambda _: time_packet(500.0, 500.0)) as port:
        answer = read_clock(["host.invalid", "127.0.0.1"], port, clock=lambda: 500.0)
    assert answer == {"server": "127.0.0.1", "offset_s": 0.0, "stratum": 2}


def test_no_server_at_all_is_an_error() -> None:
    assert read_clock([]) == {"error": "no time server is declared"}
    assert "host.invalid" in read_clock(["host.invalid"])["error"]
