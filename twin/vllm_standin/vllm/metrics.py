"""vLLM's metric names in Prometheus' text format; a few counters need no library."""

from __future__ import annotations

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
)
COUNTERS = (
    "prompt_tokens_total",
    "generation_tokens_total",
    "num_preemptions_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
)


class Histogram:
    """Cumulative buckets of seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one observation (or several equal ones)."""
        place = next((index for index, bound in enumerate(SECONDS) if seconds <= bound), len(SECONDS))
        self.counts[place] += times
        self.total += seconds * times

    def lines(self, name: str, labels: str) -> list[str]:
        """The exposition lines."""
        found, below = [], 0
        for bound, count in zip([*map(str, SECONDS), "+Inf"], self.counts, strict=True):
            below += count
            found.append(f'{name}_bucket{{{labels},le="{bound}"}} {below}')
        return [*found, f"{name}_count{{{labels}}} {below}", f"{name}_sum{{{labels}}} {self.total}"]


class Metrics:
    """All of one engine's metrics."""

    def __init__(self, model: str) -> None:
        self.labels = f'engine="0",model_name="{model}"'
        self.running = self.waiting = 0
        self.kv_usage = 0.0
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        self.histograms = {name: Histogram() for name in HISTOGRAMS}

    def text(self) -> str:
        """The page at /metrics."""
        gauges = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": self.kv_usage,
        }
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{self.labels}}} {value}"]
        for name, value in self.counters.items():
            lines += [f"# TYPE vllm:{name} counter", f"vllm:{name}{{{self.labels}}} {value}"]
        lines.append("# TYPE vllm:request_success_total counter")
        for reason, value in self.finished.items():
            lines.append(f'vllm:request_success_total{{{self.labels},finished_reason="{reason}"}} {value}')
        for name, histogram in self.histograms.items():
            lines += [f"# TYPE vllm:{name} histogram", *histogram.lines(f"vllm:{name}", self.labels)]
        return "\n".join(lines) + "\n"
