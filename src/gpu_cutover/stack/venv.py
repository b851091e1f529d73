"""A Python environment from a hash lock, offline: what the lock asks for, what the bundle has, which release results.

`DIR` is a symbolic link to `DIR-<digest>`, so an environment is switched by one rename and the previous one stays for
a rollback. The digest covers the lock (which holds the hash of every wheel) and the interpreter: equal digest, equal
environment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

DIGEST_LENGTH = 12
_PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)\s*(?P<marker>;[^\\]*)?"
)
_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True)
class Pin:
    """One locked distribution; `conditional` when an environment marker decides whether it is wanted here."""

    name: str
    version: str
    conditional: bool


def pins(lock: str) -> list[Pin]:
    """The `name==version` lines of a lock, in order; comments, options and hash lines are passed over."""
    found = []
    for line in lock.splitlines():
        match = _PINNED.match(line)
        if match:
            found.append(Pin(match["name"], match["version"], bool(match["marker"])))
    return found


def _wheel_key(name: str, version: str) -> tuple[str, str]:
    return _SEPARATORS.sub("_", name).lower(), _SEPARATORS.sub("_", version).lower()


def missing_wheels(lock: str, file_names: Iterable[str]) -> list[str]:
    """Unconditional pins for which no wheel lies in the bundle, as `name==version`.

    Whether a wheel's tags and hash fit is the installer's business; this answers first, with names a person can act on.
    """
    present = set()
    for file_name in file_names:
        parts = PurePosixPath(file_name).name.split("-")
        if file_name.endswith(".whl") and len(parts) >= 5:
            present.add(_wheel_key(parts[0], parts[1]))
    return [
        f"{pin.name}=={pin.version}"
        for pin in pins(lock)
        if not pin.conditional and _wheel_key(pin.name, pin.version) not in present
    ]


def release_digest(lock: bytes, interpreter: str, links: Mapping[str, str]) -> str:
    """Digest of what the environment will hold: the lock, the interpreter's path and full version, the links."""
    rest = json.dumps([interpreter, dict(links)], sort_keys=True)
    return hashlib.sha256(lock + b"\0" + rest.encode()).hexdigest()[:DIGEST_LENGTH]


def release_path(directory: str, digest: str) -> str:
    """Where the environment of this digest lives; `directory` links to it."""
    return f"{directory}-{digest}"


def create_command(uv: str, python: str, release: str) -> list[str]:
    """Make the empty environment. Never reads a configuration file or the network."""
    return [uv, "venv", "--quiet", "--offline", "--no-config", "--clear", "--python", python, release]


def install_command(uv: str, release: str, wheels: str, lock: str, cache: str) -> list[str]:
    """Install exactly the lock. `--no-deps` is absent on purpose: the resolver then refuses a lock that is not closed.

    `cache` must be on the same file system as the release: wheels are unpacked there and linked, not copied.
    """
    return [
        uv, "pip", "install", "--quiet", "--offline", "--no-config", "--no-index",
        "--python", f"{release}/bin/python", "--find-links", wheels, "--cache-dir", cache,
        "--require-hashes", "--compile-bytecode", "-r", lock,
    ]  # fmt: skip
