"""The edge lets in who may come in, on six paths, and nobody chooses their own tenant."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from edge_lab import Edge, render


def connect(edge: Edge, certificate: Path | None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(edge.ca.path))
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(certificate)
    return http.client.HTTPSConnection("127.0.0.1", edge.port, timeout=5, context=context)


FIRST_BYTES = 16_384


def ask(
    edge: Edge,
    name: str = "doc-zam.clinic.test",
    path: str = "/chat",
    method: str = "POST",
    body: bytes | None = b"{}",
    **headers: str,
) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
    connection = connect(edge, edge.ca.issue(name))
    connection.putrequest(method, path, skip_host=any(key.lower() == "host" for key in headers))
    connection.putheader("content-length", str(len(body or b"")))
    for key, value in headers.items():
        connection.putheader(key.replace("_", "-"), value)
    # Of a big body only the beginning: the edge judges by the declared length and hangs up on whoever goes on sending.
    connection.endheaders((body or b"")[:FIRST_BYTES])
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content), answer.headers


def test_haproxy_accepts_the_rendered_configuration(edge: Edge) -> None:
    done = subprocess.run(["haproxy", "-c", "-f", str(edge.config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_configuration_without_tenants_and_routes_is_still_valid(edge: Edge, tmp_path: Path) -> None:
    text = render(
        {"edge_certificate": str(edge.ca.issue("edge.test")), "edge_client_ca": str(edge.ca.path), "edge_revoked": ""}
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    done = subprocess.run(["haproxy", "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_certificate_decides_tenant_and_pool(edge: Edge) -> None:
    for name, tenant, pool in (
        ("doc-zam.clinic.test", "doc-zam", "hybrid"),
        ("oncology.clinic.test", "oncology", "sealed"),
        ("somebody.clinic.test", "unknown", "sealed"),
        ("doc-zam.clinic.test.evil", "unknown", "sealed"),
    ):
        status, told, _ = ask(edge, name)
        assert (status, told["pool"], told["headers"]["x-tenant"]) == (200, pool, tenant)


def test_a_client_cannot_choose_its_tenant_or_host(edge: Edge) -> None:
    _, told, _ = ask(
        edge,
        x_tenant="doc-zam",
        name="oncology.clinic.test",
        host="evil",
        authorization="Bearer x",
        x_forwarded_for="1",
    )
    headers = told["headers"]
    assert (told["pool"], headers["x-tenant"], headers["host"]) == ("sealed", "oncology", "edge")
    assert "authorization" not in headers
    assert "x-forwarded-for" not in headers


def test_only_what_a_route_needs_goes_on(edge: Edge) -> None:
    names = {
        "x-forwarded-proto": "https", "forwarded": "for=1", "via": "1.1 a", "x-real-ip": "1.2.3.4", "te": "trailers",
        "keep-alive": "timeout=5", "proxy-authorization": "Basic x", "proxy-connection": "close", "trailer": "x-tenant",
        "x-shadow": "1", "x-served-by": "cloud", "x-litellm-tags": "a", "cookie": "a=b", "x-request-id": "mine",
        "x-http-method-override": "DELETE", "content-type": "application/json", "accept": "text/event-stream",
    }  # fmt: skip
    _, told, _ = ask(edge, **{name.replace("-", "_"): value for name, value in names.items()})
    ours = {"host", "x-tenant", "x-request-id"}
    assert set(told["headers"]) == {"content-type", "content-length", "accept"} | ours
    assert told["headers"]["x-request-id"] != "mine"


@pytest.mark.parametrize(("said", "told_as"), [("soap", "soap"), ("drill", None), ("SOAP", None), ("soap, x", None)])
def test_a_client_may_say_a_known_workload_only(edge: Edge, said: str, told_as: str | None) -> None:
    _, told, _ = ask(edge, x_workload=said)
    assert told["headers"].get("x-workload") == told_as


def test_a_header_named_as_hop_by_hop_is_no_way_to_lose_ours(edge: Edge) -> None:
    _, told, _ = ask(edge, connection="close, x-tenant, x-request-id")
    assert told["headers"]["x-tenant"] == "doc-zam"


def test_other_gateways_read_tables_and_nothing_else(edge: Edge) -> None:
    assert ask(edge, "gw2.clinic.test", "/peer/summary", "GET", body=None)[1]["pool"] == "peers"
    for name, path, method in (
        ("gw2.clinic.test", "/chat", "POST"),
        ("gw2.clinic.test", "/peers", "GET"),
        ("gw2.clinic.test", "/peer/summary", "POST"),
        ("doc-zam.clinic.test", "/peer/summary", "GET"),
        ("gw3.clinic.test", "/peer/summary", "GET"),
    ):
        assert ask(edge, name, path, method)[0] == 404, (name, path, method)


def test_the_monitor_reads_what_the_gateway_knows_of_its_routes(edge: Edge) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.metrics_port}/routes", timeout=5) as answer:
        assert (answer.status, json.loads(answer.read())["pool"]) == (200, "peers")


def test_answers_do_not_show_what_is_behind(edge: Edge) -> None:
    _, told, headers = ask(edge)
    assert {name.lower() for name in headers} <= {"content-length", "date", "x-served-by", "x-request-id"}
    assert headers["x-request-id"] == told["headers"]["x-request-id"]


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        ({"path": "/nothing"}, 404),
        ({"path": "/chat/"}, 404),
        ({"path": "/chat/../admin"}, 404),
        ({"path": "/chat?fallbacks=x"}, 400),
        ({"upgrade": "h2c", "connection": "upgrade", "body": b""}, 400),
        ({"method": "GET", "body": None}, 405),
        ({"method": "DELETE"}, 405),
        ({"body": b"x" * 1001}, 413),
        ({"path": "/audio", "body": b"x" * 1001}, 200),
        ({"path": "/audio", "body": b"x" * 1_000_001}, 413),
        ({"body": b""}, 200),
    ],
    ids=lambda value: str(value)[:60],
)
def test_only_bounded_posts_to_the_declared_paths_pass(edge: Edge, request_of: dict[str, Any], status: int) -> None:
    assert ask(edge, **request_of)[0] == status


def test_a_body_of_unknown_length_is_refused(edge: Edge) -> None:
    connection = connect(edge, edge.ca.issue("doc-zam.clinic.test"))
    connection.request(
        "POST", "/chat", body=iter([b"{}"]), encode_chunked=True, headers={"transfer-encoding": "chunked"}
    )
    assert connection.getresponse().status == 411


def test_a_body_of_unknown_length_is_refused_over_http2_too(edge: Edge) -> None:
    def plain(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    context = ssl.create_default_context(cafile=str(edge.ca.path))
    context.check_hostname = False
    context.load_cert_chain(edge.ca.issue("doc-zam.clinic.test"))
    context.set_alpn_protocols(["h2"])
    names = ((b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/chat"), (b":authority", b"edge"))
    headers = b"".join(plain(name, value) for name, value in names)
    with socket.create_connection(("127.0.0.1", edge.port), 5) as raw, context.wrap_socket(raw) as tls:
        assert tls.selected_alpn_protocol() == "h2"
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        tls.sendall(frame(1, 4, 1, headers) + frame(0, 0, 1, b"x" * 2000))
        answered = b""
        while b"content-length required" not in answered:
            part = tls.recv(4096)
            assert part, answered
            answered += part


def test_a_length_beyond_any_integer_is_refused(edge: Edge) -> None:
    connection = connect(edge, edge.ca.issue("doc-zam.clinic.test"))
    connection.putrequest("POST", "/chat")
    connection.putheader("content-length", "18446744073709551000")
    connection.endheaders()
    assert connection.getresponse().status in (400, 413)


def test_no_certificate_and_a_foreign_certificate_are_turned_away(edge: Edge) -> None:
    for certificate in (None, edge.foreign.issue("doc-zam.clinic.test")):
        connection = connect(edge, certificate)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            connection.request("POST", "/chat", body=b"{}")
            connection.getresponse()


def test_metrics_count_without_a_certificate_for_scrapers(edge: Edge) -> None:
    ask(edge)
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r'haproxy_frontend_http_requests_total\{proxy="edge"\} (\d+)', text)
    assert found and int(found[1]) >= 1
