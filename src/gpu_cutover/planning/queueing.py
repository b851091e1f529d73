"""How long users wait for one engine that batches: a closed queue with a server whose speed depends on its load. Pure.

Every user asks, reads the answer, thinks, and asks again, so no more requests can wait than there are users (the
machine-repair model). With `n` requests in the batch an answer takes `n` prompts (each stream brings one during
another's answer) and its tokens at the speed of `n` streams; further requests queue once the cache is full. States of
the queue follow from the balance of a birth-and-death chain with exponential thinking; what an arriving request finds
is the chain with one user less (arrival theorem). Prompts are read one after the other, so an arriving one finds others
ahead as in a queue with one server: geometric, at the share of time that the engine spends reading. Variation of answer
lengths is not in it: measure before you sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EXACT_USERS = 5000  # beyond, the queue is its own mean: the saturated engine answers at one rate


@dataclass(frozen=True)
class Batcher:
    """One engine under one kind of work. Seconds; `streams` is how many requests its cache holds at once."""

    prefill_s: float
    itl_s: float
    slope: float
    answer_tokens: int
    streams: int
    think_s: float

    def token_s(self, active: int) -> float:
        """Seconds between two tokens of one stream."""
        return self.itl_s * (1 + self.slope * (active - 1))

    def answer_s(self, active: int) -> float:
        """Seconds from the start of a prompt to the last token."""
        return active * self.prefill_s + self.answer_tokens * self.token_s(active)

    def rate(self, requests: int) -> float:
        """Answers per second with so many requests present."""
        active = min(requests, self.streams)
        return active / self.answer_s(active) if active else 0.0


@dataclass(frozen=True)
class Waiting:
    """What users of one engine see, seconds; `queued` requests on the mean, `busy` share of the engine's limit."""

    answers_s: float
    first_token_p50_s: float
    first_token_p95_s: float
    answer_p95_s: float
    token_p95_s: float
    queued: float
    busy: float


def waiting(engine: Batcher, users: int) -> Waiting:
    """What so many users (at least one) see; an engine whose cache holds no request answers nobody: infinite."""
    if engine.streams < 1:
        return Waiting(0.0, math.inf, math.inf, math.inf, math.inf, float(users), 1.0)
    if users > EXACT_USERS:
        return _saturated(engine, users)
    present = _states(engine, users)
    answers = sum(share * engine.rate(n) for n, share in enumerate(present))
    found = _states(engine, users - 1)
    p50, p95 = _quantile(found, 0.5), _quantile(found, 0.95)
    return Waiting(
        answers,
        _first_token(engine, p50, answers, 0.5),
        _first_token(engine, p95, answers, 0.95),
        _queue_s(engine, p95) + engine.answer_s(min(p95 + 1, engine.streams)),
        engine.token_s(min(p95 + 1, engine.streams)),
        sum(share * max(0, n - engine.streams) for n, share in enumerate(present)),
        answers / engine.rate(engine.streams),
    )


def most_users(engine: Batcher, first_token_s: float, token_s: float, limit: int = EXACT_USERS) -> int:
    """Most users whose first token and whose stream keep these times at p95; 0 when not even one's does."""
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        seen = waiting(engine, middle)
        kept = seen.first_token_p95_s <= first_token_s and seen.token_p95_s <= token_s
        low, high = (middle, high) if kept else (low, middle)
    return low


def _states(engine: Batcher, users: int) -> list[float]:
    """Probability of 0, 1, … `users` requests present."""
    logs = [0.0]
    for n in range(1, users + 1):
        asking = (users - n + 1) / engine.think_s
        logs.append(logs[-1] + math.log(asking / engine.rate(n)))
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    total = sum(weights)
    return [weight / total for weight in weights]


def _quantile(states: Sequence[float], share: float) -> int:
    reached = 0.0
    for n, probability in enumerate(states):
        reached += probability
        if reached >= share - 1e-12:
            return n
    return len(states) - 1


def _queue_s(engine: Batcher, found: int) -> float:
    """Seconds until a request that finds so many gets into the batch."""
    ahead = found - engine.streams + 1
    return ahead / engine.rate(engine.streams) if ahead > 0 else 0.0


def _prompts_ahead(prompts: float, share: float) -> int:
    """Prompts that an arriving one finds, at most in this share of cases: geometric, as in a queue with one server."""
    if prompts <= 1 - share:
        return 0
    return math.ceil(math.log(1 - share) / math.log(prompts)) - 1


def _first_token(engine: Batcher, found: int, answers_s: float, share: float) -> float:
    """The queue, the prompts ahead, the own prompt, one token."""
    ahead = _prompts_ahead(min(0.99, answers_s * engine.prefill_s), share)
    active = min(found + 1, engine.streams)
    return _queue_s(engine, found) + (1 + ahead) * engine.prefill_s + engine.token_s(active)


def _saturated(engine: Batcher, users: int) -> Waiting:
    answers = min(engine.rate(engine.streams), users / (engine.think_s + engine.answer_s(1)))
    found = max(0, round(users - answers * engine.think_s))
    active = min(found + 1, engine.streams)
    return Waiting(
        answers,
        _first_token(engine, found, answers, 0.5),
        _first_token(engine, found, answers, 0.95),
        _queue_s(engine, found) + engine.answer_s(active),
        engine.token_s(active),
        float(max(0, found - engine.streams)),
        answers / engine.rate(engine.streams),
    )
