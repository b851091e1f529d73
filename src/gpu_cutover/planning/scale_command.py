"""`gpu-cutover plan scale`: the hospital's scaling framework beside arithmetic, and how many servers a load needs."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import EXIT_DONE, EXIT_FAIL, InputError

if TYPE_CHECKING:
    from ..catalog import Catalog, Format, Gpu, Model
    from ..catalog.scaling import Scaling
    from .scale_engine import Question

MOST_USERS = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan scale`."""
    parser.add_argument("--scenario", metavar="S", help="chat, batch or training; without it all three")
    parser.add_argument("--users", metavar="N", help="people at once in chat")
    parser.add_argument("--model", metavar="M", help="a language model of the catalog")
    parser.add_argument("--format", metavar="F", help="how its weights are stored; without it the best that fits")
    parser.add_argument("--gpu", metavar="G", help="a GPU of the catalog")
    parser.add_argument(
        "--nodes", nargs="+", metavar="NxG", help="servers you have: 3x1 is three servers with one GPU; may be several"
    )
    parser.add_argument("--json", action="store_true", help="print plain data instead of text")


def run(args: argparse.Namespace) -> int:
    """Print the answer: 0, or 20 where the users cannot be carried. Raises InputError (exit 2) for wrong input."""
    from ..catalog import load_catalog
    from ..catalog.scaling import load_scaling
    from .scale import answer
    from .scale_engine import SCENARIOS
    from .scale_text import lines

    catalog, data = load_catalog(), load_scaling()
    chosen = [_known("--scenario", args.scenario, SCENARIOS, "")] if args.scenario else list(SCENARIOS)
    made = answer(_question(args, catalog, data), chosen, catalog, data)
    print(json.dumps(made, indent=2) if args.json else "\n".join(lines(made)))
    return EXIT_FAIL if made["verdict"] == "impossible" else EXIT_DONE


def _question(args: argparse.Namespace, catalog: Catalog, data: Scaling) -> Question:
    from .scale_engine import Question

    how = " (or add it to catalog/{}, see docs/catalog.md)"
    gpu_name = _known("--gpu", args.gpu or data.gpu, catalog.gpus, how.format("gpus.yml"))
    decoders = [name for name, model in catalog.models.items() if model.kind == "decoder"]
    model = catalog.models[_known("--model", args.model or data.chat_model, decoders, how.format("models.yml"))]
    gpu = catalog.gpus[gpu_name]
    return Question(
        _number("--users", args.users, data.users),
        model,
        _weights(args, model, gpu_name, gpu, catalog, data),
        gpu_name,
        gpu,
        _rack(args.nodes or (), data),
    )


def _weights(
    args: argparse.Namespace, model: Model, gpu_name: str, gpu: Gpu, catalog: Catalog, data: Scaling
) -> Format:
    """The asked format; else the data's for its own model; else the most bits that keep half of the users a GPU."""
    from .scale_engine import Question, carried, width

    if args.format:
        fix = " (or add it to catalog/formats.yml, see docs/catalog.md)"
        return catalog.formats[_known("--format", args.format, catalog.formats, fix)]
    if model.name == data.chat_model:
        return catalog.formats[data.chat_format]
    users: dict[str, float] = {}
    for name, weights in catalog.formats.items():
        asked = Question(1, model, weights, gpu_name, gpu)
        gpus = width(asked, catalog, data) if "vllm" in weights.engines else None
        users[name] = carried(asked, gpus, catalog, data) / gpus if gpus else -1.0
    enough = [name for name, carries in users.items() if carries >= max(users.values()) / 2]
    return catalog.formats[max(enough or users, key=lambda name: (catalog.formats[name].bits, users[name]))]


def _known(option: str, value: str, names: Iterable[str], how: str) -> str:
    from ..site.problems import nearest, shown

    known = list(names)
    if value not in known:
        raise InputError("gpu-cutover plan scale", option, f"{shown(value)} is not known", nearest(value, known) + how)
    return value


def _number(option: str, value: str | None, default: int) -> int:
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", value) or not 1 <= int(value) <= MOST_USERS:
        problem = f"{value[:40]!r} is not a number of people from 1 to {MOST_USERS:,}"
        raise InputError("gpu-cutover plan scale", option, problem, "give a whole number, as --users 50")
    return int(value)


def _rack(words: Iterable[str], data: Scaling) -> tuple[tuple[int, int], ...]:
    found = tuple(_servers(word) for word in words)
    if sum(count for count, _ in found) > data.max_nodes:
        problem = (
            f"{sum(count for count, _ in found):,} servers are more than the {data.max_nodes} a fleet is planned for"
        )
        raise InputError("gpu-cutover plan scale", "--nodes", problem, "plan pools of servers one by one")
    return found


def _servers(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,6})[x×]([0-9]{1,2})", word)
    numbers: Any = tuple(int(part) for part in found.groups()) if found else (0, 0)
    if min(numbers) < 1 or numbers[1] > 16:
        problem = f"{word[:40]!r} is not servers x GPUs"
        raise InputError("gpu-cutover plan scale", "--nodes", problem, "write 3x1 for three servers with one GPU each")
    return numbers[0], numbers[1]
