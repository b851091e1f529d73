"""A small certificate authority in `SITE/.state/pki`: made once, leaves renewed before they expire.

Files, all 0600: `ca.pem`, `ca.key`, `server.pem` (certificate and key in one, as HAProxy reads it) and
`tenants/<name>.{crt,key}`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import InputError

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=397)  # the longest that TLS clients commonly accept
RENEW_BEFORE = timedelta(days=30)
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate that must exist. `names`: DNS names and addresses (servers only)."""

    common_name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(
    directory: Path, site: str, server: Leaf, tenants: Mapping[str, str], now: datetime, write: bool = True
) -> list[str]:
    """Make what is missing or about to expire; returns the files (re)written, relative to `directory`.

    `tenants` is name → common name. With `write=False` predicts. Raises InputError when the CA's files cannot be read.
    """
    authority = _load_authority(directory)
    if authority is None:
        wanted = ["ca.pem", "ca.key", "server.pem", *(f"tenants/{name}.crt" for name in sorted(tenants))]
        if not write:
            return wanted
        authority = _new_authority(directory, site, now)
        _write_leaves(directory, authority, server, tenants, now)
        return wanted
    stale = _stale(directory, authority, server, tenants, now)
    if write:
        chosen = {name: tenants[name] for name in tenants if f"tenants/{name}.crt" in stale}
        _write_leaves(directory, authority, server if "server.pem" in stale else None, chosen, now)
    return stale


def server_pair(directory: Path, site: str, name: str, names: tuple[str, ...], now: datetime) -> tuple[Path, Path]:
    """`name`.crt and `name`.key of a further server under the directory's CA, for these names and addresses.

    Both, and the CA, are made when missing or about to expire. Raises InputError when the CA's files cannot be read.
    """
    authority = _load_authority(directory) or _new_authority(directory, site, now)
    leaf = Leaf(names[0], names)
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    if not (_good(certificate, authority, leaf, now) and key.exists()):
        issued, private = _issue(authority, leaf, ExtendedKeyUsageOID.SERVER_AUTH, now)
        _write(key, private)
        _write(certificate, issued)
    return certificate, key


def _stale(directory: Path, authority: Authority, server: Leaf, tenants: Mapping[str, str], now: datetime) -> list[str]:
    stale = [] if _good(directory / "server.pem", authority, server, now) else ["server.pem"]
    for name, common_name in sorted(tenants.items()):
        path = directory / "tenants" / f"{name}.crt"
        if not (_good(path, authority, Leaf(common_name), now) and path.with_suffix(".key").exists()):
            stale.append(f"tenants/{name}.crt")
    return stale


def _good(path: Path, authority: Authority, leaf: Leaf, now: datetime) -> bool:
    """Is the certificate there, ours, for this name, and valid for a while yet?"""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    names = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return (
        names == [leaf.common_name]
        and _alternative_names(certificate) == set(leaf.names)
        and certificate.not_valid_after_utc - RENEW_BEFORE > now
    )


def _alternative_names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _load_authority(directory: Path) -> Authority | None:
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if not certificate.exists() and not key.exists():
        return None
    try:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        authority = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        problem = f"the site's CA cannot be read: {error}"
        raise InputError(str(directory), "ca.pem", problem, "bring both files back from your backup") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InputError(str(key), "key", "is not an elliptic curve key", "bring the file back from your backup")
    return Authority(authority, loaded)


def _new_authority(directory: Path, site: str, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"gpu-cutover {site} CA {now:%Y-%m-%d}")
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: a certificate without its key would look like a lost CA.
    _write(directory / "ca.key", _pem(key))
    _write(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


def _write_leaves(
    directory: Path, authority: Authority, server: Leaf | None, tenants: Mapping[str, str], now: datetime
) -> None:
    if server is not None:
        certificate, key = _issue(authority, server, ExtendedKeyUsageOID.SERVER_AUTH, now)
        _write(directory / "server.pem", certificate + key)
    for name, common_name in tenants.items():
        certificate, key = _issue(authority, Leaf(common_name), ExtendedKeyUsageOID.CLIENT_AUTH, now)
        _write(directory / "tenants" / f"{name}.key", key)
        _write(directory / "tenants" / f"{name}.crt", certificate)


def _issue(authority: Authority, leaf: Leaf, usage: x509.ObjectIdentifier, now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = authority.key.public_key()
    builder = (
        _builder(_name(leaf.common_name), authority.certificate.subject, key.public_key(), now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    if leaf.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(_general(leaf.names))), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(now + life)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(names: Iterable[str]) -> Iterable[x509.GeneralName]:
    for name in names:
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)


def _key_usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(descriptor)
    fresh.replace(path)
