"""What the planner chooses by: `choices.yml`, where every figure has its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .reading import EntryError, built, leaves, read_entry, read_file, sourced

FILE = "choices.yml"


@dataclass(frozen=True)
class Candidate:
    """A model that may answer a route; `formats` in order of quality, `max_model_len` in tokens."""

    model: str
    formats: tuple[str, ...]
    engine: str
    max_model_len: int
    source: str


@dataclass(frozen=True)
class Asked:
    """One kind of work: sessions at once (None: the site's target of that name) and the context of each.

    `tokens` are tokens of context; for a recording, windows of 30 s.
    """

    route: str
    tokens: int
    source: str
    sessions: int | None = None
    target: str | None = None


@dataclass(frozen=True)
class Worth:
    """Shares of a route's weight: what it is worth in `part` or by a `stand_in`, what it costs to be `interrupted`."""

    part: float
    stand_in: float
    interrupted: float
    sources: Mapping[str, Any]


@dataclass(frozen=True)
class Choices:
    """Weights of routes (larger counts more), worth, demand, and per route the candidates in order of quality."""

    weights: Mapping[str, int]
    worth: Worth
    demand: Mapping[str, Asked]
    candidates: Mapping[str, tuple[Candidate, ...]]


def _weights(name: str, entry: Mapping[str, Any]) -> Mapping[str, int]:
    values = {key: value for key, value in sourced(entry).items() if key != "sources"}
    for route, weight in values.items():
        if not isinstance(weight, int) or weight <= 0:
            raise EntryError(route, f"{weight!r} is not a whole number above 0")
    return values


def _worth(name: str, entry: Mapping[str, Any]) -> Worth:
    found = leaves(Worth)(name, entry)
    if not 0 < found.stand_in < found.part < 1:
        raise EntryError("stand_in", f"{found.stand_in} and part {found.part}: needed is 0 < stand_in < part < 1")
    if not 0 <= found.interrupted <= 1:
        raise EntryError("interrupted", f"{found.interrupted} is not between 0 and 1")
    return found


def _demand(name: str, entry: Mapping[str, Any]) -> Mapping[str, Asked]:
    return {key: built(Asked, value, ("tokens",)) for key, value in entry.items()}


def _candidates(name: str, entry: Mapping[str, Any]) -> Mapping[str, tuple[Candidate, ...]]:
    return {
        route: tuple(built(Candidate, {"model": model, **value}) for model, value in models.items())
        for route, models in entry.items()
    }


@cache
def load_choices() -> Choices:
    """Read `choices.yml` once (about 10 ms). Raises InputError for a wrong entry."""
    data = read_file(FILE)
    return Choices(
        weights=read_entry(FILE, "weights", data.get("weights"), _weights),
        worth=read_entry(FILE, "worth", data.get("worth"), _worth),
        demand=read_entry(FILE, "demand", data.get("demand"), _demand),
        candidates=read_entry(FILE, "candidates", data.get("candidates"), _candidates),
    )
