"""Every certificate the site's authority ever gave out, and the list of those that count no more. Mostly pure.

`issued.json`: one entry per certificate. `revoked.pem`: the authority's signed list, which the edges read. The tool
brings it to every edge, nothing fetches it, so it is valid as long as the authority: a list that ran out would lock
out every clinic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import InputError

ISSUED, REVOKED = "issued.json", "revoked.pem"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate: whose file it was (`tenants/doc-zam.crt`), its serial number in hex, times in ISO 8601."""

    file: str
    serial: str
    not_after: str
    revoked: str = ""


def entry_of(file: str, certificate: x509.Certificate) -> Issued:
    """The register's entry of a certificate."""
    return Issued(file, f"{certificate.serial_number:x}", certificate.not_valid_after_utc.isoformat())


def load(directory: Path) -> list[Issued]:
    """The register. Certificates from before there was one are entered as they lie there. Raises InputError."""
    path = directory / ISSUED
    try:
        return [Issued(**entry) for entry in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        fix = "bring it back from your backup: without it nobody knows which certificates are revoked"
        raise InputError(str(path), "(file)", f"cannot be read: {error}", fix) from error


def entered(known: list[Issued], found: Iterable[tuple[str, x509.Certificate]]) -> list[Issued]:
    """The register with every found certificate in it."""
    serials = {entry.serial for entry in known}
    fresh = [entry_of(file, certificate) for file, certificate in found]
    return known + [entry for entry in fresh if entry.serial not in serials]


def revoked(known: list[Issued], serials: Iterable[str], now: datetime) -> list[Issued]:
    """The register with these certificates revoked now; one that is revoked already keeps its time."""
    wanted, moment = set(serials), now.isoformat()
    return [replace(entry, revoked=entry.revoked or moment) if entry.serial in wanted else entry for entry in known]


def serials_of(known: Iterable[Issued], file: str, but: str = "") -> list[str]:
    """Serial numbers of every certificate a file ever held, except one."""
    return [entry.serial for entry in known if entry.file == file and entry.serial != but]


def as_text(known: Iterable[Issued]) -> bytes:
    """The register's file."""
    return json.dumps([asdict(entry) for entry in known], indent=1).encode() + b"\n"


def revocation_list(
    authority: x509.Certificate, key: ec.EllipticCurvePrivateKey, known: Iterable[Issued], now: datetime
) -> bytes:
    """The signed list of every revoked certificate, valid as long as the authority."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(authority.not_valid_after_utc)
    )
    for entry in known:
        if entry.revoked:
            one = x509.RevokedCertificateBuilder().serial_number(int(entry.serial, 16))
            builder = builder.add_revoked_certificate(
                one.revocation_date(datetime.fromisoformat(entry.revoked)).build()
            )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def says(path: Path, authority: x509.Certificate, known: Iterable[Issued]) -> bool:
    """Does the list on the disk come from this authority and name exactly what the register does?"""
    try:
        listed = x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError):
        return False
    public = authority.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not listed.is_signature_valid(public):
        return False
    return {f"{one.serial_number:x}" for one in listed} == {entry.serial for entry in known if entry.revoked}


def ends(known: Iterable[Issued], current: Mapping[str, str]) -> dict[str, int]:
    """{file: epoch s} when each current certificate ends; a revoked one has no end to wait for."""
    return {
        entry.file: int(datetime.fromisoformat(entry.not_after).timestamp())
        for entry in known
        if current.get(entry.file) == entry.serial and not entry.revoked
    }
