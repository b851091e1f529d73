"""`gpu-cutover plan -i SITE [--tier T] [--demand soap=24] [--json] [--html FILE]`: does this site hold, on paper?

`plan scale` is in `scale_command.py`.

This file prints, writes the page and reads the clock; what it calls is pure.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_FAIL, EXIT_HOLD, InputError
from . import scale_command

EXITS = {"met": EXIT_DONE, "at risk": EXIT_HOLD, "impossible": EXIT_FAIL}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan`, and `plan scale` with its own."""
    parser.add_argument("-i", "--inventory", type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("--tier", metavar="T", help="judge it on this tier, with the models that fit there best")
    parser.add_argument(
        "--demand",
        action="append",
        default=[],
        metavar="WORK=N",
        help="sessions at once: soap, chat, audio, vision, reason; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print plain data instead of text")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write one self-contained page")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    scale = "the hospital's scaling framework beside arithmetic: up or out, with what, at which price"
    scale_command.add_arguments(verbs.add_parser("scale", help=scale, description=scale.capitalize() + "."))


def run(args: argparse.Namespace) -> int:
    """Print the plan: 0 when every target is met, 10 when one is at risk, 20 when one is impossible.

    Raises InputError (exit 2) for a site that is not valid, an unknown tier or demand, a page that cannot be written.
    """
    if args.verb == "scale":
        return scale_command.run(args)
    plan = answer(args)
    if args.html:
        from .plan_page import render

        write(args.html, render(plan))
    print(json.dumps(plan, indent=2) if args.json else text(plan))
    return EXITS[plan["verdict"]]


def answer(args: argparse.Namespace) -> dict[str, Any]:
    """The plan of the named site, as plain data."""
    if args.inventory is None:
        raise InputError("gpu-cutover plan", "-i", "is missing", "name the site's directory")
    from ..catalog import load_catalog
    from ..site.load import load_site
    from .plan import Question, make

    site = load_site(args.inventory)
    return make(Question(site, args.tier or site.spec.tier, asked(args.demand), date.today()), load_catalog())


def asked(words: Sequence[str]) -> dict[str, int]:
    """`soap=24` as a number of sessions; the last one of a kind counts."""
    found: dict[str, int] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if not equals or not number.isdecimal():
            raise InputError("--demand", word, "is not a kind of work and a number", "write it as soap=24")
        found[name] = int(number)
    return found


def text(plan: dict[str, Any]) -> str:
    """The plan for a terminal."""
    from .plan_text import lines

    return "\n".join(lines(plan))


def write(path: Path, page: str) -> None:
    """Write a page that anybody may read, whole or not at all. Raises InputError where that cannot be done."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            str(path), "--html", error.strerror or str(error), "name a file in a writable folder"
        ) from error
