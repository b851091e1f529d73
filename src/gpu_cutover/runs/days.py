"""Which playbooks are days or verbs, what they are called, and in which checkout they lie. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

DAYS: dict[int, str] = {
    1: "receive and rack",
    2: "cable and network",
    3: "OS and driver",
    4: "inference stack",
    5: "models and smoke",
    6: "burn-in",
    7: "monitor and recover",
    8: "mirror",
    9: "cut over the first tenant",
    10: "cut over all tenants",
}
VERBS = ("certificates", "derate", "restore", "cutover", "rollback", "hold")
_DAY_FILE = re.compile(r"day(\d\d)_[a-z0-9_]+\.yml")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a run is about: a day (1-10) or a verb (day None)."""

    name: str
    day: int | None

    @property
    def title(self) -> str:
        """For people: "day 4, inference stack" or "rollback"."""
        return f"day {self.day}, {DAYS[self.day]}" if self.day else self.name


def subject_of(playbook: Path) -> Subject | None:
    """The day or verb a playbook file is, or None (parts, molecule and other people's playbooks)."""
    match = _DAY_FILE.fullmatch(playbook.name)
    if match and int(match[1]) in DAYS:
        return Subject(playbook.stem, int(match[1]))
    return Subject(playbook.stem, None) if playbook.suffix == ".yml" and playbook.stem in VERBS else None


def checkout_of(site_dir: Path) -> Path:
    """The checkout whose playbooks run a site: the one the site lies in, else the one this package runs from.

    Raises InputError where there is none (an installed wheel carries no playbooks).
    """
    for folder in (*site_dir.resolve().parents, Path(__file__).resolve().parents[3]):
        if (folder / "ansible.cfg").is_file() and (folder / "playbooks").is_dir():
            return folder
    raise InputError(
        str(site_dir),
        "playbooks",
        "no checkout of gpu-cutover above this site, nor around the installed package",
        "keep the site under inventory/ of a checkout, or run the gpu-cutover of a checkout's .venv",
    )


def day_playbook(checkout: Path, day: int) -> Path:
    """`playbooks/dayNN_*.yml`. Raises InputError for a day out of range, a missing or an ambiguous file."""
    if day not in DAYS:
        raise InputError("command line", "day", f"{day} is not one of the ten days", "give a number from 1 to 10")
    found = sorted((checkout / "playbooks").glob(f"day{day:02}_*.yml"))
    if len(found) != 1:
        problem = "missing" if not found else "ambiguous: " + ", ".join(path.name for path in found)
        raise InputError(f"playbooks/day{day:02}_*.yml", "file", problem, "restore the checkout's playbooks")
    return found[0]


def verb_playbook(checkout: Path, verb: str) -> Path:
    """`playbooks/<verb>.yml`. Raises InputError for a word that is no verb or has no playbook."""
    path = checkout / "playbooks" / f"{verb}.yml"
    if verb not in VERBS or not path.is_file():
        known = ", ".join(name for name in VERBS if (checkout / "playbooks" / f"{name}.yml").is_file())
        raise InputError("command line", "NAME", f"no verb {verb!r}", f"use one of: {known or 'none present'}")
    return path


def require_site_dir(site_dir: Path) -> Path:
    """The directory itself, absolute. Raises InputError where it is not a site (no group_vars/all/site.yml)."""
    if not (site_dir / "group_vars" / "all" / "site.yml").is_file():
        raise InputError(
            str(site_dir),
            "inventory",
            "not a site: group_vars/all/site.yml is missing",
            "give the site's directory, for example -i inventory/twin",
        )
    return site_dir.absolute()
