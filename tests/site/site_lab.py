"""Site directories to break: copies of the twin's, with one thing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TWIN = ROOT / "inventory" / "twin"
SITE_FILE = Path("group_vars/all/site.yml")
PARTS = (SITE_FILE, Path("hosts.yml"), Path("records/purchase.yml"), Path("records/cabling.yml"))
LOCK = Path("records/models.lock.json")

Change = Callable[[dict[str, Any]], Any]


def copy_site(target: Path) -> Path:
    """The twin's declaration and records, without state and evidence."""
    for part in (*PARTS, LOCK):
        if (TWIN / part).exists():
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TWIN / part, target / part)
    return target


def change_file(directory: Path, part: Path, change: Change) -> Path:
    """Decode a file, change it, write it back."""
    data = yaml.safe_load((directory / part).read_text())
    change(data)
    (directory / part).write_text(yaml.safe_dump(data, sort_keys=False))
    return directory
