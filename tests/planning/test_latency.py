"""How fast: the published floors are reproduced within 2 %, and the arithmetic behaves as physics does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning import latency

CATALOG = load_catalog()
LLAMA, LLAMA8, QWEN32 = "llama-3.1-70b-instruct", "llama-3.1-8b-instruct", "qwen2.5-32b-instruct"
H100, L40S = "h100-sxm-80", "l40s"
WHISPER = CATALOG.models["whisper-large-v3"]
BF16 = CATALOG.formats["bf16"]


# Seconds for 400 tokens on 1, 2 and 4 GPUs as the published table shows them; None: does not fit there.
FLOORS: list[tuple[str, str, str, tuple[str | None, str | None, str | None]]] = [
    (LLAMA, "bf16", H100, (None, "8.3", "4.1")),
    (LLAMA, "bf16", L40S, (None, None, "16.1")),
    (LLAMA, "fp8", H100, ("8.4", "4.2", "2.1")),
    (LLAMA, "fp8", L40S, (None, "16.3", "8.2")),
    (LLAMA, "awq-int4", H100, ("4.5", "2.2", "1.1")),
    (LLAMA, "awq-int4", L40S, ("17.4", "8.7", "4.4")),
    (QWEN32, "awq-int4", H100, ("2.1", "1.1", "0.5")),
    (QWEN32, "awq-int4", L40S, ("8.2", "4.1", "2.1")),
    (LLAMA8, "bf16", H100, ("1.8", None, None)),
    (LLAMA8, "fp8", H100, ("1.0", None, None)),
    (LLAMA8, "awq-int4", H100, ("0.6", None, None)),
    (LLAMA8, "bf16", L40S, ("6.9", "3.5", None)),
    (LLAMA8, "fp8", L40S, ("3.7", "1.9", None)),
    (LLAMA8, "awq-int4", L40S, ("2.2", "1.1", None)),
]


@pytest.mark.parametrize(
    ("model", "weights", "gpu", "gpus", "shown"),
    [(m, w, g, n, shown) for m, w, g, row in FLOORS for n, shown in zip((1, 2, 4), row, strict=True) if shown],
)
def test_the_floor_of_a_400_token_note(model: str, weights: str, gpu: str, gpus: int, shown: str) -> None:
    found = latency.note_floor(CATALOG.models[model], CATALOG.formats[weights], CATALOG.gpus[gpu], gpus)
    assert f"{found:.1f}" == shown


@pytest.mark.parametrize(
    ("weights", "gpu", "milliseconds"),
    [("bf16", H100, 20.8), ("fp8", H100, 10.5), ("awq-int4", H100, 5.6), ("fp8", L40S, 40.8), ("awq-int4", L40S, 21.8)],
)
def test_the_floor_per_token_on_a_pair(weights: str, gpu: str, milliseconds: float) -> None:
    found = latency.decode_floor(CATALOG.models[LLAMA], CATALOG.formats[weights], CATALOG.gpus[gpu], 2)
    assert found * 1000 == pytest.approx(milliseconds, rel=0.02)


@pytest.mark.parametrize(("gpu", "batched", "sequential"), [(H100, 0.353, 1.6), (L40S, 1.26, 6.2)])
def test_the_floors_of_ten_minutes_of_audio(gpu: str, batched: float, sequential: float) -> None:
    board = CATALOG.gpus[gpu]
    assert latency.speech_floor(WHISPER, BF16, board, 600, CATALOG) == pytest.approx(batched, rel=0.02)
    assert latency.speech_sequential_floor(WHISPER, BF16, board, 600, CATALOG) == pytest.approx(sequential, rel=0.02)


@pytest.mark.parametrize(("gpu", "weights", "seconds"), [(H100, "fp8", 0.214), (L40S, "awq-int4", 1.56)])
def test_reading_a_prompt_of_3000_tokens(gpu: str, weights: str, seconds: float) -> None:
    found = latency.prefill(CATALOG.models[LLAMA], CATALOG.formats[weights], CATALOG.gpus[gpu], 2, 3000, CATALOG)
    assert found == pytest.approx(seconds, rel=0.02)


def test_a_prompt_of_3000_tokens_is_423_teraflop_and_a_quarter_more_on_pcie() -> None:
    model, weights, gpu = CATALOG.models[LLAMA], CATALOG.formats["awq-int4"], CATALOG.gpus[L40S]
    assert 2 * model.parameters() * 3000 / 1e12 == pytest.approx(423, rel=0.002)
    arithmetic = latency.prefill(model, weights, gpu, 1, 3000, CATALOG) / 2
    assert f"{arithmetic:.1f}" == "1.2"
    assert f"{latency.prefill(model, weights, gpu, 2, 3000, CATALOG) - arithmetic:.1f}" == "0.4"


@pytest.mark.parametrize(("gpu", "gpus", "gb"), [(H100, 1, 14.2), (H100, 2, 28.5), (L40S, 1, 3.7), (L40S, 2, 7.3)])
def test_weights_that_write_400_tokens_in_two_seconds(gpu: str, gpus: int, gb: float) -> None:
    per_token = (2.0 - 0.3) / latency.NOTE_TOKENS
    assert per_token * CATALOG.gpus[gpu].memory_bandwidth * gpus / 1e9 == pytest.approx(gb, rel=0.02)


@pytest.mark.parametrize(
    ("gpu", "encoder", "step_ms", "decoding"), [(H100, "0.09", "2.0", "0.26"), (L40S, "0.25", "7.8", "1.01")]
)
def test_parts_of_the_speech_floor(gpu: str, encoder: str, step_ms: str, decoding: str) -> None:
    board, steps = CATALOG.gpus[gpu], CATALOG.vllm.whisper_tokens_per_window
    assert WHISPER.decode_bytes(BF16) / 1e9 == pytest.approx(1.8, rel=0.02)
    assert 20 * 2 * WHISPER.architecture.cross_kv_elements() / 1e9 == pytest.approx(4.9, rel=0.02)
    step = (WHISPER.decode_bytes(BF16) + 20 * 2 * WHISPER.architecture.cross_kv_elements()) / board.memory_bandwidth
    assert f"{1000 * step:.1f}" == step_ms
    assert f"{steps * step:.2f}" == decoding
    assert f"{latency.speech_floor(WHISPER, BF16, board, 600, CATALOG) - steps * step:.2f}" == encoder
    assert 20 * steps == 2600


def test_twelve_recordings_at_once_cannot_meet_the_target_even_on_an_h100() -> None:
    alone = latency.speech_floor(WHISPER, BF16, CATALOG.gpus[H100], 600, CATALOG)
    assert 12 * alone == pytest.approx(4.2, rel=0.02)


@pytest.mark.parametrize("gpu", [H100, L40S])
def test_the_turbo_model_has_a_lower_floor(gpu: str) -> None:
    turbo, board = CATALOG.models["whisper-large-v3-turbo"], CATALOG.gpus[gpu]
    faster = latency.speech_floor(turbo, BF16, board, 600, CATALOG)
    assert faster < latency.speech_floor(WHISPER, BF16, board, 600, CATALOG) / 2
    assert latency.speech_sequential_floor(turbo, BF16, board, 600, CATALOG) < 2.5


def test_without_fp8_units_fp8_weights_speed_up_decoding_and_not_the_prompt() -> None:
    model, fp8, gpu = CATALOG.models[LLAMA], CATALOG.formats["fp8"], CATALOG.gpus["a100-sxm-80"]
    assert latency.prefill(model, fp8, gpu, 2, 3000, CATALOG) == latency.prefill(model, BF16, gpu, 2, 3000, CATALOG)
    assert latency.decode_floor(model, fp8, gpu, 2) < 0.52 * latency.decode_floor(model, BF16, gpu, 2)


def test_nvidias_published_figure_lies_between_floor_and_a_third_above_the_expectation() -> None:
    args = CATALOG.models[LLAMA], CATALOG.formats["fp8"], CATALOG.gpus[H100], 2
    published = 0.01858
    assert latency.decode_floor(*args) < published < 1.34 * latency.decode_expected(*args, CATALOG)


def test_pcie_transfers_cost_a_pair_of_l40s_four_milliseconds_a_token() -> None:
    model, weights, gpu = CATALOG.models[LLAMA], CATALOG.formats["awq-int4"], CATALOG.gpus[L40S]
    extra = (
        latency.decode_expected(model, weights, gpu, 2, CATALOG) - latency.decode_floor(model, weights, gpu, 2) / 0.65
    )
    assert 0.003 <= extra <= 0.005


MODELS = st.sampled_from(sorted(CATALOG.models))
GPUS = st.sampled_from(sorted(CATALOG.gpus))


@given(
    st.sampled_from([LLAMA, LLAMA8, QWEN32]), st.sampled_from(sorted(CATALOG.formats)), GPUS, st.sampled_from([1, 2, 4])
)
def test_nothing_is_expected_to_beat_its_floor(model: str, weights: str, gpu: str, gpus: int) -> None:
    known, form, board = CATALOG.models[model], CATALOG.formats[weights], CATALOG.gpus[gpu]
    assert latency.decode_expected(known, form, board, gpus, CATALOG) > latency.decode_floor(known, form, board, gpus)


@given(GPUS, st.integers(1, 40), st.integers(1, 3600))
def test_more_recordings_never_get_faster(gpu: str, requests: int, audio_s: int) -> None:
    board = CATALOG.gpus[gpu]
    fewer = latency.speech_expected(WHISPER, BF16, board, audio_s, requests, CATALOG)
    assert fewer <= latency.speech_expected(WHISPER, BF16, board, audio_s, requests + 1, CATALOG)
    assert fewer >= latency.speech_floor(WHISPER, BF16, board, audio_s, CATALOG)


@given(MODELS, GPUS)
def test_speed_has_the_same_keys_for_every_model(model: str, gpu: str) -> None:
    found = latency.speed(CATALOG.models[model], BF16, CATALOG.gpus[gpu], 1, CATALOG)
    assert set(found) == {"ttft_s", "itl_s", "batch_slope", "rtf"}
    assert all(value >= 0 for value in found.values())
    assert (found["rtf"] > 0) == (CATALOG.models[model].kind == "speech")
