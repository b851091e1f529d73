"""Reading the catalog's data files: plain data, then typed entries; a wrong one is told with file, key and problem.

An entry has a source: either every value is a leaf `{value, source}`, or one `source` stands for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import date
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import yaml

from ..errors import InputError

DIRECTORY = Path(__file__).parent
T = TypeVar("T")
Reader = Callable[[str, Mapping[str, Any]], T]  # name of the entry, its content

_TYPES: Mapping[str, Any] = {"int": int, "float": int | float, "str": str, "bool": bool, "None": NoneType}
_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": lambda text: text.lower() in ("true", "yes", "on"),
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:timestamp": date.fromisoformat,
}


class EntryError(Exception):
    """One wrong key of an entry."""

    def __init__(self, key: object, problem: str) -> None:
        super().__init__(f"{key} {problem}")
        self.key, self.problem = str(key), problem


def read_file(name: str, directory: Path = DIRECTORY) -> dict[str, Any]:
    """A file of the catalog as plain data. Raises InputError for what is no table, or names a key twice."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = _value(yaml.compose((directory / name).read_bytes(), Loader=loader))
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"catalog/{name}", "(whole file)", problem, "correct the YAML") from None
    except EntryError as wrong:
        raise InputError(f"catalog/{name}", wrong.key, wrong.problem, "keep one of them") from None
    if not isinstance(document, dict):
        raise InputError(f"catalog/{name}", "(whole file)", "is not a table of entries", "see docs/catalog.md")
    return document


def _value(node: Any) -> Any:
    """Plain data of a YAML node. Half the time of yaml.load, and it tells a key that stands twice."""
    if isinstance(node, yaml.MappingNode):
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise ValueError(f"a key that is no word, in line {node.start_mark.line + 1}")
        pairs = {_value(key): _value(value) for key, value in node.value}
        if len(pairs) < len(node.value):
            keys = [key.value for key, _ in node.value]
            raise EntryError(next(key for key in keys if keys.count(key) > 1), "stands here twice")
        return pairs
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _SCALARS.get(node.tag, str)(node.value) if node else None


def _is_leaf(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) == {"value", "source"}


def _split(entry: Mapping[Any, Any], above: str = "") -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Values and sources of `{key: {value, source}}`, one level of nesting allowed."""
    values: dict[Any, Any] = {}
    sources: dict[Any, Any] = {}
    for key, leaf in entry.items():
        if not isinstance(leaf, dict):
            raise EntryError(f"{above}{key}", "has no source: write {value: …, source: …}")
        inner = (leaf["value"], leaf["source"]) if _is_leaf(leaf) else _split(leaf, f"{above}{key}.")
        values[key], sources[key] = inner
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}, sources


def sourced(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an entry of leaves, and under `sources` where each comes from."""
    values, sources = _split(entry)
    return {**values, "sources": sources}


@cache
def _fields(cls: Callable[..., Any]) -> Mapping[str, tuple[bool, tuple[Any, ...], str]]:
    """By field: whether it must be there, the types its annotation allows, and the annotation."""
    return {
        field.name: (
            field.default is MISSING,
            tuple(_TYPES.get(name, object) for name in str(field.type).split(" | ")),
            str(field.type),
        )
        for field in fields(cls)  # type: ignore[arg-type]
    }


def built(cls: Callable[..., T], values: Any, positive: Sequence[str] = ()) -> T:
    """A dataclass from its values: each must be there, known, of the annotated type; those of `positive` above 0."""
    if not isinstance(values, dict):
        raise EntryError("(whole entry)", "is not a table")
    known = _fields(cls)
    for key in values:
        if key not in known:
            raise EntryError(key, f"is not known here; known are {', '.join(known)}")
    for key, (needed, types, annotation) in known.items():
        if key not in values:
            if needed:
                raise EntryError(key, "is missing")
        elif not isinstance(values[key], types):
            raise EntryError(key, f"{values[key]!r} is not of type {annotation}")
    for key in positive:
        if values[key] <= 0:
            raise EntryError(key, f"{values[key]} is not above 0")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def leaves(cls: Callable[..., T], *positive: str) -> Reader[T]:
    """Reads entries whose every value is `{value, source}`; values of `positive` must be above 0."""
    return lambda name, entry: built(cls, sourced(entry), positive)


def whole(cls: Callable[..., T]) -> Reader[T]:
    """Reads entries with one source for all values."""
    return lambda name, entry: built(cls, entry)


def read_entry(file: str, name: str, entry: Any, read: Reader[T]) -> T:
    """An entry of a file through its reader. Raises InputError for one that is incomplete, misspelt or unsourced."""
    try:
        if not isinstance(entry, dict):
            raise EntryError("(whole entry)", "is not a table")
        return read(name, entry)
    except EntryError as wrong:
        fix = "compare with the other entries of the file (docs/catalog.md)"
        raise InputError(f"catalog/{file}", f"{name}.{wrong.key}", wrong.problem, fix) from None
