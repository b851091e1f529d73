"""The plan as it was written, held against arithmetic: what cannot work, and what this site does about it.

Each function yields the findings of one subject; `findings` is all of them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

from ..catalog import Catalog, Gpu, Tier
from ..catalog.written import Written
from . import latency, tradeoff
from .finding import Finding
from .fit import GIB, Fit, Instance, budget_bytes, fit, tensor_parallel_problem
from .placement import Placement
from .targets import CHAT_TOKENS, SOAP_TOKENS, Estimate, Setting, speech

SATURDAY = 5
LLAMA, QWEN, LLAVA, WHISPER = (
    "llama-3.1-70b-instruct",
    "qwen2.5-72b-instruct",
    "llava-1.6-mistral-7b",
    "whisper-large-v3",
)
MINIMUM_CONTEXT = 4096  # tokens below which a language model is of no use to a clinic


@dataclass(frozen=True)
class Bench:
    """What the plan is held against: the tier it would run on, the site's own choice, and the demand.

    `free` is the planner's choice of models there, `instead` the same with another model for one route.
    """

    tier: Tier
    gpu: Gpu
    setting: Setting
    estimates: Mapping[str, Estimate]
    written: Written
    catalog: Catalog
    calendar: Mapping[str, date]
    chat_gpus: tuple[int, ...]
    free: Placement
    instead: tradeoff.Instead

    def fit(self, formats: Mapping[str, str], cached: str | None = None) -> Fit:
        """The plan's placement of these models in these formats; `cached` takes the memory that the others leave."""
        placement = {name: self.written.placement[name] for name in formats}
        instances = {
            name: Instance(
                self.catalog.models[name],
                self.catalog.formats[weights],
                "vllm",
                max_model_len=MINIMUM_CONTEXT,
                kv_gib=None if cached in (None, name) else self._smallest_cache(name),
            )
            for name, weights in formats.items()
        }
        return fit(instances, placement, self.gpu, self.tier.gpu_count, self.catalog)

    def _smallest_cache(self, name: str) -> float:
        return MINIMUM_CONTEXT * self.catalog.models[name].kv_bytes_per_token() / GIB

    def answers(self, route: str) -> str:
        """What answers a route in this site, in words."""
        who = self.setting.answerers.get(route)
        return f"{who.name} as {_format_name(who.weights, self.catalog)}" if who else "nothing"


def _format_name(weights: object, catalog: Catalog) -> str:
    return next(name for name, known in catalog.formats.items() if known == weights)


def findings(bench: Bench) -> Iterator[Finding]:
    """Everything in which the plan as written does not hold on this tier."""
    yield from _whole_note(bench)
    yield from _two_on_one(bench)
    yield from _unquantised(bench)
    yield from _speech(bench)
    yield from _three_gpus(bench)
    yield from _sockets(bench)
    yield from _calendar(bench)
    yield from _rules(bench)
    yield from _machine(bench)


def _whole_note(bench: Bench) -> Iterator[Finding]:
    estimate, target = bench.estimates.get("soap_p95_s"), bench.catalog.targets["soap_p95_s"].plan
    if estimate is None or estimate.floor is None or estimate.floor <= target:
        return
    first = bench.estimates["soap_first_token_p95_s"]
    per_token = estimate.floor / latency.NOTE_TOKENS * 1000
    yield Finding(
        "soap-full-note-impossible",
        "blocker",
        1.0,
        f"A whole SOAP note in {target:g} s is impossible: each token reads every weight of {bench.answers('chat')}"
        f" once, {per_token:.1f} ms at 100 % of bandwidth, {estimate.floor:.1f} s for {latency.NOTE_TOKENS} tokens.",
        f"Promise {target:g} s for the first token ({first.expected:.2f} s expected) and restate the whole note;"
        " see the changes for smaller models.",
        bench.catalog.targets["soap_p95_s"].source + "; floor = bytes per token / memory bandwidth",
    )


