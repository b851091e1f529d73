"""A small certificate authority in `SITE/.state/pki`: made once, leaves renewed before they expire.

Files, all 0600: `ca.pem`, `ca.key`, `server.pem` (certificate and key in one, as HAProxy reads it),
`tenants/<name>.{crt,key}`, `gateways/<name>.{crt,key}`, and the register (`register`).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import InputError
from . import register

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


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person asked for beside what must exist. Names of tenants.

    `rotate`: a new certificate; the old one counts until it is retired. `retire`: the old ones count no more. `revoke`:
    none counts any more, and no new one is made before somebody asks for it.
    """

    rotate: tuple[str, ...] = ()
    retire: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ensured:
    """Files (re)written, relative to the directory, and when each current certificate ends (epoch s)."""

    written: list[str]
    ends: dict[str, int]


def ensure(
    directory: Path,
    site: str,
    server: Leaf,
    tenants: Mapping[str, str],
    now: datetime,
    write: bool = True,
    gateways: Mapping[str, str] | None = None,
    wishes: Wishes | None = None,
) -> Ensured:
    """Make what is missing or about to expire, and the list of what is revoked.

    `tenants` and `gateways` are name → common name. With `write=False` predicts. Raises InputError when the CA's files
    cannot be read, or for a wish about a tenant that there is not.
    """
    wished = wishes or Wishes()
    clients = _clients(tenants, gateways or {})
    for name in (*wished.rotate, *wished.retire, *wished.revoke):
        if name not in tenants:
            raise InputError("certificates", name, "is not a tenant", "name one of " + ", ".join(sorted(tenants)))
    authority = _load_authority(directory)
    fresh = [] if authority else ["ca.pem", "ca.key"]
    rotated = {_tenant_file(name) for name in wished.rotate}
    wanted = [
        file
        for file in ("server.pem", *clients)
        if file in rotated or _is_stale(directory, file, authority, server, clients, now)
    ]
    if not write:
        return Ensured([*fresh, *wanted, *_list_changes(directory, authority, wished)], {})
    if authority is None:
        authority = _new_authority(directory, site, now)
    known = register.entered(register.load(directory), _present(directory, clients))
    for file in wanted:
        _write_leaf(directory, authority, file, server if file == "server.pem" else Leaf(clients[file]), now)
    present = _present(directory, clients)
    current = {file: f"{certificate.serial_number:x}" for file, certificate in present}
    before = {entry.serial for entry in known}
    known = register.entered(known, present)
    known = register.revoked(known, _no_more(known, before, current, wished), now)
    listed = _write_register(directory, authority, known, now)
    return Ensured([*fresh, *wanted, *listed], register.ends(known, current) | {"ca.pem": _end(authority.certificate)})


def _tenant_file(name: str) -> str:
    return f"tenants/{name}.crt"


def _clients(tenants: Mapping[str, str], gateways: Mapping[str, str]) -> dict[str, str]:
    """{file: common name} of every client certificate."""
    return {_tenant_file(name): cn for name, cn in sorted(tenants.items())} | {
        f"gateways/{name}.crt": cn for name, cn in sorted(gateways.items())
    }


def _is_stale(
    directory: Path,
    file: str,
    authority: Authority | None,
    server: Leaf,
    clients: Mapping[str, str],
    now: datetime,
) -> bool:
    if authority is None:
        return True
    leaf = server if file == "server.pem" else Leaf(clients[file])
    path = directory / file
    key = path if file == "server.pem" else path.with_suffix(".key")
    return not _good(path, key, authority, leaf, now)


def _present(directory: Path, clients: Mapping[str, str]) -> list[tuple[str, x509.Certificate]]:
    """The certificates that lie there now."""
    found = []
    for file in ("server.pem", *clients):
        with suppress(OSError, ValueError):
            found.append((file, x509.load_pem_x509_certificate((directory / file).read_bytes())))
    return found


def _no_more(known: list[register.Issued], before: set[str], current: Mapping[str, str], wished: Wishes) -> list[str]:
    """Serial numbers that are to be revoked. A certificate made in the same breath as a revocation counts."""
    serials: list[str] = []
    for name in (*wished.retire, *wished.revoke):
        file = _tenant_file(name)
        spared = current.get(file, "") if name in wished.retire or current.get(file) not in before else ""
        serials += register.serials_of(known, file, spared)
    return serials


def _list_changes(directory: Path, authority: Authority | None, wished: Wishes) -> list[str]:
    """Prediction: is the list of the revoked written?"""
    known = register.load(directory)
    said = authority is not None and register.says(directory / register.REVOKED, authority.certificate, known)
    return [] if said and not (wished.retire or wished.revoke) else [register.REVOKED]


def _write_register(directory: Path, authority: Authority, known: list[register.Issued], now: datetime) -> list[str]:
    """The register first: a list can be made again from it."""
    if not (directory / register.ISSUED).exists() or register.load(directory) != known:
        _write(directory / register.ISSUED, register.as_text(known))
    if register.says(directory / register.REVOKED, authority.certificate, known):
        return []
    content = register.revocation_list(authority.certificate, authority.key, known, now)
    _write(directory / register.REVOKED, content)
    return [register.REVOKED]


def _end(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())


def server_pair(directory: Path, site: str, name: str, names: tuple[str, ...], now: datetime) -> tuple[Path, Path]:
    """`name`.crt and `name`.key of a further server under the directory's CA, for these names and addresses.

    Both, and the CA, are made when missing or about to expire. Raises InputError when the CA's files cannot be read.
    """
    authority = _load_authority(directory) or _new_authority(directory, site, now)
    leaf = Leaf(names[0], names)
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    if not _good(certificate, key, authority, leaf, now):
        issued, private = _issue(authority, leaf, ExtendedKeyUsageOID.SERVER_AUTH, now)
        _write(key, private)
        _write(certificate, issued)
    return certificate, key


def _good(path: Path, key: Path, authority: Authority, leaf: Leaf, now: datetime) -> bool:
    """Is the certificate there, ours, of this key, for this name, and valid for a while yet?

    A run that died between writing the key and writing the certificate leaves two that do not belong together.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    if private.public_key() != certificate.public_key():
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


def _write_leaf(directory: Path, authority: Authority, file: str, leaf: Leaf, now: datetime) -> None:
    if file == "server.pem":
        certificate, key = _issue(authority, leaf, ExtendedKeyUsageOID.SERVER_AUTH, now)
        _write(directory / file, certificate + key)
        return
    certificate, key = _issue(authority, leaf, ExtendedKeyUsageOID.CLIENT_AUTH, now)
    _write((directory / file).with_suffix(".key"), key)
    _write(directory / file, certificate)


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
