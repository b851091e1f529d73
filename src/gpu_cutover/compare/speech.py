"""Transcripts: word errors, and the words where one error is one too many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jiwer

from .types import Comparison
from .words import doses, negations, numbers, words

LENGTH_RATIO = (0.7, 1.3)  # facts: delivery C3, ASR invariants


def compare(request: Mapping[str, Any], base: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """`word_accuracy`: 1 - WER of the candidate against the baseline after normalisation, at least 0."""
    was, now = str(base["text"]), str(candidate["text"])
    was_words, now_words = words(was), words(now)
    critical = []
    if numbers(was) != numbers(now):
        critical.append("a number differs")
    if doses(was) != doses(now):
        critical.append("a dose differs")
    if negations(was) != negations(now):
        critical.append("a negation differs")
    if not was_words and now_words:
        critical.append("speech invented on silence")
    ratio = len(now_words) / len(was_words) if was_words else 1.0
    if not LENGTH_RATIO[0] <= ratio <= LENGTH_RATIO[1]:
        critical.append("length out of proportion")
    scores = {"word_accuracy": _accuracy(was_words, now_words), "length": min(ratio, 1 / ratio) if ratio else 0.0}
    return Comparison(scores, tuple(critical))


def _accuracy(was: list[str], now: list[str]) -> float:
    if not was:
        return 0.0 if now else 1.0
    return max(0.0, 1.0 - float(jiwer.wer(" ".join(was), " ".join(now))))
