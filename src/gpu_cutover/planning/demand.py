"""What must run at once: sessions of each kind of work and the context each keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..catalog import Catalog
from ..catalog.choices import Asked, load_choices
from ..errors import InputError
from ..site.model import Site
from ..site.problems import nearest, shown

MOST_SESSIONS = 1_000_000


@dataclass(frozen=True)
class Demand:
    """Sessions of one kind of work at once, and what each keeps in the cache: tokens; for audio, windows of 30 s."""

    name: str
    route: str
    sessions: int
    tokens: int

    @property
    def total(self) -> int:
        """Tokens (windows) of all sessions together."""
        return self.sessions * self.tokens


def demands(site: Site, catalog: Catalog, asked: Mapping[str, int] | None = None) -> tuple[Demand, ...]:
    """What the site's routes must carry at once, the most important first, notes before chats.

    Notes and chats are the site's targets (the accepted figure where one is restated), the rest is `choices.yml`;
    `asked` wins over both. Raises InputError for a name that is none of them, and for a number that is no number of
    sessions.
    """
    choices = load_choices()
    wanted = dict(asked or {})
    for name, sessions in wanted.items():
        if name not in choices.demand:
            raise InputError("--demand", shown(name), "is not a kind of work", nearest(name, choices.demand))
        if not 0 <= sessions <= MOST_SESSIONS:
            problem = f"{sessions} is not a number of sessions"
            raise InputError("--demand", name, problem, f"use 0 to {MOST_SESSIONS}")
    found = [
        Demand(name, entry.route, wanted.get(name, _sessions(site, entry)), entry.tokens)
        for name, entry in choices.demand.items()
        if entry.route in site.spec.routes
    ]
    return tuple(sorted(found, key=lambda demand: -choices.weights[demand.route]))


def _sessions(site: Site, entry: Asked) -> int:
    if entry.target is None:
        return entry.sessions or 0
    target = site.spec.targets[entry.target]
    return round(target.restated.accepted if target.restated else target.plan)
