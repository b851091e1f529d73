"""What becomes of samples: percentiles and the figures that the targets name. Pure. Seconds everywhere."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NOTE_TOKENS = 400  # a SOAP note of the plan


@dataclass(frozen=True)
class Sample:
    """One request. `error` is empty when the answer came whole; times are from the first byte sent."""

    route: str
    workload: str
    first_s: float
    total_s: float
    tokens: int
    error: str = ""
    started_s: float = 0.0

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens; None where fewer than two came."""
        return (self.total_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that at least `share` of the values do not exceed. None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def note_seconds(sample: Sample, tokens: int = NOTE_TOKENS) -> float | None:
    """Time for a whole note at this sample's pace: to the first token, then `tokens - 1` times between tokens."""
    pace = sample.inter_token_s
    return None if pace is None else sample.first_s + (tokens - 1) * pace


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Requests, errors by sentence, p50 and p95 to the first token, between tokens and in all."""
    good = [sample for sample in samples if not sample.error]
    paces = [pace for sample in good if (pace := sample.inter_token_s) is not None]
    figures: dict[str, Sequence[float]] = {
        "first_token": [sample.first_s for sample in good],
        "inter_token": paces,
        "total": [sample.total_s for sample in good],
    }
    told: dict[str, Any] = {
        "requests": len(samples),
        "errors": sorted({sample.error for sample in samples if sample.error}),
        "failed": len(samples) - len(good),
    }
    for name, values in figures.items():
        told[f"{name}_p50_s"] = _rounded(percentile(values, 0.5))
        told[f"{name}_p95_s"] = _rounded(percentile(values, 0.95))
    return told


def note_p95(samples: Sequence[Sample]) -> float | None:
    """p95 of the time for a whole note; None when any sample failed: a missing note is not a fast one."""
    seconds = [None if sample.error else note_seconds(sample) for sample in samples]
    known = [value for value in seconds if value is not None]
    return _rounded(percentile(known, 0.95)) if len(known) == len(seconds) else None


def p95_of_rounds(rounds: Sequence[Sequence[float]]) -> float | None:
    """Median of the rounds' p95: one busy moment of the measuring machine must not decide about a service."""
    tails = [tail for values in rounds if (tail := percentile(values, 0.95)) is not None]
    return _rounded(statistics.median(tails)) if tails and len(tails) == len(rounds) else None


def at_once(samples: Sequence[Sample]) -> int:
    """The largest number of answered requests that were under way at one moment."""
    edges = []
    for sample in samples:
        if not sample.error:
            edges += [(sample.started_s, 1), (sample.started_s + sample.total_s, -1)]
    running = largest = 0
    for _, step in sorted(edges):
        running += step
        largest = max(largest, running)
    return largest


def raw(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Samples for the record, rounded to 0.1 ms."""
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(sample).items()} for sample in samples]
