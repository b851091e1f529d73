"""The page from its template. No script, no link, no request: everything is in the one file."""

from __future__ import annotations

from importlib.resources import files

from .content import build
from .gather import Sources


def render(sources: Sources) -> str:
    """The whole HTML page."""
    from jinja2 import Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup

    folder = files(__package__)
    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = Markup((folder / "report.css").read_text(encoding="utf-8"))
    return template.render(**build(sources), style=style, svg=Markup)