def _two_on_one(bench: Bench) -> Iterator[Finding]:
    """The plan's 72B and LLaVA on one GPU: in the smallest formats, then in the ones that leave a usable cache."""
    smallest = min(bench.catalog.formats, key=lambda name: _bytes(bench, QWEN, name))
    published = bench.written.published_format
    tight = bench.fit({QWEN: smallest, LLAVA: published}, cached=QWEN).gpus[bench.written.placement[QWEN][0]]
    budget = budget_bytes(bench.gpu, bench.catalog) / GIB
    weights = [_bytes(bench, QWEN, smallest) / GIB, _bytes(bench, LLAVA, published) / GIB]
    reserve = 2 * bench.gpu.activation_reserve_mib / 1024
    sum_ = f"{weights[0]:.1f} + {weights[1]:.1f} GiB of weights + {reserve:.1f} of activations"
    source = bench.written.sources["placement"] + "; parameters from the published configurations, vLLM's memory rule"
    fix = f"In this site {bench.answers('reason')} answers reason, {bench.answers('vision')} answers vision."
    if tight.over:
        yield Finding(
            "qwen72-llava-one-gpu",
            "blocker",
            0.9,
            f"Qwen2.5-72B and LLaVA-7B do not fit on one {bench.gpu.name} in any published format: even as {smallest}"
            f" {sum_} = {sum(weights) + reserve:.1f} GiB, and engines may use {budget:.1f} GiB."
            f" {tradeoff.price('reason', QWEN, bench.free, bench.instead, bench.catalog)}.",
            fix,
            source,
        )
        return
    plain = [_bytes(bench, QWEN, name) / GIB for name in (published, "fp8")]
    tokens = bench.fit({QWEN: smallest, LLAVA: published}, cached=QWEN).kv_tokens[QWEN]
    yield Finding(
        "qwen72-llava-one-gpu",
        "major",
        0.9,
        f"Qwen2.5-72B and LLaVA-7B share one {bench.gpu.name} only as {smallest}: {plain[0]:.0f} GiB as {published}"
        f" and {plain[1]:.0f} GiB as fp8 leave no room in {budget:.1f} GiB; {sum_} leave {tokens:,} tokens of cache.",
        fix,
        source,
    )


def _bytes(bench: Bench, model: str, weights: str) -> int:
    return bench.catalog.models[model].weight_bytes(bench.catalog.formats[weights])


def _unquantised(bench: Bench) -> Iterator[Finding]:
    """The 70B in the format of its own files, on the plan's pair of GPUs."""
    published = bench.written.published_format
    pair = len(bench.written.placement[LLAMA])
    found = bench.fit({LLAMA: published}, cached=LLAMA)
    tokens, size = found.kv_tokens[LLAMA], _bytes(bench, LLAMA, published) / GIB
    budget = pair * budget_bytes(bench.gpu, bench.catalog) / GIB
    wanted = bench.setting.load
    need = wanted.soap * SOAP_TOKENS + wanted.chat * CHAT_TOKENS
    source = bench.written.sources["published_format"] + "; vLLM's memory rule"
    fix = f"Serve a quantised 70B: in this site {bench.answers('chat')} answers chat."
    if not found.fits:
        text = (
            f"Llama-3.1-70B as published ({published}) cannot load: {size:.1f} GiB of weights, {budget:.1f} GiB usable."
        )
        yield Finding("llama70-unquantised", "blocker", 0.8, text, fix, source)
    elif tokens < need:
        yield Finding(
            "llama70-unquantised",
            "major",
            0.95,
            f"Llama-3.1-70B as published ({published}, {size:.1f} GiB) leaves {tokens:,} tokens of cache on {pair}"
            f" GPUs: {tokens // SOAP_TOKENS} notes of {SOAP_TOKENS:,}, not {wanted.soap} and {wanted.chat} chats"
            f" ({need:,} tokens).",
            fix,
            source,
        )


