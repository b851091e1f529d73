"""From a file's bytes to a typed value; everything that can be wrong with a document becomes one InputError."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import InputError
from .problems import dotted, nearest, shown

LARGEST = 1024 * 1024  # bytes; a site is a few thousand
LARGEST_RECORD = 64 * 1024 * 1024  # a lock lists every file of every model


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, refusing keys written twice: YAML would keep the last one silently."""


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {shown(key)} is not text", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    pairs: dict[Hashable, Any] = yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=True)
    return pairs


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_bytes(path: Path, shown_path: str, limit: int, missing: str) -> bytes:
    """A file's content. Raises InputError when it is missing, unreadable or too large."""
    try:
        if path.stat().st_size > limit:
            raise InputError(
                shown_path, "(whole file)", f"is larger than {limit} bytes", "keep only declarations in it"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(shown_path, "(whole file)", "there is no such file", missing) from None
    except OSError as error:
        raise InputError(
            shown_path, "(whole file)", f"cannot be read: {error.strerror}", "correct its type and rights"
        ) from None


def document(content: bytes, file: str) -> Any:
    """Decode YAML or, for a name ending in .json, JSON. Raises InputError."""
    try:
        text = content.decode()
        return json.loads(text) if file.endswith(".json") else yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise InputError(file, f"byte {error.start}", "is not UTF-8", "save the file as UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(whole file)"
        raise InputError(
            file, where, _one_line(error.problem or error.context or "is not YAML"), "correct the line"
        ) from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(file, "(whole file)", _one_line(str(error)), "correct the file") from None
    except RecursionError:
        raise InputError(file, "(whole file)", "is nested too deeply", "write it flat") from None
    except (ValueError, TypeError, OverflowError) as error:  # a date like 2026-13-40, a number of 5,000 digits
        raise InputError(file, "(whole file)", _one_line(str(error)), "correct the value") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def typed(kind: Any, data: Any, file: str, prefix: tuple[str, ...]) -> Any:
    """Validate plain data as `kind` (a model or a type). Raises InputError about the first thing wrong."""
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise _told(error, kind, file, prefix) from None
    except RecursionError:
        raise InputError(file, dotted(prefix), "refers to itself", "write the value out") from None


def _told(error: ValidationError, kind: Any, file: str, prefix: tuple[str, ...]) -> InputError:
    """The first problem as a sentence; an unknown key goes first, because a misspelt key also leaves one missing."""
    found = error.errors(include_url=False, include_context=True)
    first = next((entry for entry in found if entry["type"] == "extra_forbidden"), found[0])
    path = [part for part in first["loc"] if part != "[key]"]
    key = dotted([*prefix, *path])
    if first["type"] == "extra_forbidden":
        return InputError(file, key, "is an unknown key", nearest(path[-1], _known(kind, path[:-1])))
    if first["type"] == "missing":
        return InputError(file, key, "is missing", _missing_fix(path))
    if first["type"] == "literal_error" and first["loc"][-1] == "[key]":
        return InputError(file, key, "is an unknown key", nearest(first["input"], _choices(first)))
    if first["type"] == "literal_error":
        return InputError(
            file, key, f"{shown(first['input'])} is not one of the choices", nearest(first["input"], _choices(first))
        )
    return InputError(file, key, f"{shown(first['input'])}: {_one_line(first['msg'])}", _fix(first))


def _choices(entry: Any) -> list[str]:
    return [part.strip(" '") for part in str(entry["ctx"]["expected"]).replace(" or ", ", ").split(",")]


def _missing_fix(path: list[Any]) -> str:
    hints = {
        "reason": "say why the plan's figure cannot hold, with the arithmetic",
        "by": "name the person who decided",
        "policy": "say where the tenant's data may go: standard, sensitive or cloud_only",
        "model": "name the model that answers the route",
    }
    return hints.get(str(path[-1]) if path else "", "declare it; src/gpu_cutover/site/README.md lists every key")


def _fix(entry: Any) -> str:
    kind = str(entry["type"])
    if kind.endswith("_type") or kind.endswith("_parsing"):
        return f"write {_article(kind.rsplit('_', 1)[0])}"
    pattern = (entry.get("ctx") or {}).get("pattern")
    return f"match {pattern}" if pattern else "correct the value"


def _article(kind: str) -> str:
    return {
        "string": "text (in quotes if it looks like a number)",
        "int": "a whole number without quotes",
        "float": "a number without quotes",
        "bool": "true or false",
        "dict": "a mapping",
        "model": "a mapping",
        "list": "a list",
        "date": "a date as 2026-12-24",
    }.get(kind, "a value of the right type")


def _known(kind: Any, path: list[Any]) -> list[str]:
    """The keys allowed at a path inside a type."""
    for part in path:
        kind = _inside(kind, part)
    model = _model_of(kind)
    return list(model.model_fields) if model else []


def _inside(kind: Any, part: Any) -> Any:
    model = _model_of(kind)
    if model is not None:
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = [argument for argument in get_args(kind) if argument is not type(None)]
    if get_origin(kind) in (dict, list):
        return arguments[-1]
    return _inside(arguments[0], part) if arguments else None


def _model_of(kind: Any) -> type[BaseModel] | None:
    candidates = (kind, *get_args(kind))
    if get_origin(kind) in (dict, list):
        return None
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
