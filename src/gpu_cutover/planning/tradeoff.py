"""What the planner's free choice gave up, and for what: models that demand drove out, the price of another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..catalog import Catalog
from .demand import Demand
from .placement import Placed, Placement, on_gpus

Instead = Callable[[str, str], Placement]
"""(route, model) → the best placement with this model for the route, and for the others those of the free choice."""


def swaps(found: Placement, calm: Placement, demands: Sequence[Demand]) -> Iterator[tuple[str, str]]:
    """(route, sentence) for each route with another model than in `calm`, the choice for one session of each kind."""
    for route, model in found.answers.items():
        preferred = calm.answers[route]
        if preferred is None or model == preferred:
            continue
        before = _placed(calm, preferred)
        cache = f", with {before.kv_tokens:,} tokens of cache" if before.kv_tokens else ""
        yield (
            route,
            f"Because of the demand {route} is answered by {model or 'nobody'} instead of {preferred}:"
            f" {_why(route, found, calm, demands)}; for one session of each kind {preferred} would run as"
            f" {before.format} on {on_gpus(before.gpus)}{cache}",
        )


def _why(route: str, found: Placement, calm: Placement, demands: Sequence[Demand]) -> str:
    """What this route is asked where that is more than its cache had; else the routes that take more GPUs now."""
    asked = sum(demand.total for demand in demands if demand.route == route)
    grown = [
        f"{_asked(other, demands)} take {on_gpus(after.gpus)} for {after.model},"
        f" not {on_gpus(before.gpus)}{'' if after.model == before.model else f' for {before.model}'}"
        for other in found.answers
        if other != route
        and (after := _answering(found, other))
        and (before := _answering(calm, other))
        and len(after.gpus) > len(before.gpus)
    ]
    own = _answering(calm, route)
    if grown and own and asked <= own.kv_tokens:
        return " and ".join(grown)
    return f"{_asked(route, demands)} ask for a cache of {asked:,} {'windows' if route == 'audio' else 'tokens'}"


def _answering(placement: Placement, route: str) -> Placed | None:
    model = placement.answers[route]
    return None if model is None else _placed(placement, model)


def _asked(route: str, demands: Sequence[Demand]) -> str:
    told = [f"{d.sessions:,} {d.name}" for d in demands if d.route == route and d.sessions]
    return " and ".join(told) or route


def _placed(placement: Placement, model: str) -> Placed:
    return next(placed for placed in placement.models if placed.model == model)


def price(route: str, model: str, free: Placement, instead: Instead, catalog: Catalog) -> str:
    """Where a model does fit after all, and what that costs against the free choice; one sentence."""
    found = instead(route, model)
    if found.answers[route] != model:
        return f"{model} fits nowhere without giving up a more important route"
    placed = _placed(found, model)
    beside = [p.model for p in found.models if p is not placed and set(p.gpus) & set(placed.gpus)]
    company = f" beside {', '.join(beside)}" if beside else ""
    costs = "; ".join(_costs(free, found, catalog))
    return f"{model} does fit as {placed.format} on {on_gpus(placed.gpus)}{company}: {costs or 'at no price'}"


def _costs(free: Placement, found: Placement, catalog: Catalog) -> Iterator[str]:
    slowed = [name for name in _disturbed(found, catalog) if name not in _disturbed(free, catalog)]
    if slowed:
        yield f"{' and '.join(slowed)} then share a GPU with a language model, each at half speed while both work"
    fewer = [
        f"{found.capacity[name]:,} instead of {most:,} {name}"
        for name, most in free.capacity.items()
        if found.capacity[name] < most
    ]
    if fewer:
        yield f"{', '.join(fewer)} fit"
    for route, other in free.answers.items():
        answers = found.answers[route]
        if other is not None and answers is None:
            yield f"nobody answers {route}"
        elif other == answers and other is not None:
            yield from _smaller(_placed(free, other), _placed(found, other))


def _smaller(before: Placed, after: Placed) -> Iterator[str]:
    if after.kv_tokens < before.kv_tokens:
        yield f"{after.model} has {after.kv_tokens:,} instead of {before.kv_tokens:,} tokens of cache"


def _disturbed(placement: Placement, catalog: Catalog) -> list[str]:
    """Speech and retrieval engines that share a GPU with a language model."""
    busy = {gpu for p in placement.models if catalog.models[p.model].kind == "decoder" for gpu in p.gpus}
    return [p.model for p in placement.models if catalog.models[p.model].kind != "decoder" and busy & set(p.gpus)]
