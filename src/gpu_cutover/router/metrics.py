"""What a router tells the monitoring. No tenant's content, only names, counts and seconds."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
PREFIX = "gpu_cutover_router"


class Metrics:
    """One registry per router, so that tests can run several in a process."""

    def __init__(self, pool: str) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.attempts = Counter(
            f"{PREFIX}_attempts",
            "Attempts on a leg, by outcome",
            ["tenant", "route", "leg", "why", "outcome"],
            registry=registry,
        )
        self.first_byte = Histogram(
            f"{PREFIX}_first_byte_seconds",
            "Time to the first byte",
            ["route", "leg"],
            buckets=SECONDS,
            registry=registry,
        )
        self.total = Histogram(
            f"{PREFIX}_total_seconds", "Time to the last byte", ["route", "leg"], buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge(f"{PREFIX}_in_flight", "Requests under way", registry=registry)
        self.breaker_open = Gauge(
            f"{PREFIX}_breaker_open", "1 while the model's breaker is open", ["model"], registry=registry
        )
        self.table_version = Gauge(f"{PREFIX}_table_version", "Version of the table in force", registry=registry)
        self.table_bad = Gauge(
            f"{PREFIX}_table_bad", "1 while the table on disk is wrong and ignored", registry=registry
        )
        self.placement_age = Gauge(
            f"{PREFIX}_placement_age_seconds", "Age of the placement last heard", registry=registry
        )
        self.mirrored = Counter(
            f"{PREFIX}_mirrored", "Copies compared on-prem", ["route", "outcome"], registry=registry
        )
        self.mirror_dropped = Counter(
            f"{PREFIX}_mirror_dropped", "Copies dropped by the full queue", ["route"], registry=registry
        )
        self.mirror_waiting = Gauge(f"{PREFIX}_mirror_waiting", "Copies waiting in the queue", registry=registry)
        self.record_lines = Gauge(f"{PREFIX}_record_lines", "Number of the request log's last line", registry=registry)
        self.records_lost = Gauge(
            f"{PREFIX}_records_lost", "Records lost since the start (full disk)", registry=registry
        )
        Gauge(f"{PREFIX}_info", "The router's pool", ["pool"], registry=registry).labels(pool).set(1)
