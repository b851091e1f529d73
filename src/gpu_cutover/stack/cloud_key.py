"""The cloud providers' keys: one file on the controller, `NAME=value` lines, 0600. Never in a log or a diff."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError

FILE = Path(".state") / "cloud_api_key"
TWIN_KEY = "sk-twin-stand-in"


def ensure(path: Path, variables: Sequence[str], stage: str, write: bool = True) -> bool:
    """Check the file; on a twin make it with stand-in keys when it is missing. Returns whether it was made.

    Raises InputError when a production site has no file, when others may read it, or when a key is missing.
    """
    if not path.exists() and stage == "twin":
        if write:
            _write(path, "".join(f"{name}={TWIN_KEY}\n" for name in variables))
        return True
    lines = " and ".join(f"{name}=..." for name in variables)
    if not path.exists():
        raise InputError(str(path), "file", "the cloud's keys are not there", f"write {lines} to it, then chmod 600")
    if path.stat().st_mode & 0o077:
        raise InputError(str(path), "mode", "others may read the cloud's keys", f"chmod 600 {path}")
    missing = [name for name in variables if not _has(path, name)]
    if missing:
        raise InputError(str(path), ", ".join(missing), "no value", f"one line each: {lines}")
    return False


def _has(path: Path, name: str) -> bool:
    return any(line.startswith(f"{name}=") and line.strip() != f"{name}=" for line in path.read_text().splitlines())


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(content)
    fresh.replace(path)
