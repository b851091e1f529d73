"""The order of the benchmark: warm up, one request of each kind at a time, then notes and chats all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from . import figures, questions
from .client import Door, ask
from .figures import Sample
from .questions import Request

ROUNDS = 3  # of the retrieval measurement
SEARCHES_PER_ROUND = 20
WARM_TOKENS, WARM_AUDIO_S = 4, 30.0
Ask = Callable[[Request], Sample]


@dataclass(frozen=True)
class Scope:
    """How much is asked. Counts per route; tokens per streamed answer; seconds of audio."""

    requests: int
    soap_sessions: int
    chat_sessions: int
    tokens: int = 24
    audio_s: float = 600.0
    routes: tuple[str, ...] = ("audio", "chat", "reason", "embed", "rerank", "vision")


def benchmark(door: Door, scope: Scope) -> dict[str, Any]:
    """The reading: per route and workload a summary, the figures that targets name, and every sample attached."""

    def timed(request: Request) -> Sample:
        return ask(door, request, time.monotonic())

    started = time.monotonic()
    warm = _together([[request] for request in _one_of_each(scope)], timed)
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(_retrieval, timed if {"embed", "rerank"} <= set(scope.routes) else None)
        alone = _together(_alone(scope), timed)
        rounds = searching.result()
    burst = _together([[request] for request in _burst(scope)], timed) if "chat" in scope.routes else []
    retrieval = [sample for values in rounds for pair in values for sample in pair]
    return {
        "door": door.url,
        "workloads": {
            name: figures.summary([sample for sample in alone + retrieval if sample.workload == name])
            for name in sorted({sample.workload for sample in alone + retrieval})
        },
        "burst": {
            name: figures.summary([sample for sample in burst if sample.workload == name])
            for name in sorted({sample.workload for sample in burst})
        },
        "figures": _figures(scope, alone, rounds, burst),
        "warm_up_errors": sorted({f"{sample.workload}: {sample.error}" for sample in warm if sample.error}),
        "seconds_s": round(time.monotonic() - started, 1),
        "attachment": {
            "name": "smoke-samples",
            "content": {"alone": figures.raw(alone + retrieval), "burst": figures.raw(burst)},
        },
    }


def _requests(scope: Scope, tokens: int, audio_s: float) -> dict[str, Request]:
    made = {
        "soap": questions.soap(tokens),
        "chat": questions.chat(tokens),
        "reason": questions.reason(tokens),
        "vision": questions.vision(tokens),
        "audio": questions.audio(audio_s),
        "embed": questions.embed(),
        "rerank": questions.rerank(),
    }
    return {name: request for name, request in made.items() if request.route in scope.routes}


def _one_of_each(scope: Scope) -> list[Request]:
    """Warm-up: a short recording and few tokens load everything that long ones need."""
    return list(_requests(scope, WARM_TOKENS, WARM_AUDIO_S).values())


def _alone(scope: Scope) -> list[list[Request]]:
    """Lanes side by side, one per kind; within a lane one request after the other."""
    made = _requests(scope, scope.tokens, scope.audio_s)
    return [[request] * scope.requests for name, request in made.items() if name not in ("embed", "rerank")]


def _burst(scope: Scope) -> list[Request]:
    return [questions.soap(scope.tokens)] * scope.soap_sessions + [questions.chat(scope.tokens)] * scope.chat_sessions


def _together(lanes: Sequence[Sequence[Request]], timed: Ask) -> list[Sample]:
    filled = [lane for lane in lanes if lane]
    with ThreadPoolExecutor(max(1, len(filled))) as pool:
        return [
            sample for lane in pool.map(lambda lane: [timed(request) for request in lane], filled) for sample in lane
        ]


def _retrieval(timed: Ask | None) -> list[list[tuple[Sample, Sample]]]:
    """Question embedded, then passages ranked, one after the other, as a search does it."""
    if timed is None:
        return []
    embed, rerank = questions.embed(), questions.rerank()
    return [[(timed(embed), timed(rerank)) for _ in range(SEARCHES_PER_ROUND)] for _ in range(ROUNDS)]


def _figures(
    scope: Scope, alone: Sequence[Sample], rounds: Sequence[Sequence[tuple[Sample, Sample]]], burst: Sequence[Sample]
) -> dict[str, float | int | None]:
    """The figures by the targets' names. A figure is None where a request failed that it needs."""

    def of(samples: Sequence[Sample], workload: str) -> list[Sample]:
        return [sample for sample in samples if sample.workload == workload]

    def p95(samples: Sequence[Sample], key: Callable[[Sample], float]) -> float | None:
        failed = any(sample.error for sample in samples)
        value = None if failed else figures.percentile([key(sample) for sample in samples], 0.95)
        return None if value is None else round(value, 4)

    broken = any(sample.error for values in rounds for pair in values for sample in pair)
    searched = [[sum(sample.total_s for sample in pair) for pair in values] for values in rounds]
    return {
        "whisper_p95_s": p95(of(alone, "audio"), lambda sample: sample.total_s),
        "soap_first_token_p95_s": p95(of(alone, "soap"), lambda sample: sample.first_s),
        "soap_alone_p95_s": figures.note_p95(of(alone, "soap")) if of(alone, "soap") else None,
        # While everybody is served at once: the worst moment of the day, not the best.
        "soap_p95_s": figures.note_p95(of(burst, "soap")) if of(burst, "soap") else None,
        "retrieval_p95_s": None if broken else figures.p95_of_rounds(searched),
        "concurrent_soap": figures.at_once(of(burst, "soap")) if burst else None,
        "concurrent_chat": figures.at_once(of(burst, "chat")) if burst else None,
    }
