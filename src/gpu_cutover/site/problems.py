"""How a wrong declaration is told: the key, what is wrong with it, how to put it right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file; `key` is dotted."""

    key: str
    problem: str
    fix: str


def nearest(name: object, known: Iterable[str]) -> str:
    """A fix for an unknown name: the most similar known one, else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return "use one of " + ", ".join(names) if names else "declare it first"


def shown(value: object) -> str:
    """A value as a message may quote it: one line, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(path: Sequence[object]) -> str:
    """`("site", "tenants", "a", 0)` → `site.tenants.a[0]`; a key that is no plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = str(part) if re.fullmatch(r"[\w.-]{1,80}", str(part)) else shown(part)
            text += f".{word}" if text else word
    return text or "(whole file)"
