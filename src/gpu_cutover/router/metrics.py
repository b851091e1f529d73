"""What a router tells the monitoring. No tenant's content, only names, counts and seconds.

Names of the OpenTelemetry semantic conventions for generative AI where there are any (`gen_ai.*`, dots as
underscores, the conventions' own bucket bounds, attributes as labels), our own prefix elsewhere. A model's label is the
leg's name for it: what a caller writes into a request is no label, or one caller could fill the monitor's memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
# Bounds of the conventions, for request duration, time to first token and time per output token.
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
PREFIX = "gpu_cutover_router"
OPERATIONS = {"chat": "chat", "reason": "chat", "vision": "chat", "embed": "embeddings"}
_MODEL = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt on a leg as the monitoring hears of it. Times in seconds; None: it did not come to that."""

    route: str
    leg: str
    model: str
    outcome: str
    total_s: float
    first_token_s: float | None
    tokens: int | None


class _Series:
    """One histogram with its labels' values. The library's own costs 2 µs a value."""

    __slots__ = ("bounds", "counts", "labels", "total")

    def __init__(self, bounds: Sequence[float], labels: tuple[str, ...]) -> None:
        self.bounds, self.labels = bounds, labels
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it), as the exposition format wants them."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class _Histogram(Collector):
    """A histogram by labels. Only the event loop's thread counts and reads, so there is no lock."""

    def __init__(self, name: str, what: str, bounds: Sequence[float], labels: Sequence[str]) -> None:
        self._name, self._what, self._bounds, self._names = name, what, bounds, labels
        self._series: dict[tuple[str, ...], _Series] = {}

    def labels(self, *values: str) -> _Series:
        """The series of these labels' values."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = _Series(self._bounds, values)
        return series

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What there is to expose."""
        family = HistogramMetricFamily(self._name, self._what, labels=self._names)
        for series in self._series.values():
            family.add_metric(series.labels, series.buckets(), series.total)
        yield family


@dataclass(frozen=True, slots=True)
class _OfLeg:
    """The histograms of one leg's attempts with one outcome, looked up once: a look-up costs more than a count."""

    duration: _Series
    first_byte: _Series
    total: _Series
    first_token: _Series
    per_token: _Series
    usage: _Series


class Metrics:
    """One registry per router, so that tests can run several in a process."""

    def __init__(self, pool: str) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._of_leg: dict[tuple[str, ...], _OfLeg] = {}
        self.attempts = self._counter(
            "attempts", "Attempts on a leg, by outcome", ["tenant", "route", "leg", "why", "outcome"]
        )
        self.turned_away = self._counter("turned_away", "Requests refused because too much was under way", ["reason"])
        self.first_byte = self._seconds("first_byte_seconds", "Time to the first byte")
        self.total = self._seconds("total_seconds", "Time to the last byte")
        self.in_flight = self._gauge("in_flight", "Requests under way")
        self.in_flight_bytes = self._gauge("in_flight_body_bytes", "Bytes of their bodies")
        self.draining = self._gauge("draining", "1 once the router takes no more connections")
        self.breaker_open = self._gauge("breaker_open", "1 while the model's breaker is open", ["model"])
        self.table_version = self._gauge("table_version", "Version of the table in force")
        self.table_bad = self._gauge("table_bad", "1 while the table on disk is wrong and ignored")
        self.placement_age = self._gauge("placement_age_seconds", "Age of the placement last heard")
        self.mirrored = self._counter("mirrored", "Copies compared on-prem", ["route", "outcome"])
        self.mirror_dropped = self._counter("mirror_dropped", "Copies dropped by the full queue", ["route"])
        self.compare_dropped = self._counter(
            "compare_dropped", "Answers that were not compared, for lack of room", ["route"]
        )
        self.mirror_waiting = self._gauge("mirror_waiting", "Copies waiting in the queue")
        self.reversed = self._counter("reverse_shadow", "On-prem answers asked of the cloud", ["route", "outcome"])
        self.reverse_dropped = self._counter("reverse_shadow_dropped", "Of these, dropped by the full queue", ["route"])
        self.records_written = self._gauge("records_written", "Number of the record log's last line")
        self.records_lost = self._gauge("records_lost", "Records that could not be kept")
        self._gauge("info", "The router's pool", ["pool"]).labels(pool).set(1)
        self._duration = self._gen_ai(
            "server_request_duration_seconds", "Duration of an attempt", DURATION_S, [*_MODEL, "error_type"]
        )
        self._first_token = self._gen_ai("server_time_to_first_token_seconds", "Time to the first token", FIRST_TOKEN_S)
        self._per_token = self._gen_ai(
            "server_time_per_output_token_seconds", "Time per token after the first", PER_TOKEN_S
        )
        self._usage = self._gen_ai("client_token_usage", "Tokens", TOKENS, [*_MODEL, "gen_ai_token_type"])

    def count(self, *labels: str) -> None:
        """Count one attempt, or a request that came to none: tenant, route, leg, why, outcome."""
        counter = self._counters.get(labels)
        if counter is None:
            counter = self._counters[labels] = self.attempts.labels(*labels)
        counter.inc()

    def tell(self, attempt: Told) -> None:
        """Tell the times of one attempt on a leg."""
        key = (attempt.route, attempt.leg, attempt.model, attempt.outcome)
        of_leg = self._of_leg.get(key)
        if of_leg is None:
            of_leg = self._of_leg[key] = self._looked_up(attempt)
        of_leg.duration.observe(attempt.total_s)
        if attempt.first_token_s is None:
            return
        of_leg.first_byte.observe(attempt.first_token_s)
        of_leg.total.observe(attempt.total_s)
        of_leg.first_token.observe(attempt.first_token_s)
        if attempt.tokens:
            of_leg.usage.observe(attempt.tokens)
        if attempt.tokens and attempt.tokens > 1:
            of_leg.per_token.observe((attempt.total_s - attempt.first_token_s) / (attempt.tokens - 1))

    def _looked_up(self, attempt: Told) -> _OfLeg:
        model = (OPERATIONS.get(attempt.route, attempt.route), attempt.leg, attempt.model)
        return _OfLeg(
            duration=self._duration.labels(*model, "" if attempt.outcome == "ok" else attempt.outcome),
            first_byte=self.first_byte.labels(attempt.route, attempt.leg),
            total=self.total.labels(attempt.route, attempt.leg),
            first_token=self._first_token.labels(*model),
            per_token=self._per_token.labels(*model),
            usage=self._usage.labels(*model, "output"),
        )

    def _counter(self, name: str, what: str, labels: list[str]) -> Counter:
        return Counter(f"{PREFIX}_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", what, labels or [], registry=self.registry)

    def _seconds(self, name: str, what: str) -> _Histogram:
        return self._histogram(f"{PREFIX}_{name}", what, SECONDS, ["route", "leg"])

    def _gen_ai(self, name: str, what: str, bounds: Sequence[float], labels: Sequence[str] = _MODEL) -> _Histogram:
        return self._histogram(f"gen_ai_{name}", what, bounds, labels)

    def _histogram(self, name: str, what: str, bounds: Sequence[float], labels: Sequence[str]) -> _Histogram:
        made = _Histogram(name, what, bounds, labels)
        self.registry.register(made)
        return made
