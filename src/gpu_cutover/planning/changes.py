"""For each target that does not hold: what would make it hold, with the figure each change gives. Pure.

A change is one step away from what is planned (other weights, more GPUs, speculative decoding, a smaller model, another
GPU), a combination of such steps, or another promise. `nearest` marks the one with the least effort that is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ..catalog import Catalog, Gpu, Model
from ..catalog.outages import Outages, load_outages
from . import latency, targets
from .fit import Instance, budget_bytes, tensor_parallel_problem
from .targets import CHAT_TOKENS, SOAP_TOKENS, Answerer, Estimate, Setting, verdict

SPLITS = (1, 2, 4)
SPECULATION = 2.0  # tokens accepted per step: publications report 2-3, the lower is planned with
SPECULATION_BEST = 3.0
# What a step costs, to tell which combination is nearest: files, GPUs that others have, another engine, answers that
# must be compared again, a purchase.
EFFORT = {"weights": 1.0, "split": 1.5, "speculation": 2.0, "model": 3.0, "gpu": 5.0}
SHOWN = 7  # changes per target


@dataclass(frozen=True)
class Change:
    """What to do, what it gives (in the target's unit) and whether that is enough.

    `effort` orders changes: the sum of its steps', 0 for another promise.
    """

    target: str
    what: str
    floor: float | None
    expected: float
    verdict: str
    arithmetic: str
    effort: float
    nearest: bool = False


@dataclass(frozen=True)
class Wanted:
    """A target that does not hold: its name, the figure to reach and which way is better."""

    name: str
    figure: float
    better: str


@dataclass(frozen=True)
class Option:
    """One way to answer a route: the setting it makes, the words for it, its effort, and how decoding is sped up."""

    setting: Setting
    what: str
    effort: float
    steps: int
    speculation: bool = False


def changes(wanted: Iterable[Wanted], setting: Setting, catalog: Catalog) -> tuple[Change, ...]:
    """For each target what would change it, nearest first."""
    return tuple(change for one in wanted for change in _chosen(one, list(_changes(one, setting, catalog))))


def as_json(change: Change) -> dict[str, Any]:
    """Plain data; figures rounded to eight digits after the point."""
    return {
        "target": change.target,
        "change": change.what,
        "floor": None if change.floor is None else round(change.floor, 8),
        "expected": round(change.expected, 8),
        "verdict": change.verdict,
        "arithmetic": change.arithmetic,
        "nearest": change.nearest,
    }


def _chosen(wanted: Wanted, found: list[Change]) -> list[Change]:
    """The most telling few: what is enough first, by effort; then what helps most."""
    sign = 1 if wanted.better == "lower" else -1
    ordered = sorted(
        found, key=lambda c: (c.verdict != "met", c.effort if c.verdict == "met" else 0, sign * c.expected)
    )
    return [
        replace(change, nearest=index == 0 and change.verdict == "met") for index, change in enumerate(ordered[:SHOWN])
    ]


def _changes(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    makers: Mapping[str, Callable[[Wanted, Setting, Catalog], Iterator[Change]]] = {
        "soap_p95_s": _note,
        "soap_first_token_p95_s": _first_token,
        "whisper_p95_s": _speech,
        "concurrent_soap": _sessions,
        "concurrent_chat": _sessions,
        "availability": _up,
    }
    yield from makers[wanted.name](wanted, setting, catalog) if wanted.name in makers else ()


def _change(wanted: Wanted, what: str, estimate: Estimate, effort: float) -> Change:
    judged = verdict(wanted.better, wanted.figure, estimate)
    return Change(wanted.name, what, estimate.floor, estimate.expected, judged, estimate.how, effort)


# --- ways to answer the chat -----------------------------------------------------------------------------------------


def _note(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    first = targets.first_token(setting, catalog)
    yield _change(wanted, "promise it for the first token, which the doctor sees appear", first, 0.0)
    yield from _best_of(wanted, options(setting, catalog, speculation=True), _note_of, catalog)


def _first_token(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    yield from _best_of(wanted, options(setting, catalog, speculation=False), _first_of, catalog)


def _best_of(
    wanted: Wanted,
    found: Iterable[Option],
    measure: Callable[[Option, Catalog], Estimate],
    catalog: Catalog,
) -> Iterator[Change]:
    """The best of each single step, and the combination with the least effort that is enough."""
    singles: dict[tuple[float, str], tuple[Any, Change]] = {}
    enough: tuple[Any, Change] | None = None
    for option in found:
        change = _change(wanted, option.what, measure(option, catalog), option.effort)
        rank = _rank(change, option)
        kind = (option.effort, option.setting.gpu.name)
        if option.steps == 1 and (kind not in singles or rank < singles[kind][0]):
            singles[kind] = (rank, change)
        if change.verdict == "met" and (enough is None or (option.effort, rank) < enough[0]):
            enough = ((option.effort, rank), change)
    yield from (change for _, change in singles.values())
    if enough and all(enough[1] != change for _, change in singles.values()):
        yield enough[1]


def _rank(change: Change, option: Option) -> tuple[bool, float]:
    """The largest model that is enough, else the fastest."""
    is_enough = change.verdict == "met"
    size = option.setting.answerers["chat"].model.parameters()
    return (not is_enough, -size if is_enough else change.expected)


def _note_of(option: Option, catalog: Catalog) -> Estimate:
    """A whole note; speculative decoding divides the decoding, not the reading of the prompt."""
    plain = targets.note(option.setting, catalog)
    if not option.speculation:
        return plain
    who = option.setting.answerers["chat"]
    prompt = latency.prefill(who.model, who.weights, option.setting.gpu, who.gpus, latency.PROMPT_TOKENS, catalog)
    expected = prompt + (plain.expected - prompt) / SPECULATION
    floor = (plain.floor or 0.0) / SPECULATION_BEST
    how = f"{plain.how}; {SPECULATION:g} tokens a step: {expected:.1f} s ({SPECULATION_BEST:g} at best)"
    return Estimate(floor, expected, how)


def _first_of(option: Option, catalog: Catalog) -> Estimate:
    return targets.first_token(option.setting, catalog)


def options(setting: Setting, catalog: Catalog, *, speculation: bool) -> Iterator[Option]:
    """Every legal way to answer the chat with one GPU model, within the host's number of GPUs."""
    who, here = setting.answerers["chat"], setting.gpu
    speeds = (False, True) if speculation else (False,)
    models = [model for model in catalog.models.values() if _answers_text(model, who.model)]
    for gpu, model, (name, weights), split, fast in product(
        offered(here, catalog), models, catalog.formats.items(), SPLITS, speeds
    ):
        other = replace(who, name=model.name, model=model, weights=weights, gpus=split)
        steps = {
            "gpu": gpu.name != here.name,
            "model": model.name != who.name,
            "weights": weights != who.weights,
            "split": split != who.gpus,
            "speculation": fast,
        }
        taken = [step for step, is_taken in steps.items() if is_taken]
        if taken and split <= setting.gpu_count and _loads(other, gpu, catalog):
            words = _words(steps, gpu, other, name)
            cached = replace(other, kv_tokens=cache_tokens(other, gpu, smallest_cache(gpu, catalog), catalog))
            changed = replace(setting.with_answerer("chat", cached), gpu=gpu)
            yield Option(changed, words, sum(EFFORT[step] for step in taken), len(taken), fast)


def offered(here: Gpu, catalog: Catalog) -> list[Gpu]:
    """GPUs worth a thought: this one, those of the tiers, and the one with the fastest memory of all."""
    fastest = max(catalog.gpus.values(), key=lambda gpu: gpu.memory_bandwidth)
    found = [here, *(catalog.gpus[tier.gpu] for tier in catalog.tiers.values()), fastest]
    return list({gpu.name: gpu for gpu in found}.values())


def _answers_text(model: Model, instead_of: Model) -> bool:
    """A language model without eyes that is not larger than the one it replaces."""
    plain = model.kind == "decoder" and not model.architecture.vision_parameters()
    return plain and (model.name == instead_of.name or model.parameters() < instead_of.parameters())


def _loads(who: Answerer, gpu: Gpu, catalog: Catalog) -> bool:
    """Whether the engine starts on these GPUs with room for the load's cache of one note."""
    instance = Instance(who.model, who.weights, "vllm")
    if not who.weights.runs_on(gpu) or tensor_parallel_problem(instance, who.gpus):
        return False
    return cache_tokens(who, gpu, 1, catalog) >= SOAP_TOKENS


def cache_tokens(who: Answerer, gpu: Gpu, kv_bytes: int, catalog: Catalog) -> int:
    """Tokens of cache that the engine would have with its GPUs to itself; negative where it does not load."""
    reserve = gpu.activation_reserve_mib * 1024**2
    free = who.gpus * (budget_bytes(gpu, catalog) - reserve) - who.model.weight_bytes(who.weights)
    return free // who.model.kv_bytes_per_token(kv_bytes)


def smallest_cache(gpu: Gpu, catalog: Catalog) -> int:
    """Bytes of one number in the smallest cache that is planned with on this GPU."""
    return min(cache.bytes_per_number() for cache in catalog.kv_formats.values() if cache.runs_on(gpu))


def _words(steps: Mapping[str, bool], gpu: Gpu, who: Answerer, weights: str) -> str:
    """The steps as a person would say them."""
    parts = []
    if steps["model"]:
        parts.append(f"{who.name} as {weights}" if steps["weights"] else who.name)
    elif steps["weights"]:
        parts.append(f"the same model as {weights}")
    if steps["split"]:
        parts.append(f"on {who.gpus} GPU{'s' if who.gpus > 1 else ''}")
    if steps["speculation"]:
        parts.append("speculative decoding")
    if steps["gpu"]:
        parts.append(f"{gpu.name} instead")
    return ", ".join(parts)


# --- the other targets -----------------------------------------------------------------------------------------------


def _speech(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    who, recordings = setting.answerers["audio"], setting.load.recordings
    window = latency.speech_expected(who.model, who.weights, setting.gpu, latency.WINDOW_S, recordings, catalog)
    floor = latency.speech_floor(who.model, who.weights, setting.gpu, latency.WINDOW_S, catalog)
    how = f"the last window of {latency.WINDOW_S:g} s, {recordings} at once: {window:.2f} s after the last word"
    streamed = Estimate(floor, window, how)
    yield _change(wanted, "transcribe during the consultation and promise it after the last word", streamed, 0.0)
    halved = replace(setting, load=replace(setting.load, recordings=math.ceil(recordings / 2)))
    yield _change(wanted, "a second Whisper on another GPU", targets.speech(halved, catalog), EFFORT["split"])
    for model in catalog.models.values():
        if model.kind == "speech" and model.parameters() < who.model.parameters():
            other = setting.with_answerer("audio", replace(who, name=model.name, model=model))
            yield _change(wanted, model.name, targets.speech(other, catalog), EFFORT["model"])
    for gpu in offered(setting.gpu, catalog):
        if gpu.name != setting.gpu.name:
            moved = targets.speech(replace(setting, gpu=gpu), catalog)
            yield _change(wanted, f"{gpu.name} instead", moved, EFFORT["gpu"])


def _sessions(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    """More cache: on each GPU the least that is enough (or the most there is), and more hosts as planned here."""
    each, others = (
        (SOAP_TOKENS, setting.load.chat * CHAT_TOKENS)
        if wanted.name == "concurrent_soap"
        else (CHAT_TOKENS, setting.load.soap * SOAP_TOKENS)
    )
    for gpu in offered(setting.gpu, catalog):
        found = [
            _cache(wanted, each, others, gpu, option, setting, catalog) for option in _caches(gpu, setting, catalog)
        ]
        yield from sorted(found, key=lambda c: (c.verdict != "met", c.effort if c.verdict == "met" else -c.expected))[
            :1
        ]
    here = setting.answerers["chat"].kv_tokens
    if here:
        hosts = math.ceil((others + wanted.figure * each) / here)
        how = f"{hosts:,} hosts x {here:,} tokens - {others:,} of the others, {each:,} each; every host as planned here"
        fits = float((hosts * here - others) // each)
        yield _change(wanted, f"{hosts:,} such hosts", Estimate(None, fits, how), EFFORT["gpu"] * hosts)


def _caches(gpu: Gpu, setting: Setting, catalog: Catalog) -> Iterator[Answerer]:
    """The chat's model in every format on every number of GPUs that loads."""
    for weights, split in product(catalog.formats.values(), SPLITS):
        who = replace(setting.answerers["chat"], weights=weights, gpus=split)
        if split <= setting.gpu_count and _loads(who, gpu, catalog):
            yield who


def _cache(
    wanted: Wanted, each: int, others: int, gpu: Gpu, who: Answerer, setting: Setting, catalog: Catalog
) -> Change:
    """Sessions of an engine with its GPUs to itself and an 8-bit cache (16-bit where the GPU has no other)."""
    now = setting.answerers["chat"]
    small = smallest_cache(gpu, catalog)
    tokens = cache_tokens(who, gpu, small, catalog)
    fits = max(0, (tokens - others) // each)
    how = f"{tokens:,} tokens of {8 * small}-bit cache - {others:,} of the others, {each:,} each"
    name = next(key for key, weights in catalog.formats.items() if weights == who.weights)
    words = f"{who.name} as {name} on {who.gpus} x {gpu.name} alone, {8 * small}-bit cache"
    steps = {"gpu": gpu.name != setting.gpu.name, "weights": who.weights != now.weights, "split": who.gpus != now.gpus}
    effort = sum(EFFORT[step] for step, is_taken in steps.items() if is_taken) + EFFORT["weights"] / 2
    return _change(wanted, words, Estimate(None, float(fits), how), effort)


def _up(wanted: Wanted, setting: Setting, catalog: Catalog) -> Iterator[Change]:
    outages: Outages = load_outages()
    pair = targets.up(replace(setting, nodes=setting.nodes + 1), outages, wanted.figure)
    yield _change(wanted, "a second GPU host that serves while the other is down", pair, EFFORT["gpu"])
    spare = replace(outages, repair_h=4)
    quick = targets.up(setting, spare, wanted.figure)
    yield _change(wanted, "a four-hour repair contract or a cold spare on site", quick, EFFORT["model"])
