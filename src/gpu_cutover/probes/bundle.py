"""Is the offline bundle there, mounted read-only, and does apt already know its packages?"""

from __future__ import annotations

import filecmp
import os
from pathlib import Path
from typing import Any

APT_LISTS = Path("/var/lib/apt/lists")


def read_only(path: Path) -> bool:
    """True when the file system under `path` cannot be written, whoever tries. Raises OSError."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def apt_is_current(packages: Path, lists: Path = APT_LISTS) -> bool:
    """True when apt's list of the repository beside `packages` (its `Packages` file) is the present one."""
    name = "_".join((*packages.parent.parts[1:], "._Packages"))
    cached = lists / f"_{name}"
    return cached.is_file() and packages.is_file() and filecmp.cmp(cached, packages, shallow=False)


def describe(root: Path) -> dict[str, Any]:
    """{read_only, apt_current}, or {error} where nothing is mounted."""
    try:
        locked = read_only(root)
    except OSError as error:
        return {"error": f"{root}: {error.strerror or error}"}
    return {"read_only": locked, "apt_current": apt_is_current(root / "debs" / "Packages")}
