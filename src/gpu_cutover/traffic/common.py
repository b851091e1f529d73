"""What `cutover`, `rollback` and `route set` share: their arguments, and the way through Ansible."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

REASON = "ordered"


def add_change_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE` and how the change is made."""
    parser.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("--reason", default=REASON, metavar="WORDS", help="why, for the record")
    parser.add_argument("--degraded", action="store_true", help="act although a gateway cannot be reached")
    parser.add_argument("--check", action="store_true", help="dry run: predict, change and record nothing")
    parser.add_argument(
        "--ask",
        dest="how",
        action="store_const",
        const="ask",
        default="fast",
        help="put a small question to every leg first (seconds), instead of only looking whether it answers",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before starting")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON on stdout")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--ansible", action="store_true", help="through Ansible: the site's lock, a run's log")
    way.add_argument("--direct", action="store_true", help="straight to the gateways, without Ansible")


def through_ansible(site_dir: Path, verb: str, variables: Mapping[str, str], args: argparse.Namespace) -> int:
    """The same change by the playbook of this name. Raises Refused and InputError as a day does."""
    from ..runs.play_command import known_of, run_verb
    from ..runs.start import tell
    from ..runs.verbs import check_variables
    from ..site import load_site

    check_variables(verb, variables, known_of(load_site(site_dir)))
    stream = sys.stderr if args.json else sys.stdout
    finished, subject = run_verb(site_dir, verb, variables, stream, check=args.check)
    return tell(finished, subject, site_dir, args.json, stream)
