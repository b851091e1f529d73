"""Each target of the plan against arithmetic: what physics forbids, what to expect of what answers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..catalog import Catalog, Gpu, Model
from ..catalog import Format as Weights
from ..catalog.outages import Outages, load_outages
from ..site import rules
from ..site.model import Site
from . import availability, latency
from .fit import budget_bytes

AUDIO_S = 600.0  # the plan's 10 minutes; also how often one doctor finishes a consultation
RECORDINGS_AT_ONCE = 2  # of 12 doctors who finish independently, two do meet
SOAP_TOKENS = 8192  # context of one note: transcript, instructions, note
CHAT_TOKENS = 4096  # context of one chat
PASSAGES = 30  # candidates a retrieval ranks
P95_LEFT = 0.05  # the share of requests a p95 does not look at


@dataclass(frozen=True)
class Estimate:
    """`floor` is what nothing can beat (None: unknown), `expected` what to plan with, `how` the arithmetic.

    Where higher is better, `floor` is the ceiling.
    """

    floor: float | None
    expected: float
    how: str


@dataclass(frozen=True)
class Load:
    """What happens at once: notes and chats being written, recordings being transcribed."""

    soap: int
    chat: int
    recordings: int = RECORDINGS_AT_ONCE

    @property
    def streams(self) -> int:
        """Texts being decoded at once."""
        return self.soap + self.chat


@dataclass(frozen=True)
class Answerer:
    """The engine that answers a route: its model, how its weights are stored, on how many GPUs, its cache in tokens."""

    name: str
    model: Model
    weights: Weights
    gpus: int
    kv_tokens: int = 0


@dataclass(frozen=True)
class Setting:
    """Who answers which route on which GPUs, and under which load.

    `weights_bytes` is everything a reboot must read again, `derate_s` how long a lost GPU may interrupt.
    """

    gpu: Gpu
    gpu_count: int
    answerers: Mapping[str, Answerer]
    load: Load
    weights_bytes: int
    derate_s: float
    nodes: int = 1

    def with_answerer(self, route: str, answerer: Answerer) -> Setting:
        """The same with another engine on one route."""
        return replace(self, answerers={**self.answerers, route: answerer})

    @cached_property
    def routes(self) -> frozenset[str]:
        """The routes somebody answers."""
        return frozenset(self.answerers)


def setting_of(site: Site, catalog: Catalog, load: Load | None = None) -> Setting:
    """The site as declared, in its healthy placement, under the plan's load unless another is given."""
    spec = site.spec
    tier = catalog.tiers[spec.tier]
    tokens = rules.fit_of(spec, rules.HEALTHY, catalog).kv_tokens
    targets = spec.targets
    plan = Load(round(targets["concurrent_soap"].plan), round(targets["concurrent_chat"].plan))
    return Setting(
        gpu=catalog.gpus[tier.gpu],
        gpu_count=tier.gpu_count,
        answerers={
            route: Answerer(
                declared.model,
                catalog.models[declared.model],
                catalog.formats[spec.models[declared.model].format],
                len(spec.placements[rules.HEALTHY][declared.model]),
                tokens[declared.model],
            )
            for route, declared in spec.routes.items()
        },
        load=load or plan,
        weights_bytes=sum(
            catalog.models[name].weight_bytes(catalog.formats[spec.models[name].format])
            for name in spec.placements[rules.HEALTHY]
        ),
        derate_s=float(spec.gates.derate_max_s),
    )


def estimates(setting: Setting, catalog: Catalog, target: float = 0.999) -> dict[str, Estimate]:
    """An estimate for every target that arithmetic says something about, in the target's unit.

    `target` is the promised availability, which decides the hours allowed.
    """
    found: dict[str, Estimate] = {}
    if "chat" in setting.routes:
        found |= {"soap_p95_s": note(setting, catalog), "soap_first_token_p95_s": first_token(setting, catalog)}
        found |= _sessions(setting, catalog)
    if "audio" in setting.routes:
        found["whisper_p95_s"] = speech(setting, catalog)
    if {"embed", "rerank"} <= setting.routes:
        found["retrieval_p95_s"] = _retrieval(setting, catalog)
    return {**found, "availability": up(setting, load_outages(), target)}


