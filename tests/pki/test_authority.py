"""The site's certificate authority: made once, renewed in time, private."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.pki.authority import LEAF_LIFE, Leaf, ensure

NOW = datetime(2026, 12, 27, tzinfo=UTC)
SERVER = Leaf("edge.clinic.test", ("edge.clinic.test", "10.87.0.11"))
TENANTS = {"doc-zam": "doc-zam.clinic.test", "drill": "drill.clinic.test"}


def test_everything_is_made_once_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first = ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    assert first == ["ca.pem", "ca.key", "server.pem", "tenants/doc-zam.crt", "tenants/drill.crt"]
    assert ensure(tmp_path, "twin", SERVER, TENANTS, NOW) == []


def test_all_files_are_private(tmp_path: Path) -> None:
    ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_a_leaf_is_renewed_before_it_expires_and_the_authority_stays(tmp_path: Path) -> None:
    ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    authority = (tmp_path / "ca.pem").read_bytes()
    late = NOW + LEAF_LIFE - timedelta(days=29)
    assert ensure(tmp_path, "twin", SERVER, TENANTS, late) == [
        "server.pem",
        "tenants/doc-zam.crt",
        "tenants/drill.crt",
    ]
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_a_new_address_of_the_edge_renews_only_its_certificate(tmp_path: Path) -> None:
    ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    moved = Leaf(SERVER.common_name, (*SERVER.names, "10.87.0.12"))
    assert ensure(tmp_path, "twin", moved, TENANTS, NOW) == ["server.pem"]


def test_a_dry_run_predicts_and_writes_nothing(tmp_path: Path) -> None:
    assert "ca.key" in ensure(tmp_path, "twin", SERVER, TENANTS, NOW, write=False)
    assert list(tmp_path.iterdir()) == []


def test_half_an_authority_is_told_not_replaced(tmp_path: Path) -> None:
    ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(InputError):
        ensure(tmp_path, "twin", SERVER, TENANTS, NOW)


def test_a_tls_stack_accepts_what_was_made(tmp_path: Path) -> None:
    ensure(tmp_path, "twin", SERVER, TENANTS, datetime.now(UTC))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem")
    server.load_verify_locations(tmp_path / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.load_cert_chain(tmp_path / "tenants" / "doc-zam.crt", tmp_path / "tenants" / "doc-zam.key")
    assert shake_hands(server, client, "edge.clinic.test") == "doc-zam.clinic.test"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "other.clinic.test")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Hand-shake in memory; returns the client's common name as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = theirs.getpeercert() or {}
    return next(value for pairs in certificate["subject"] for key, value in pairs if key == "commonName")
