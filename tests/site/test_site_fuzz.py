"""Whatever stands in the files: a `Site`, or one `InputError`. Never a traceback."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from site_lab import PARTS, SITE_FILE, TWIN, copy_site

from gpu_cutover.errors import InputError
from gpu_cutover.planning.derive import derive
from gpu_cutover.site import load_site

DOCUMENTS = {part: yaml.safe_load((TWIN / part).read_text()) for part in PARTS}
NAMES = st.sampled_from(
    [
        "doc-zam",
        "chat",
        "cloud",
        "onprem",
        "sensitive",
        "cloud_only",
        "healthy",
        "without-gpu1",
        "bge-m3",
        "l40s-4",
        "580",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.dates()
    | st.text(max_size=20)
    | NAMES
    | st.binary(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | NAMES | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@contextmanager
def site() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield copy_site(Path(directory))


def loads_or_tells(directory: Path) -> None:
    try:
        loaded = load_site(directory)
    except InputError as error:
        assert error.file and error.key and error.problem and error.fix
        assert "\n" not in str(error)
    else:
        assert derive(loaded)["name"] == loaded.spec.name


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, the root too."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


PLACES = {part: list(places(document)) for part, document in DOCUMENTS.items()}


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Path, Any]:
    """A document with up to three places removed, replaced or given an unknown key."""
    part = draw(st.sampled_from([SITE_FILE, SITE_FILE, SITE_FILE, *PARTS]))
    document = copy.deepcopy(DOCUMENTS[part])
    for _ in range(draw(st.integers(1, 3))):
        document = mutate(document, draw(st.sampled_from(PLACES[part])), draw)
    return part, document


def mutate(document: Any, path: tuple[Any, ...], draw: st.DrawFn) -> Any:
    if not path:
        return draw(VALUES)
    target = document
    for key in path[:-1]:
        try:
            target = target[key]
        except (KeyError, IndexError, TypeError):
            return document
    how = draw(st.sampled_from(["replace", "remove", "add", "similar"]))
    if not isinstance(target, dict | list):
        return document
    try:
        if how == "remove":
            del target[path[-1]]
        elif how == "add" and isinstance(target[path[-1]], dict):
            target[path[-1]][draw(st.text(max_size=8) | NAMES)] = draw(VALUES)
        elif how == "similar" and isinstance(target[path[-1]], int | float | str):
            target[path[-1]] = draw(similar(target[path[-1]]))
        else:
            target[path[-1]] = draw(VALUES)
    except (KeyError, IndexError, TypeError):  # an earlier mutation took the place away
        return document
    return document


def similar(value: Any) -> st.SearchStrategy[Any]:
    """A value of the same type, so that the deeper rules are reached."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-2, 10) | st.integers(0, 200_000)
    return st.floats(0, 100) if isinstance(value, float) else NAMES


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_a_mutated_document_loads_or_is_told(case: tuple[Path, Any]) -> None:
    part, document = case
    with site() as directory:
        (directory / part).write_text(yaml.dump(document, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        loads_or_tells(directory)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*PARTS, Path("records/models.lock.json")]), st.binary(max_size=200))
def test_random_bytes_are_told(part: Path, content: bytes) -> None:
    with site() as directory:
        (directory / part).write_bytes(content)
        loads_or_tells(directory)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PARTS), st.data())
def test_a_file_with_bytes_changed_loads_or_is_told(part: Path, data: st.DataObject) -> None:
    content = bytearray((TWIN / part).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 20))
        content[place : place + cut] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"{", b"]", b": ", b"&a ", b"*a", b"\n"])
        )
    with site() as directory:
        (directory / part).write_bytes(bytes(content))
        loads_or_tells(directory)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=10), VALUES, max_size=4))
def test_any_yaml_document_is_told(document: dict[str, Any]) -> None:
    with site() as directory:
        (directory / SITE_FILE).write_text(yaml.dump({"site": document}), encoding="utf-8", errors="surrogatepass")
        loads_or_tells(directory)