def _speech(bench: Bench) -> Iterator[Finding]:
    """How many recordings at once the plan's figure for Whisper allows."""
    if "audio" not in bench.setting.answerers:
        return
    target = bench.catalog.targets["whisper_p95_s"].plan
    most = 0
    while most < bench.setting.load.soap and _transcribed(bench, most + 1) <= target:
        most += 1
    if most >= bench.setting.load.soap:
        return
    everybody = bench.setting.load.soap
    yield Finding(
        "whisper-recordings-at-once",
        "major" if most < bench.setting.load.recordings else "minor",
        0.7,
        f"10 minutes of audio in {target:g} s hold for {most} recording{'' if most == 1 else 's'} at once:"
        f" {_transcribed(bench, 1):.2f} s alone, {_transcribed(bench, most + 1):.2f} s with {most + 1},"
        f" {_transcribed(bench, everybody):.1f} s if all {everybody} doctors finish together.",
        "Transcribe during the consultation and measure from the last audio to the text, or give Whisper a second GPU.",
        bench.catalog.targets["whisper_p95_s"].source
        + "; encoder arithmetic and decoder bandwidth, all windows in one batch",
    )


def _transcribed(bench: Bench, recordings: int) -> float:
    at_once = replace(bench.setting, load=replace(bench.setting.load, recordings=recordings))
    return speech(at_once, bench.catalog).expected


def _three_gpus(bench: Bench) -> Iterator[Finding]:
    left = bench.tier.gpu_count - 1
    model = bench.catalog.models[LLAMA]
    problem = tensor_parallel_problem(
        Instance(model, bench.catalog.formats[bench.written.published_format], "vllm"), left
    )
    if problem:
        yield Finding(
            "derate-to-three-gpus",
            "major",
            0.5,
            f"De-rating the 70B to {left} GPUs cannot work: {problem}.",
            "Keep it on two survivors and put everything small on the third: one placement for each lost GPU, below.",
            "upgrade plan, section 10; vLLM divides attention heads evenly",
        )


def _sockets(bench: Bench) -> Iterator[Finding]:
    """Without NVLink the pair's all-reduces cross PCIe, and worse, the sockets' link if the pair has a GPU on each."""
    pair = bench.written.placement[LLAMA]
    if bench.gpu.joined(pair) or bench.tier.same_socket(pair):
        return
    layers = bench.catalog.models[LLAMA].architecture.layers
    cost = 2 * layers * bench.gpu.all_reduce_s * 1000
    yield Finding(
        "pair-across-sockets",
        "minor",
        0.6,
        f"The plan's pair, GPUs {pair[0]} and {pair[1]}, straddles the two CPUs, and an {bench.gpu.name} has no NVLink:"
        f" {2 * layers} all-reduces a token cost {cost:.0f} ms inside one socket and more across.",
        f"Use GPUs 0 and 1 or 2 and 3; here the chat model is on {' and '.join(map(str, bench.chat_gpus)) or 'none'}.",
        bench.written.sources["placement"] + "; two GPUs per CPU; public topology capture of 4 x L40S on dual EPYC",
    )


def _calendar(bench: Bench) -> Iterator[Finding]:
    written = bench.written
    wrong = [day for day, (at, weekday) in written.calendar.items() if f"{at:%A}" != weekday]
    source = written.sources["calendar"]
    if wrong:
        at, weekday = written.calendar[wrong[0]]
        yield Finding(
            "calendar-weekdays",
            "minor",
            0.8,
            f"{len(wrong)} of the plan's {len(written.calendar)} weekdays are not those of its dates:"
            f" {weekday} {at:%-d %B %Y} is a {at:%A}.",
            "Name people by date, not by weekday.",
            source + "; Gregorian calendar",
        )
    closed = [
        f"day {day.removeprefix('day')} is {_closed(at, written)}"
        for day, at in bench.calendar.items()
        if _closed(at, written)
    ]
    if closed:
        yield Finding(
            "calendar-closed-days",
            "minor",
            0.7,
            f"Vendors and clinics are closed on {len(closed)} of this site's {len(bench.calendar)} days:"
            f" {', '.join(closed)}.",
            "Move those days, or agree on-call cover with vendor, data centre and the first clinic in writing.",
            written.sources["holidays"] + "; Saturdays and Sundays of the site's calendar",
        )
    day1 = bench.calendar["day1"]
    latest = written.decision + timedelta(weeks=written.lead_weeks[1])
    if latest > day1:
        yield Finding(
            "lead-time",
            "major",
            0.3,
            f"A decision on {written.decision:%-d %B} and {written.lead_weeks[1]} weeks of delivery end on"
            f" {latest:%-d %B %Y}, {(latest - day1).days} days after day 1 ({day1:%-d %B}).",
            "Decide earlier, or get the delivery date in writing before anything is announced.",
            f"{written.sources['decision']}; {written.sources['lead_weeks']}",
        )


