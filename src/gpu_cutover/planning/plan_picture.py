"""A placement as a picture: one bar per GPU, one colour per model, SVG without any request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, BAR, ROW, TOP = 360, 2, 26, 48, 16
LETTER = 6.4  # pixels of one letter at 11 px, generously
PARTS = (("weights_gib", 1.0), ("activations_gib", 0.7), ("cache_gib", 0.4))
WORDS = {"weights_gib": "weights", "activations_gib": "activations", "cache_gib": "cache"}


def colours(plan: Mapping[str, Any]) -> dict[str, int]:
    """Model → number of its colour, the same in every picture of the plan."""
    placements = [*plan["placements"].values()]
    placements += [one for tier in plan["tiers"].values() for one in tier["placements"].values()]
    models = {placed["model"] for placement in placements for placed in placement["models"]}
    return {model: index % 10 for index, model in enumerate(sorted(models))}


def picture(placement: Mapping[str, Any], colour: Mapping[str, int]) -> str:
    """The placement as SVG, 360 units wide; the alternative text says the same in words."""
    rows = placement["memory"]
    height = len(rows) * ROW + 2
    body = "".join(_row(gpu, index, placement["lost"], colour) for index, gpu in enumerate(rows))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(words(placement), quote=True)}"'
        f' xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def words(placement: Mapping[str, Any]) -> str:
    """What the picture shows: each GPU's models and memory."""
    return "; ".join(
        f"GPU {gpu['gpu']} lost" if gpu["gpu"] == placement["lost"] else f"GPU {gpu['gpu']} {_who(gpu)}, {_used(gpu)}"
        for gpu in placement["memory"]
    )


def _who(gpu: Mapping[str, Any]) -> str:
    return ", ".join(engine["model"] for engine in gpu["engines"]) or "free"


def _used(gpu: Mapping[str, Any]) -> str:
    return f"{gpu['used_gib']:.1f} of {gpu['budget_gib']:.1f} GiB"


def _row(gpu: Mapping[str, Any], index: int, lost: int | None, colour: Mapping[str, int]) -> str:
    top = index * ROW + TOP
    is_lost = gpu["gpu"] == lost
    label = f'<text x="{LEFT}" y="{top - 4}" class="strong">GPU {gpu["gpu"]}</text>'
    look = "lost" if is_lost else "free"
    outline = f'<rect x="{LEFT}" y="{top}" width="{WIDTH - 2 * LEFT}" height="{BAR}" class="{look}"/>'
    if is_lost:
        return f'{label}{outline}<text x="{WIDTH / 2}" y="{top + 17}" text-anchor="middle">lost</text>'
    used = f'<text x="{WIDTH - LEFT}" y="{top - 4}" text-anchor="end">{_used(gpu)}</text>'
    return label + used + outline + _engines(gpu, top, colour)


def _engines(gpu: Mapping[str, Any], top: int, colour: Mapping[str, int]) -> str:
    scale = (WIDTH - 2 * LEFT) / gpu["budget_gib"]
    drawn, x = "", float(LEFT)
    for engine in gpu["engines"]:
        begin = x
        for part, strength in PARTS:
            wide = engine[part] * scale
            title = f"{engine['model']}: {engine[part]:.1f} GiB of {WORDS[part]}"
            drawn += (
                f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{BAR}" class="m{colour[engine["model"]]}"'
                f' opacity="{strength}"><title>{escape(title)}</title></rect>'
            )
            x += wide
        drawn += _label(engine["model"], begin, x - begin, top)
        drawn += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + BAR}" class="edge"/>'
    return drawn


def _label(model: str, x: float, wide: float, top: int) -> str:
    """As much of the model's name as there is room for; nothing where that would not tell it."""
    name = next((name for name in names(model) if len(name) * LETTER <= wide - 6), "")
    return f'<text x="{x + 4:.1f}" y="{top + 17}" class="name">{escape(name)}</text>' if name else ""


def names(model: str) -> list[str]:
    """`llava-1.6-mistral-7b-instruct`, `llava-1.6-mistral-7b`, `llava-1.6`."""
    return [model, model.removesuffix("-instruct"), "-".join(model.split("-")[:2])]


def legend(plan: Mapping[str, Any], placements: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Models of these placements with their colours."""
    colour = colours(plan)
    models = {placed["model"] for placement in placements for placed in placement["models"]}
    return [(model, colour[model]) for model in sorted(models)]