def decoding_at_once(setting: Setting) -> int:
    """Streams of the load whose context fits the cache together; the others wait their turn."""
    load, tokens = setting.load, setting.answerers["chat"].kv_tokens
    wanted = load.soap * SOAP_TOKENS + load.chat * CHAT_TOKENS
    return load.streams if wanted <= tokens else max(1, tokens * load.streams // wanted)


def note(setting: Setting, catalog: Catalog) -> Estimate:
    """Seconds for a whole note of 400 tokens, p95: with every stream of the load that fits the cache decoding at once.

    What does not fit waits its turn: so many times as long as all streams are more than those that fit.
    """
    who, gpu = setting.answerers["chat"], setting.gpu
    streams = decoding_at_once(setting)
    turns = setting.load.streams / max(1, streams)
    floor = latency.note_floor(who.model, who.weights, gpu, who.gpus)
    alone = latency.note_expected(who.model, who.weights, gpu, who.gpus, 1, catalog)
    expected = max(1.0, turns) * latency.note_expected(who.model, who.weights, gpu, who.gpus, streams, catalog)
    per_token = who.model.decode_bytes(who.weights) / 1e9
    how = (
        f"{latency.NOTE_TOKENS} tokens x {per_token:.1f} GB / ({who.gpus} x {gpu.memory_bandwidth / 1e12:.2f} TB/s)"
        f" = {floor:.1f} s; alone {alone:.1f} s, with {streams:,} streams at once"
        f"{f' in {turns:,.1f} turns' if turns > 1 else ''} {expected:,.1f} s"
    )
    return Estimate(floor, expected, how)


def first_token(setting: Setting, catalog: Catalog) -> Estimate:
    """Seconds to the first token of a note, p95.

    One prompt after the other is read; the share of time that reading takes is the chance to find another before one's
    own (Poisson arrivals: `share ** waiting` of the notes find at least so many). Chat prompts are short, not counted.
    """
    who, gpu, soap = setting.answerers["chat"], setting.gpu, setting.load.soap
    one = latency.prefill(who.model, who.weights, gpu, who.gpus, latency.PROMPT_TOKENS, catalog)
    busy = (soap - 1) * one / AUDIO_S
    waiting = _waiting(busy, soap)
    peak = who.gpus * who.weights.flops(gpu) / 1e12
    transfers = " and transfers" if gpu.prefill_comms_share and who.gpus > 1 else ""
    how = (
        f"{latency.PROMPT_TOKENS} tokens x 2 x {who.model.parameters() / 1e9:.1f} G at half of {peak:,.0f} TFLOPS"
        f"{transfers} = {one:.2f} s; {soap:,} doctors, a note each 10 min:"
        f" another prompt is in the way {min(1.0, busy):.1%} of the time"
    )
    return Estimate(one * catalog.vllm.prefill_efficiency, one * (1 + waiting), how)


def _waiting(busy: float, most: int) -> int:
    """Prompts ahead of one's own that at most 5 % of the notes exceed."""
    if busy <= 0:
        return 0
    ahead = most if busy >= 1 else math.floor(math.log(P95_LEFT) / math.log(busy))
    return min(ahead, max(0, most - 1))


def _sessions(setting: Setting, catalog: Catalog) -> dict[str, Estimate]:
    """Sessions whose cache fits beside the load's number of the other kind."""
    soap, chat = setting.load.soap, setting.load.chat
    return {
        "concurrent_soap": _capacity(setting, SOAP_TOKENS, chat * CHAT_TOKENS, f"{chat:,} chats", "note", catalog),
        "concurrent_chat": _capacity(setting, CHAT_TOKENS, soap * SOAP_TOKENS, f"{soap:,} notes", "chat", catalog),
    }


def _capacity(setting: Setting, each: int, others: int, beside: str, word: str, catalog: Catalog) -> Estimate:
    tokens = setting.answerers["chat"].kv_tokens
    ceiling = cache_ceiling(setting, catalog)
    how = (
        f"cache of {tokens:,} tokens - {others:,} of {beside}, {each:,} a {word};"
        f" {ceiling:,} tokens on all {setting.gpu_count} GPUs with nothing else on them"
    )
    return Estimate(float(max(0, (ceiling - others) // each)), float(max(0, (tokens - others) // each)), how)


def cache_ceiling(setting: Setting, catalog: Catalog) -> int:
    """Tokens of cache with every GPU for the chat's model, the smallest weights, an 8-bit cache: nothing holds more."""
    model, gpu = setting.answerers["chat"].model, setting.gpu
    smallest = min(model.weight_bytes(weights) for weights in catalog.formats.values())
    reserve = gpu.activation_reserve_mib * 1024**2
    free = setting.gpu_count * (budget_bytes(gpu, catalog) - reserve) - smallest
    return max(0, free) // model.kv_bytes_per_token(1)


def speech(setting: Setting, catalog: Catalog) -> Estimate:
    """Seconds to transcribe 10 minutes, p95, with the load's number of recordings at once."""
    who, gpu, recordings = setting.answerers["audio"], setting.gpu, setting.load.recordings
    floor = latency.speech_floor(who.model, who.weights, gpu, AUDIO_S, catalog)
    alone = latency.speech_expected(who.model, who.weights, gpu, AUDIO_S, 1, catalog)
    expected = latency.speech_expected(who.model, who.weights, gpu, AUDIO_S, recordings, catalog)
    sequential = latency.speech_sequential_floor(who.model, who.weights, gpu, AUDIO_S, catalog)
    together = f", with {recordings:,} recordings at once {expected:,.2f} s" if recordings > 1 else ""
    how = (
        f"20 windows in one batch {floor:.2f} s at 100 % ({sequential:.1f} s one after the other);"
        f" alone {alone:.2f} s{together}"
    )
    return Estimate(floor, expected, how)


def _retrieval(setting: Setting, catalog: Catalog) -> Estimate:
    seconds = _encode(setting, "embed", 1, catalog) + _encode(setting, "rerank", PASSAGES, catalog)
    passages = f"{PASSAGES} passages of {latency.PASSAGE_TOKENS} tokens"
    how = f"one query embedded, {passages} ranked; search and network not counted"
    return Estimate(seconds * catalog.vllm.prefill_efficiency, seconds, how)


def _encode(setting: Setting, route: str, passages: int, catalog: Catalog) -> float:
    who = setting.answerers[route]
    return latency.prefill(who.model, who.weights, setting.gpu, who.gpus, passages * latency.PASSAGE_TOKENS, catalog)


def up(setting: Setting, outages: Outages, target: float) -> Estimate:
    """Availability of a year with the assumed failures; the ceiling is a year without one."""
    year = availability.assess(target, setting.weights_bytes, setting.derate_s, setting.nodes, outages)
    hosts = "one host" if setting.nodes == 1 else f"{setting.nodes} hosts"
    how = (
        f"{target:.1%} allows {year.allowed:.2f} h a year; on {hosts}: {outages.reboots_per_year} reboots of"
        f" {year.reboot:.2f} h and one lost GPU = {year.planned:.1f} h, one hardware failure = {year.repair:.0f} h"
    )
    return Estimate(year.quiet, year.expected, how)


def verdict(better: str, accepted: float, estimate: Estimate | None) -> str:
    """`impossible` (beyond the floor or ceiling), `at risk` (beyond what to expect), `met`, or `measured`."""
    if estimate is None:
        return "measured"
    if better == "higher":
        if estimate.floor is not None and accepted > estimate.floor:
            return "impossible"
        return "met" if accepted <= estimate.expected else "at risk"
    if estimate.floor is not None and accepted < estimate.floor:
        return "impossible"
    return "met" if accepted >= estimate.expected else "at risk"
