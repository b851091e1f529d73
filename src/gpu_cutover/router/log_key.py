"""The key that signs a pool's checkpoints: made once on the gateway, private to the pool's router.

`python -m gpu_cutover.router.log_key FILE` makes it where there is none, and `FILE` with the ending `.pub` beside it
(the public key, hex). The cryptography library is imported inside the functions: reading logs must not need it.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .chain import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DIRECTORY = Path("/etc/gpu-cutover/log-keys")


class LogKey:
    """A private key, ready to sign."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()
        self.id = key_id(self.public)

    def sign(self, payload: bytes) -> str:
        """The signature (hex)."""
        return self._key.sign(payload).hex()


def load(path: Path) -> LogKey:
    """The key in a file. Raises OSError, ValueError (no Ed25519 key, or open to others), ImportError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError("is open to others (chmod 600)")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:
        raise ValueError("has a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is no Ed25519 key")
    return LogKey(key)


def make(path: Path) -> LogKey:
    """The key in a file, made with mode 0600 where there is none. Raises as `load` does."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not path.exists():
        fresh_key = Ed25519PrivateKey.generate()
        _write(path, fresh_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    key = load(path)
    _write(path.with_suffix(".pub"), f"{key.public}\n".encode(), 0o644)
    return key


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as handle:
        os.fchmod(descriptor, mode)
        handle.write(content)
        handle.flush()
        os.fsync(descriptor)
    fresh.rename(path)


def verifies(public: str, payload: bytes, signature: str) -> bool:
    """Is this the signature (hex) of the key `public` (hex) under this payload?"""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError):
        return False
    return True


if __name__ == "__main__":
    make(Path(sys.argv[1]))