def _closed(at: date, written: Written) -> str:
    """Why nobody works on a date: the holiday's name or the weekday; empty where they do."""
    return written.holidays.get(at, f"{at:%A}" if at.weekday() >= SATURDAY else "")


def _rules(bench: Bench) -> Iterator[Finding]:
    """Two of the scaling framework's rules that can never be false, so that they say nothing."""
    utilization, rule = bench.catalog.vllm.gpu_memory_utilization, bench.written.memory_rule
    if utilization > rule:
        yield Finding(
            "memory-rule-always-true",
            "note",
            0.6,
            f'"GPU memory above {rule:.0%}: optimise the model" is always true:'
            f" vLLM reserves {utilization:.0%} when it starts.",
            "Watch vllm:kv_cache_usage_perc above 0.9 together with preemptions.",
            f"{bench.written.sources['memory_rule']}; {bench.catalog.vllm.sources['gpu_memory_utilization']}",
        )
    note = bench.estimates.get("soap_p95_s")
    if note and note.floor and note.floor > bench.written.latency_rule_s:
        yield Finding(
            "latency-rule-never-clears",
            "note",
            0.5,
            f'"p95 above {bench.written.latency_rule_s:g} s: scale out" never clears: one note alone takes'
            f" {note.floor:.1f} s at best, and another server makes no single note faster.",
            "Scale on waiting requests and on the time to the first token.",
            bench.written.sources["latency_rule_s"] + "; floor = bytes per token / memory bandwidth",
        )


def _machine(bench: Bench) -> Iterator[Finding]:
    """What day 3 and the alarms must know of these boards."""
    gpu = bench.gpu
    if gpu.tlimit_slowdown is not None:
        memory = "" if gpu.memory_sensor else ", and it has no memory temperature at all"
        yield Finding(
            "thermal-alarm-in-degrees",
            "note",
            0.4,
            f"An {gpu.name} reports distance to its limit, not degrees (slowdown at {gpu.tlimit_slowdown}, shutdown at"
            f" {gpu.tlimit_shutdown}){memory}: an alarm at a fixed temperature is wrong on some board.",
            "The guard and the burn-in judge the margin.",
            str(gpu.sources.get("tlimit_slowdown", "")),
        )
    yield Finding(
        "dcgm-policy-only-notifies",
        "note",
        0.3,
        "A DCGM policy takes no GPU out of service: its action fields are stored and not carried out.",
        "The guard de-rates; DCGM only reports to it.",
        "DCGM 4.6 source and documentation",
    )
    peers = bench.tier.gpu_count - 1
    per_pair = bench.written.nvlink_links // peers * bench.written.nvlink_gb_s
    if gpu.nvlink and not gpu.fabric_manager and per_pair < bench.written.p2p_check_gb_s:
        yield Finding(
            "p2p-threshold-of-another-board",
            "note",
            0.2,
            f"A healthy pair of this board copies at most {per_pair:.0f} GB/s ({bench.written.nvlink_links // peers}"
            f" links of {bench.written.nvlink_gb_s:g} GB/s); the usual check"
            f" asks {bench.written.p2p_check_gb_s:.0f} GB/s and fails it.",
            "Day 3 judges by this board's own floor.",
            f"{bench.written.sources['p2p_check_gb_s']}; {bench.written.sources['nvlink_links']}",
        )
