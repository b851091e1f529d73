"""`gpu-cutover bundle build -i SITE` and `gpu-cutover bundle verify DIR`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from ..errors import EXIT_DONE, InputError
from . import manifest
from .build import LOCKS, Bundle, Parts, build

CACHE = "/var/cache/gpu-cutover"
# Who adds to the bundle of a stage, by name: this room knows no stand-in.
SUPPLIERS = {"twin": "gpu_cutover.twin.parts"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`build` and `verify`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    make = actions.add_parser("build", help="download what is missing and put the bundle together")
    make.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site directory")
    make.add_argument("--suite", default=None, help="twin: the Debian release of the hosts (default: the twin's)")
    check = actions.add_parser("verify", help="check every file of a bundle against its SHA256SUMS")
    check.add_argument("directory", type=Path, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Carry out one action; raises InputError."""
    started = time.monotonic()
    if arguments.action == "verify":
        count = manifest.verify(arguments.directory)
        print(f"bundle {arguments.directory}: {count} files, all as listed ({time.monotonic() - started:.1f} s)")
        return EXIT_DONE
    bundle = build_for(arguments.inventory, arguments.suite)
    how = "built" if bundle.built else "up to date"
    print(f"bundle {bundle.path}: {how} ({time.monotonic() - started:.1f} s), SHA256SUMS {bundle.digest[:12]}")
    return EXIT_DONE


def cache_directory() -> Path:
    """Where downloads and bundles are kept; GPU_CUTOVER_CACHE overrides it."""
    return Path(os.environ.get("GPU_CUTOVER_CACHE") or CACHE)


def build_for(site_dir: Path, suite: str | None = None) -> Bundle:
    """Build (or find) the bundle of a site and write `.state/bundle.json` {path, digest}; raises InputError."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / "pyproject.toml").is_file():
        raise InputError(
            str(checkout), "checkout", "is not a checkout of this project", "run from a checkout (pip install -e .)"
        )
    site = read_site(site_dir)
    bundle = build(checkout, cache_directory(), parts_of(site_dir, site, checkout, suite))
    state = site_dir / ".state"
    state.mkdir(mode=0o700, exist_ok=True)
    target = state / "bundle.json"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps({"path": str(bundle.path), "digest": bundle.digest}) + "\n")
    temporary.replace(target)
    return bundle


def read_site(site_dir: Path) -> dict[str, object]:
    """The validated site as plain data; raises InputError."""
    from ..site import load_site

    return load_site(site_dir).declared()


def parts_of(site_dir: Path, site: dict[str, object], checkout: Path, suite: str | None) -> Parts:
    """What the site's stage puts in: production the locked wheels (vendor packages and weights are the site's to add),
    the twin its stand-ins as well.
    """
    locks = {name: checkout / "requirements" / f"{name}.lock" for name in LOCKS}
    supplier = SUPPLIERS.get(str(site["stage"]))
    if supplier is None:
        return Parts(locks=locks)
    print("bundle: collecting packages and wheels (first time: a few minutes)", file=sys.stderr, flush=True)
    parts: Parts = importlib.import_module(supplier).bundle_parts(
        site_dir, site, checkout, cache_directory(), locks, suite
    )
    return parts
