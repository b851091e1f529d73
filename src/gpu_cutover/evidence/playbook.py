"""What the action plugins `open_day`, `gate` and `record` share: a site's directory and its records, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError


def site_dir_of(task_vars: Mapping[str, Any]) -> Path:
    """The site directory: where the inventory was read from. Raises InputError without one."""
    folder = task_vars.get("inventory_dir")
    if not folder:
        raise InputError("-i", "inventory", "no site directory", "give one with -i inventory/<site>")
    return Path(str(folder))


def plain(value: Any) -> Any:
    """Ansible's variables as plain JSON data: no lazy containers, no tagged strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def load_records(site_dir: Path) -> dict[str, Any]:
    """{file stem: content} of `records/*.yml`. Raises InputError for a file that is no YAML."""
    import yaml

    found = {}
    for path in sorted((site_dir / "records").glob("*.yml")):
        try:
            found[path.stem] = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            problem = " ".join(str(error).split())
            raise InputError(str(path), "file", f"cannot be read: {problem}", "give a YAML file") from error
    return found
