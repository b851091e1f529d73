"""Each target of the plan against arithmetic: what physics forbids, what to expect on this site's GPUs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..catalog import Catalog, Gpu, Model
from ..site import rules
from ..site.model import RouteName, Site
from . import latency

AUDIO_S = 600.0  # the plan's 10 minutes
RECORDINGS_AT_ONCE = 2  # of 12 doctors who finish independently, two do meet
SOAP_TOKENS = 8192  # context of one note: transcript, instructions, note
CHAT_TOKENS = 4096  # context of one chat
PASSAGES = 30  # candidates a retrieval ranks


@dataclass(frozen=True)
class Estimate:
    """`floor` is what nothing can beat (None: unknown), `expected` what to plan with, `how` the arithmetic."""

    floor: float | None
    expected: float
    how: str


def estimates(site: Site, catalog: Catalog) -> dict[str, Estimate]:
    """An estimate for every target that arithmetic says something about, in the target's unit."""
    found: dict[str, Estimate] = {}
    routes = site.spec.routes
    if "chat" in routes:
        found |= _note(site, catalog) | _sessions(site, catalog)
    if "audio" in routes:
        found |= _speech(site, catalog)
    if "embed" in routes and "rerank" in routes:
        found |= _retrieval(site, catalog)
    return found


def _served(site: Site, route: RouteName, catalog: Catalog) -> tuple[str, Model, Gpu, int]:
    name = site.spec.routes[route].model
    gpu = catalog.gpus[catalog.tiers[site.spec.tier].gpu]
    return name, catalog.models[name], gpu, len(site.spec.placements[rules.HEALTHY][name])


def _note(site: Site, catalog: Catalog) -> dict[str, Estimate]:
    name, model, gpu, gpus = _served(site, "chat", catalog)
    weights = catalog.formats[site.spec.models[name].format]
    streams = round(site.spec.targets["concurrent_soap"].plan + site.spec.targets["concurrent_chat"].plan)
    floor = latency.note_floor(model, weights, gpu, gpus)
    alone = latency.note_expected(model, weights, gpu, gpus, 1, catalog)
    first = latency.prefill(model, weights, gpu, gpus, latency.PROMPT_TOKENS, catalog)
    per_token = model.decode_bytes(weights) / 1e9
    return {
        "soap_p95_s": Estimate(
            floor,
            latency.note_expected(model, weights, gpu, gpus, streams, catalog),
            f"{latency.NOTE_TOKENS} tokens x {per_token:.1f} GB / ({gpus} x {gpu.memory_bandwidth / 1e12:.2f} TB/s); "
            f"alone {alone:.1f} s, expected with {streams} streams at once",
        ),
        "soap_first_token_p95_s": Estimate(
            first * catalog.vllm.prefill_efficiency,
            first,
            f"{latency.PROMPT_TOKENS} tokens of prompt, 2 operations per weight and token at half of the peak",
        ),
    }


def _sessions(site: Site, catalog: Catalog) -> dict[str, Estimate]:
    """Sessions whose cache fits beside the plan's number of the other kind."""
    name = site.spec.routes["chat"].model
    tokens = rules.fit_of(site.spec, rules.HEALTHY, catalog).kv_tokens[name]
    soap, chat = site.spec.targets["concurrent_soap"].plan, site.spec.targets["concurrent_chat"].plan
    how = f"cache of {tokens:,} tokens; a note takes {SOAP_TOKENS}, a chat {CHAT_TOKENS}"
    return {
        "concurrent_soap": Estimate(None, float(max(0, (tokens - chat * CHAT_TOKENS) // SOAP_TOKENS)), how),
        "concurrent_chat": Estimate(None, float(max(0, (tokens - soap * SOAP_TOKENS) // CHAT_TOKENS)), how),
    }


def _speech(site: Site, catalog: Catalog) -> dict[str, Estimate]:
    name, model, gpu, _ = _served(site, "audio", catalog)
    weights = catalog.formats[site.spec.models[name].format]
    alone = latency.speech_expected(model, weights, gpu, AUDIO_S, 1, catalog)
    return {
        "whisper_p95_s": Estimate(
            latency.speech_floor(model, weights, gpu, AUDIO_S, catalog),
            latency.speech_expected(model, weights, gpu, AUDIO_S, RECORDINGS_AT_ONCE, catalog),
            f"20 windows in one batch; alone {alone:.2f} s, expected with {RECORDINGS_AT_ONCE} recordings at once",
        )
    }


def _retrieval(site: Site, catalog: Catalog) -> dict[str, Estimate]:
    seconds = _encode(site, "embed", 1, catalog) + _encode(site, "rerank", PASSAGES, catalog)
    passages = f"{PASSAGES} passages of {latency.PASSAGE_TOKENS} tokens"
    how = f"one query embedded, {passages} ranked; search and network not counted"
    return {"retrieval_p95_s": Estimate(seconds * catalog.vllm.prefill_efficiency, seconds, how)}


def _encode(site: Site, route: RouteName, passages: int, catalog: Catalog) -> float:
    name, model, gpu, gpus = _served(site, route, catalog)
    weights = catalog.formats[site.spec.models[name].format]
    return latency.prefill(model, weights, gpu, gpus, passages * latency.PASSAGE_TOKENS, catalog)


def verdict(better: str, accepted: float, estimate: Estimate | None) -> str:
    """`impossible` (beyond the floor), `at risk` (beyond what to expect), `met`, or `measured`."""
    if estimate is None:
        return "measured"
    if better == "higher":
        return "met" if accepted <= estimate.expected else "at risk"
    if estimate.floor is not None and accepted < estimate.floor:
        return "impossible"
    return "met" if accepted >= estimate.expected else "at risk"
