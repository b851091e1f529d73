"""One data file of the catalog that is not on everybody's path: `{key: {value, source}}`, read when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_sheet(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and sources of a file beside this module."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load((Path(__file__).parent / name).read_bytes(), Loader=loader)
    return (
        {key: entry["value"] for key, entry in entries.items()},
        {key: entry["source"] for key, entry in entries.items()},
    )
