"""The page from its template. No link, no request: everything is in the one file, and one small script, by its hash."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from .content import build
from .gather import Sources

# A link into a closed day opens it, and so does printing; without scripts the days open by hand.
SCRIPT = (
    "(()=>{const open=()=>{const part=location.hash.length>1&&document.getElementById(location.hash.slice(1));"
    "const day=part&&part.closest('details');if(day){day.open=true;day.scrollIntoView()}};"
    "addEventListener('hashchange',open);open();"
    "document.addEventListener('click',e=>{const a=e.target.closest('a[href^=\"#\"]');if(a)setTimeout(open)});"
    "addEventListener('beforeprint',()=>document.querySelectorAll('details').forEach(d=>{d.open=true}))})();"
)


def render(sources: Sources) -> str:
    """The whole HTML page."""
    from jinja2 import Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    def breakable(words: str) -> Markup:
        """Long names of settings may break after a dot or an underscore."""
        return Markup(str(escape(words)).replace("_", "_<wbr>").replace(".", ".<wbr>"))

    folder = files(__package__)
    environment = Environment(
        autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = Markup((folder / "report.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    script = {"script": Markup(SCRIPT), "script_hash": Markup(f"sha256-{digest}")}
    return template.render(**build(sources), **script, style=style, svg=Markup)
