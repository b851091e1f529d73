"""The hospital's scaling framework and the assumptions of our arithmetic beside it, from `scaling.yml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .reading import leaves, read_entry, read_file


@dataclass(frozen=True)
class Scaling:
    """The framework's tables as it gives them, prices in `currency`, and the work assumed; see each value's source."""

    currency: str
    gpu: str
    gpus_per_server_max: int
    chat_users: Sequence[int]
    chat_table: Mapping[int, Sequence[float | None]]
    first_token_s: float
    batch_table: Mapping[str, Sequence[float]]
    batch_sizes: Sequence[int]
    training_tree: Sequence[Sequence[int | None]]
    response_limit_s: float
    server_two_gpus: int
    server_two_gpus_range: Sequence[int]
    phase_two_nodes: Sequence[int]
    card: Mapping[str, int]
    memory_128_gb: int
    amortisation_months: int
    kwh: float
    pue: float
    host_w: int
    chat_model: str
    chat_format: str
    users: int
    think_s: float
    chat_prompt_tokens: int
    chat_new_tokens: int
    chat_answer_tokens: int
    reading_tokens_s: float
    batch_prompt_tokens: int
    batch_answer_tokens: int
    batch_busy: float
    chat_busy: float
    max_streams: int
    max_model_len: int
    max_nodes: int
    train_tokens: int
    train_sequence: int
    train_micro_batch: int
    lora_rank: int
    train_efficiency: float
    train_scaling: float
    train_context_mib: int
    methods: Mapping[str, Sequence[float]]
    adapter_bytes: int
    layer_activation_bytes: int
    cnn: Mapping[str, int]
    rules: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, Any]

    def server(self, gpu: str, gpus: int) -> int | None:
        """Price of a server with so many GPUs, or None where the card has no price.

        The framework's 2-GPU server with other cards; with one card also half of the memory, as its phase 2 says.
        """
        if gpu not in self.card:
            return None
        chassis = self.server_two_gpus - 2 * self.card["l40s"]
        return chassis + gpus * self.card[gpu] - (self.memory_128_gb if gpus == 1 else 0)


@cache
def load_scaling() -> Scaling:
    """Read `scaling.yml` once (about 5 ms)."""
    return read_entry("scaling.yml", "scaling", read_file("scaling.yml"), leaves(Scaling))
