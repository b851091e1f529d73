"""Keys and envelopes: Ed25519 signatures in DSSE envelopes (securesystemslib).

Cryptography is imported inside the functions: reading the ledger must not pay for it.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .files import write_whole

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey


class BadEnvelopeError(ValueError):
    """An envelope that is not, byte for byte, what the ledger's key signed."""


def seal(payload: bytes, payload_type: str, signer: CryptoSigner) -> bytes:
    """The bytes of a DSSE envelope around `payload`, signed by `signer`."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(signer)
    return _encode(envelope.to_dict())


def unseal(content: bytes, payload_type: str, key: SSlibKey) -> bytes:
    """The signed payload of an envelope. Raises BadEnvelopeError when any byte is not as signed."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    try:
        envelope = Envelope.from_dict(json.loads(content))
        as_written = envelope.to_dict()
        envelope.verify([key], 1)
    except VerificationError as error:
        raise BadEnvelopeError("the signature does not match") from error
    except Exception as error:  # whatever a damaged file makes the decoder raise, it is damage
        raise BadEnvelopeError(f"not an envelope ({error.__class__.__name__})") from error
    if [set(signature) for signature in as_written["signatures"]] != [{"keyid", "sig"}]:
        raise BadEnvelopeError("more in the envelope than one signature")
    if envelope.payload_type != payload_type:
        raise BadEnvelopeError(f"payload type {envelope.payload_type!r}, not {payload_type!r}")
    if _encode(as_written) != content:
        raise BadEnvelopeError("bytes outside the signed payload were changed")
    return envelope.payload


def load_or_create_signer(key_file: Path) -> CryptoSigner:
    """The site's private key; made on first use with mode 0600 in a folder of mode 0700.

    Raises InputError when the file is readable by others or is no Ed25519 key.
    """
    from securesystemslib.signer import CryptoSigner

    if not key_file.exists():
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(key_file, CryptoSigner.generate_ed25519().private_bytes, 0o600)
    return load_signer(key_file)


def load_signer(key_file: Path) -> CryptoSigner:
    """The site's private key. Raises InputError when it is missing, readable by others or no Ed25519 key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        if stat.S_IMODE(key_file.stat().st_mode) & 0o077:
            raise InputError(str(key_file), "mode", "the ledger's private key is open to others", "chmod 600")
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as error:
        raise InputError(
            str(key_file),
            "private key",
            error.strerror or str(error),
            "restore the file: without it nothing can be added to this ledger",
        ) from error
    except (ValueError, TypeError) as error:
        raise InputError(
            str(key_file), "private key", "not a PEM private key", "restore the file from a copy"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(str(key_file), "private key", "not an Ed25519 key", "restore the file from a copy")
    return CryptoSigner(key)


def public_pem(signer: CryptoSigner) -> bytes:
    """The public key in PEM, the one form that is accepted in `ledger.pub`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"]))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def parse_public_key(content: bytes) -> SSlibKey:
    """The public key in `ledger.pub`. Raises BadEnvelopeError when the bytes are not its one PEM form."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        key = load_pem_public_key(content)
    except Exception as error:  # any damage, whatever the decoder makes of it
        raise BadEnvelopeError("not a PEM public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadEnvelopeError("not an Ed25519 key")
    if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != content:
        raise BadEnvelopeError("bytes around the key were changed")
    return SSlibKey.from_crypto(key)


def _encode(envelope: dict[str, Any]) -> bytes:
    return (json.dumps(envelope, indent=1, sort_keys=True) + "\n").encode()
