"""The plan as one self-contained page: no link, no request, no script. Pure but for reading its own template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from . import plan_picture as picture
from . import plan_text as text

UNIT = re.compile(r"(?<=[0-9]) (?=(?:s|ms|h|min|%|W|kWh|GiB|GB|TB)\b|%)")


def tied(words: str) -> str:
    """A figure and its unit stay on one line."""
    return UNIT.sub("\u00a0", words)


def render(plan: Mapping[str, Any]) -> str:
    """The whole HTML page."""
    from jinja2 import Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"sentence": text.sentence, "tied": tied}
    colour = picture.colours(plan)
    folder = files(__package__)
    return environment.from_string((folder / "plan.html.j2").read_text(encoding="utf-8")).render(
        plan=plan,
        style=Markup((folder / "plan.css").read_text(encoding="utf-8")),
        headline=text.headline(plan),
        accepted=text.accepted(plan),
        demand=text.demand(plan),
        figure=text.figure,
        answers=text.answers,
        lost_routes=text.lost_routes,
        draw=lambda placement: Markup(picture.picture(placement, colour)),
        legend=lambda placements: picture.legend(plan, list(placements)),
        lost=[one for one in plan["placements"].values() if one["lost"] is not None],
        changes=_by_target(plan),
    )


def _by_target(plan: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Each target that does not hold with what would change it."""
    return [
        (target, [change for change in plan["changes"] if change["target"] == target["name"]])
        for target in plan["targets"]
        if any(change["target"] == target["name"] for change in plan["changes"])
    ]
