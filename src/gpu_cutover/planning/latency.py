"""How fast physics lets a model answer, and what to expect of a real engine. Seconds everywhere.

Decoding one token reads every weight once (and nothing else counts much), so `bytes / (bandwidth x GPUs)` is a floor
that no engine can beat; real ones reach 0.5-0.75 of it. Prefill and speech encoding are arithmetic: `operations /
(peak x efficiency)`.
"""

from __future__ import annotations

from ..catalog import Catalog, Format, Gpu, Model

NOTE_TOKENS = 400  # a SOAP note of the plan
PROMPT_TOKENS = 3000  # a consultation's transcript with its instructions
WINDOW_S = 30.0  # Whisper encodes 30 s of audio at once
PASSAGE_TOKENS = 512  # what an embedding or ranking request carries


def decode_floor(model: Model, weights: Format, gpu: Gpu, gpus: int) -> float:
    """Seconds per token at 100 % of the memory bandwidth: bytes read per token / (bandwidth x GPUs)."""
    return model.decode_bytes(weights) / (gpu.memory_bandwidth * gpus)


def decode_expected(model: Model, weights: Format, gpu: Gpu, gpus: int, catalog: Catalog) -> float:
    """Seconds per token of one stream: floor / 0.65, and two all-reduces per layer when split over GPUs."""
    reduces = 2 * model.architecture.layers if gpus > 1 else 0
    return decode_floor(model, weights, gpu, gpus) / catalog.vllm.decode_efficiency + reduces * gpu.all_reduce_s


def prefill(model: Model, weights: Format, gpu: Gpu, gpus: int, tokens: int, catalog: Catalog) -> float:
    """Seconds to read a prompt: 2 operations per weight and token at half of the dense peak, plus transfers."""
    seconds = 2 * model.parameters() * tokens / (weights.flops(gpu) * gpus * catalog.vllm.prefill_efficiency)
    return seconds * (1 + (gpu.prefill_comms_share if gpus > 1 else 0.0))


def note_floor(model: Model, weights: Format, gpu: Gpu, gpus: int, tokens: int = NOTE_TOKENS) -> float:
    """Seconds below which a note of so many tokens cannot be written, prompt not counted."""
    return tokens * decode_floor(model, weights, gpu, gpus)


def note_expected(
    model: Model, weights: Format, gpu: Gpu, gpus: int, streams: int, catalog: Catalog, tokens: int = NOTE_TOKENS
) -> float:
    """Seconds for a note while `streams` streams decode at once: prompt, then tokens, 4.5 % slower per stream."""
    itl = decode_expected(model, weights, gpu, gpus, catalog) * (1 + catalog.vllm.batch_slope * (streams - 1))
    return prefill(model, weights, gpu, gpus, PROMPT_TOKENS, catalog) + tokens * itl


def _encode(model: Model, gpu: Gpu, windows: int, catalog: Catalog) -> float:
    """Seconds to encode `windows` windows: linear layers, attention over all positions, convolutions."""
    shape = model.architecture
    positions, h = shape.source_positions, shape.hidden
    linear = shape.layers * (4 * h * h + 2 * h * shape.intermediate)
    attention = 4 * positions**2 * h * shape.layers
    convolutions = 6 * shape.mel_bins * h * 2 * positions + 6 * h * h * positions
    operations = windows * (2 * linear * positions + attention + convolutions)
    return operations / (gpu.bf16_flops * catalog.vllm.prefill_efficiency)


def _window_bytes(model: Model) -> int:
    return 2 * model.architecture.cross_kv_elements()


def speech_floor(model: Model, weights: Format, gpu: Gpu, audio_s: float, catalog: Catalog) -> float:
    """Seconds to transcribe, all windows in one batch: every step reads the decoder once and each window's keys."""
    windows = max(1, round(audio_s / WINDOW_S))
    step = (model.decode_bytes(weights) + windows * _window_bytes(model)) / gpu.memory_bandwidth
    return _encode(model, gpu, windows, catalog) + catalog.vllm.whisper_tokens_per_window * step


def speech_sequential_floor(model: Model, weights: Format, gpu: Gpu, audio_s: float, catalog: Catalog) -> float:
    """Seconds to decode one window after the other (the encoder not counted)."""
    windows = max(1, round(audio_s / WINDOW_S))
    step = (model.decode_bytes(weights) + _window_bytes(model)) / gpu.memory_bandwidth
    return windows * catalog.vllm.whisper_tokens_per_window * step


def speech_expected(model: Model, weights: Format, gpu: Gpu, audio_s: float, requests: int, catalog: Catalog) -> float:
    """Seconds for each of `requests` recordings transcribed at once."""
    alone = speech_floor(model, weights, gpu, audio_s, catalog) / catalog.vllm.decode_efficiency
    return alone * (1 + speech_slope(model, weights, gpu, audio_s, catalog) * (requests - 1))


def speech_slope(model: Model, weights: Format, gpu: Gpu, audio_s: float, catalog: Catalog) -> float:
    """Share of a recording's time that one more at the same time adds: all but the reading of the decoder's weights."""
    shared = catalog.vllm.whisper_tokens_per_window * model.decode_bytes(weights) / gpu.memory_bandwidth
    return 1 - shared / speech_floor(model, weights, gpu, audio_s, catalog)


def speed(model: Model, weights: Format, gpu: Gpu, gpus: int, catalog: Catalog) -> dict[str, float]:
    """What to expect of an engine.

    `ttft_s` for a 3,000-token prompt (encoders: the whole answer for a passage of 512), `itl_s` a token of one stream,
    `rtf` seconds per second of audio (speech only), and `batch_slope`: the share by which each further stream slows
    `itl_s` of all, or each further recording `rtf` of all; never `ttft_s`.
    """
    if model.kind == "speech":
        rtf = speech_expected(model, weights, gpu, 600.0, 1, catalog) / 600.0
        slope = speech_slope(model, weights, gpu, 600.0, catalog)
        return {"ttft_s": 0.0, "itl_s": 0.0, "batch_slope": round(slope, 4), "rtf": round(rtf, 6)}
    tokens = PASSAGE_TOKENS if model.kind == "encoder" else PROMPT_TOKENS
    first = round(prefill(model, weights, gpu, gpus, tokens, catalog), 4)
    if model.kind == "encoder":
        return {"ttft_s": first, "itl_s": 0.0, "batch_slope": 0.0, "rtf": 0.0}
    itl = round(decode_expected(model, weights, gpu, gpus, catalog), 6)
    return {"ttft_s": first, "itl_s": itl, "batch_slope": catalog.vllm.batch_slope, "rtf": 0.0}
