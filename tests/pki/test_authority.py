"""The site's certificate authority: made once, renewed in time, private."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from gpu_cutover.errors import InputError
from gpu_cutover.pki.authority import LEAF_LIFE, Leaf, Wishes, server_pair
from gpu_cutover.pki.authority import ensure as ensure_all

NOW = datetime(2026, 12, 27, tzinfo=UTC)
SERVER = Leaf("edge.clinic.test", ("edge.clinic.test", "10.87.0.11"))
TENANTS = {"doc-zam": "doc-zam.clinic.test", "drill": "drill.clinic.test"}


def ensure(
    directory: Path, site: str, server: Leaf, tenants: dict[str, str], now: datetime, write: bool = True
) -> list[str]:
    return ensure_all(directory, site, server, tenants, now, write).written


def wish(directory: Path, **wishes: tuple[str, ...]) -> list[str]:
    return ensure_all(directory, "twin", SERVER, TENANTS, NOW, wishes=Wishes(**wishes)).written


def serial(directory: Path, tenant: str = "doc-zam") -> int:
    return x509.load_pem_x509_certificate((directory / "tenants" / f"{tenant}.crt").read_bytes()).serial_number


def revoked(directory: Path) -> set[int]:
    return {one.serial_number for one in x509.load_pem_x509_crl((directory / "revoked.pem").read_bytes())}


def test_everything_is_made_once_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first = ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    assert first == ["ca.pem", "ca.key", "server.pem", "tenants/doc-zam.crt", "tenants/drill.crt", "revoked.pem"]
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


def test_a_certificate_that_is_not_its_keys_is_made_again(tmp_path: Path) -> None:
    """As a run leaves them that died between the two files, or two runs at once."""
    ensure(tmp_path, "twin", SERVER, TENANTS, NOW)
    others_key = (tmp_path / "tenants" / "drill.key").read_bytes()
    (tmp_path / "tenants" / "doc-zam.key").write_bytes(others_key)
    assert ensure(tmp_path, "twin", SERVER, TENANTS, NOW) == ["tenants/doc-zam.crt"]


def test_a_server_whose_certificate_is_not_its_keys_is_made_again(tmp_path: Path) -> None:
    certificate, key = server_pair(tmp_path, "twin", "cloud", ("cloud.test",), NOW)
    first = certificate.read_bytes()
    server_pair(tmp_path, "twin", "bmc", ("bmc.test",), NOW)
    key.write_bytes((tmp_path / "bmc.key").read_bytes())
    server_pair(tmp_path, "twin", "cloud", ("cloud.test",), NOW)
    assert certificate.read_bytes() != first
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


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


def test_a_rotated_certificate_counts_beside_the_new_one_until_it_is_retired(tmp_path: Path) -> None:
    wish(tmp_path)
    old = serial(tmp_path)
    assert wish(tmp_path, rotate=("doc-zam",)) == ["tenants/doc-zam.crt"]
    assert serial(tmp_path) != old
    assert revoked(tmp_path) == set()
    assert wish(tmp_path, retire=("doc-zam",)) == ["revoked.pem"]
    assert revoked(tmp_path) == {old}
    assert wish(tmp_path, retire=("doc-zam",)) == []


def test_a_revoked_tenant_gets_no_new_certificate_by_itself(tmp_path: Path) -> None:
    wish(tmp_path)
    lost = serial(tmp_path)
    assert wish(tmp_path, revoke=("doc-zam",)) == ["revoked.pem"]
    assert revoked(tmp_path) == {lost}
    assert wish(tmp_path) == []
    assert serial(tmp_path) == lost


def test_a_stolen_certificate_is_replaced_and_revoked_in_one_go(tmp_path: Path) -> None:
    wish(tmp_path)
    stolen = serial(tmp_path)
    assert wish(tmp_path, rotate=("doc-zam",), revoke=("doc-zam",)) == ["tenants/doc-zam.crt", "revoked.pem"]
    assert revoked(tmp_path) == {stolen}
    assert serial(tmp_path) != stolen


def test_certificates_from_before_the_register_can_be_revoked(tmp_path: Path) -> None:
    wish(tmp_path)
    old = serial(tmp_path)
    for name in ("issued.json", "revoked.pem"):
        (tmp_path / name).unlink()
    wish(tmp_path, rotate=("doc-zam",), revoke=("doc-zam",))
    assert revoked(tmp_path) == {old}


def test_a_lost_list_is_made_again_from_the_register(tmp_path: Path) -> None:
    wish(tmp_path)
    wish(tmp_path, revoke=("drill",))
    (tmp_path / "revoked.pem").unlink()
    assert wish(tmp_path) == ["revoked.pem"]
    assert revoked(tmp_path) == {serial(tmp_path, "drill")}


def test_the_list_lives_as_long_as_the_authority(tmp_path: Path) -> None:
    wish(tmp_path)
    listed = x509.load_pem_x509_crl((tmp_path / "revoked.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    assert listed.next_update_utc == authority.not_valid_after_utc


def test_the_end_of_every_current_certificate_is_told(tmp_path: Path) -> None:
    made = ensure_all(tmp_path, "twin", SERVER, TENANTS, NOW, gateways={"gw1": "gw1.clinic.test"})
    assert set(made.ends) == {"ca.pem", "server.pem", "tenants/doc-zam.crt", "tenants/drill.crt", "gateways/gw1.crt"}
    assert made.ends["server.pem"] == int((NOW + LEAF_LIFE).timestamp())


def test_a_wish_about_nobody_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        wish(tmp_path, revoke=("nobody",))
    assert list(tmp_path.iterdir()) == []
