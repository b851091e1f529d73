"""Engines × CUDA × driver branch × operating system: `compat.yml`, and the offered branches of `drivers.yml`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from . import load_catalog
from .reading import leaves, read_entry, read_file, sourced, whole

T = TypeVar("T")


@dataclass(frozen=True)
class Branch:
    """A driver branch. `end_of_life` is `YYYY-MM`, None where unknown; `ended`: known to be over, month unknown."""

    kind: str
    end_of_life: str | None
    ended: bool
    max_cuda_major: int
    source: str


@dataclass(frozen=True)
class System:
    """An operating system: first CUDA in NVIDIA's repository for it, end of support (`YYYY-MM`), its Python."""

    first_cuda: str
    end_of_life: str
    python: str
    source: str


@dataclass(frozen=True)
class Release:
    """A release of an engine: the CUDA and cuDNN it carries, the Python it needs at least (None: nothing said)."""

    cuda: str
    cudnn: str | None
    python: str | None
    source: str


@dataclass(frozen=True)
class AsPlanned:
    """What the plan says about software versions."""

    cuda: str
    system: str
    branch_kind: str
    driver_remedy: str
    host_cudnn: bool
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Matrix:
    """`cuda`: toolkit → first driver; `minor_version`: CUDA major → first branch; `pins`: what the bundle carries."""

    cuda: Mapping[str, str]
    minor_version: Mapping[int, int]
    branches: Mapping[str, Branch]
    systems: Mapping[str, System]
    engines: Mapping[str, Mapping[str, Release]]
    pins: Mapping[str, str]
    plan: AsPlanned
    sources: Mapping[str, Any]


FILE = "compat.yml"


@cache
def load_compat() -> Matrix:
    """Read `compat.yml` once (about 6 ms). Raises InputError for an entry that is incomplete or misspelt."""
    tables = read_file(FILE)
    cuda, minor, pins = (sourced(tables[name]) for name in ("cuda", "minor_version", "pins"))
    return Matrix(
        sources={"cuda": cuda.pop("sources"), "minor_version": minor.pop("sources"), "pins": pins.pop("sources")},
        cuda=cuda,
        minor_version={int(major): branch for major, branch in minor.items()},
        branches={**_entries(Branch, tables["branches"]), **_offered()},
        systems=_entries(System, tables["systems"]),
        engines={name: _entries(Release, releases) for name, releases in tables["engines"].items()},
        pins=pins,
        plan=read_entry(FILE, "plan", tables["plan"], leaves(AsPlanned)),
    )


def _entries(cls: Callable[..., T], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, T]:
    return {name: read_entry(FILE, name, entry, whole(cls)) for name, entry in entries.items()}


def _offered() -> dict[str, Branch]:
    """The branches of drivers.yml, which nobody need write down twice."""
    return {
        name: Branch(known.kind, known.end_of_life, False, known.max_cuda_major, str(known.sources["end_of_life"]))
        for name, known in load_catalog().drivers.items()
    }
