"""`SHA256SUMS`: one line per file of the bundle, in the format that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import InputError

MANIFEST = "SHA256SUMS"
REBUILD = "build the bundle again with `gpu-cutover bundle build -i SITE`, or copy it again from its source"
_THREADS = 2  # hashing releases the interpreter lock; two threads read a 400 MB bundle in about half a second


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(root: Path) -> list[Path]:
    """All regular files below `root` but the manifest itself, relative and sorted."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if str(path) != MANIFEST)


def write_manifest(root: Path) -> str:
    """Write the list of digests; return the digest of the list, which names the bundle's content."""
    names = files_below(root)
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(lambda name: sha256_of(root / name), names))
    (root / MANIFEST).write_text("".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)))
    return sha256_of(root / MANIFEST)


def read_manifest(root: Path) -> dict[str, str]:
    """Path → digest. Raises InputError when the list is missing or not one."""
    path = root / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "file", f"cannot be read ({error})", REBUILD) from error
    listed: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or name.startswith("/") or ".." in Path(name).parts:
            raise InputError(str(path), f"line {number}", "is not `<sha256>  <relative path>`", REBUILD)
        listed[name] = digest
    return listed


def verify(root: Path) -> int:
    """Check every file against the list and return how many there are.

    Raises InputError naming the first file that is missing, altered, or present but not listed.
    """
    listed = read_manifest(root)
    present = {str(name) for name in files_below(root)}
    for name in sorted(set(listed) - present):
        raise InputError(str(root), name, "is listed in SHA256SUMS but missing", REBUILD)
    for name in sorted(present - set(listed)):
        raise InputError(str(root), name, "is not listed in SHA256SUMS", REBUILD)
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: sha256_of(root / name), sorted(listed))
        for name, digest in zip(sorted(listed), digests, strict=True):
            if digest != listed[name]:
                raise InputError(
                    str(root), name, f"was altered: sha256 {digest[:12]}…, not {listed[name][:12]}…", REBUILD
                )
    return len(listed)
