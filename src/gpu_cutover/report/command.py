"""`gpu-cutover report -i SITE -o FILE`: the ledger as one HTML file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..errors import EXIT_DONE, InputError
from ..runs.days import require_site_dir
from ..runs.record import stamp, write_private
from .page import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE -o FILE`."""
    parser.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the HTML file to write")


def run(args: argparse.Namespace) -> int:
    """0 when written, whatever it says. Raises InputError where it cannot be written or the ledger not be read."""
    path = write_report(require_site_dir(args.inventory), args.output)
    print(path)
    return EXIT_DONE


def write_report(site_dir: Path, output: Path) -> Path:
    """Write the report of a site, whole or not at all, readable by its owner; returns its absolute path."""
    from .gather import gather  # late: the site's and the ledger's libraries

    page = render(gather(site_dir, stamp(time.time())))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_private(output, page)
    except OSError as error:
        raise InputError(str(output), "-o", error.strerror or str(error), "name a file in a writable folder") from error
    return output.absolute()
