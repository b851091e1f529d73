"""What is behind the endpoints: model files, GPUs, speed, the queue."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from . import load, state
from .metrics import Metrics

SPEED_FILE = Path(os.environ.get("ENGINE_SPEED", "/etc/twin/engine-speed.json"))
IDLE_SHARE = 0.2  # a loaded model keeps a board at its high clocks
CHARACTERS_PER_TOKEN = 6
ACTIVATION_BYTES = 2**30
FULL_PROMPT, FULL_PASSAGE = 3000, 512  # what the planner's `ttft_s` is for
LEAST_TTFT_S = 0.005  # no request is free


class StartError(Exception):
    """The engine cannot start; the text is vLLM's own or close to it."""


@dataclass(frozen=True)
class Speed:
    """Predicted speed. Seconds to the first token of a full prompt (FULL_PROMPT tokens; encoders: FULL_PASSAGE) and
    between
    tokens; `batch_slope` is the share that each further stream adds; `rtf` is compute seconds per second of audio."""

    ttft_s: float = 0.05
    itl_s: float = 0.005
    batch_slope: float = 0.045
    rtf: float = 0.004

    @staticmethod
    def of(model: str, path: Path = SPEED_FILE) -> Speed:
        """The prediction for a model; a model that is not in the file runs at the defaults."""
        known = {name: value for name, value in prediction(model, path).items() if name in Speed.__dataclass_fields__}
        return Speed(**known)


def read_model(directory: Path) -> str:
    """The model's architecture, once every weight file is there and whole; raises StartError."""
    try:
        config = json.loads((directory / "config.json").read_text())
        index = json.loads((directory / "model.safetensors.index.json").read_text())
    except (OSError, ValueError) as error:
        raise StartError(f"Can't load the configuration of '{directory}': {error}") from error
    for name in sorted(set(index["weight_map"].values())):
        check_weights(directory / name)
    return str((config.get("architectures") or ["?"])[0])


def check_weights(path: Path) -> None:
    """A safetensors file must be as long as its header says; raises StartError."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
        whole = path.stat().st_size == 8 + length + end
    except (OSError, ValueError, struct.error) as error:
        raise StartError(f"Error while deserializing header of {path}: {error}") from error
    if not whole:
        raise StartError(f"Error while deserializing {path}: incomplete metadata, file not fully covered")


def wanted_bytes(options: argparse.Namespace, total: int) -> int:
    """What the engine takes of each GPU: a share of it, or its weights and the cache that --kv-cache-memory-bytes
    fixes.
    """
    if not options.kv_cache_memory_bytes:
        return int(total * options.gpu_memory_utilization)
    weights = prediction((options.served_model_name or [""])[0]).get("weights_bytes", 0)
    return int(weights / options.tensor_parallel_size) + options.kv_cache_memory_bytes + ACTIVATION_BYTES


def prediction(model: str, path: Path = SPEED_FILE) -> dict[str, float]:
    """The planner's figures for a model, none when there is no file or no entry."""
    try:
        data = json.loads(path.read_text()).get(model, {})
    except (OSError, ValueError, AttributeError):
        return {}
    return {name: float(value) for name, value in data.items()}


def take_gpus(options: argparse.Namespace) -> tuple[list[int], int]:
    """The engine's GPUs and the bytes it will hold on each; raises StartError as CUDA or vLLM would."""
    current = state.read()
    gpus = state.visible(current, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        raise StartError("RuntimeError: No CUDA GPUs are available")
    if len(gpus) < options.tensor_parallel_size:
        raise StartError(
            f"World size ({options.tensor_parallel_size}) is larger than the number of available GPUs ({len(gpus)})"
        )
    gpus = gpus[: options.tensor_parallel_size]
    wanted = 0
    for index in gpus:
        if state.is_lost(current, index):
            raise StartError(f"CUDA error: device {index} is lost")
        total, used = (int(state.of_gpu(current, index, key)) for key in ("mem.total", "mem.used"))
        wanted = wanted_bytes(options, total)
        if total - used < wanted:
            raise StartError(
                f"Free memory on device cuda:{index} ({(total - used) / 2**30:.2f}/{total / 2**30:.2f} GiB) "
                "on startup is less than "
                f"desired GPU memory utilization ({options.gpu_memory_utilization}, {wanted / 2**30:.2f} GiB)."
            )
    return gpus, wanted


class Engine:
    """One model on its GPUs."""

    def __init__(self, options: argparse.Namespace) -> None:
        directory = Path(options.model_tag or options.model or "")
        self.architecture = read_model(directory)
        self.names = options.served_model_name or [str(directory)]
        self.max_model_len = options.max_model_len
        self.gpus, self.memory_bytes = take_gpus(options)
        self.metrics = Metrics(self.names[0])
        self._speed, self._speed_read = Speed.of(self.names[0]), time.monotonic()
        self._slots = asyncio.Semaphore(options.max_num_seqs)
        self._slots_count = options.max_num_seqs

    @property
    def is_speech(self) -> bool:
        """Does the model transcribe?"""
        return "Whisper" in self.architecture

    @property
    def is_pooling(self) -> bool:
        """Does the model embed or rank instead of writing?"""
        return not self.is_speech and "Generation" not in self.architecture and "CausalLM" not in self.architecture

    def pace(self) -> Speed:
        """The speed now: the prediction (read again every few seconds), slowed by a full batch and by throttled
        GPUs.
        """
        if time.monotonic() - self._speed_read > 5:
            self._speed, self._speed_read = Speed.of(self.names[0]), time.monotonic()
        throttle = state.slowdown(state.read(), self.gpus)
        batch = 1 + self._speed.batch_slope * max(0, self.metrics.running - 1)
        slow = batch * throttle
        return Speed(self._speed.ttft_s * throttle, self._speed.itl_s * slow, 0.0, self._speed.rtf * slow)

    def first_token_s(self, tokens: int) -> float:
        """Seconds to read a prompt of so many tokens: prefill is proportional to them."""
        full = FULL_PASSAGE if self.is_pooling else FULL_PROMPT
        return LEAST_TTFT_S + self.pace().ttft_s * tokens / full

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait in the queue, then hold one of --max-num-seqs places; yields the time of arrival."""
        arrived = time.monotonic()
        self.metrics.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.metrics.waiting -= 1
        self.metrics.running += 1
        self.metrics.kv_usage = self.metrics.running / self._slots_count
        self.metrics.histograms["request_queue_time_seconds"].observe(time.monotonic() - arrived)
        try:
            yield arrived
        finally:
            self.metrics.running -= 1
            self.metrics.kv_usage = self.metrics.running / self._slots_count
            self._slots.release()

    def finish(self, arrived: float, first: float, prompt_tokens: int, tokens: int, reason: str) -> None:
        """Count one answered request."""
        now = time.monotonic()
        self.metrics.histograms["time_to_first_token_seconds"].observe(first - arrived)
        self.metrics.histograms["e2e_request_latency_seconds"].observe(now - arrived)
        if tokens > 1:
            self.metrics.histograms["inter_token_latency_seconds"].observe((now - first) / (tokens - 1), tokens - 1)
        self.metrics.counters["prompt_tokens_total"] += prompt_tokens
        self.metrics.counters["generation_tokens_total"] += tokens
        self.metrics.finished[reason] += 1

    async def live(self) -> None:
        """Declare the load every second; a lost GPU ends the process at once, as a CUDA error ends vLLM's engine."""
        while True:
            busy = 0.5 if self.metrics.running else 0.0
            load.declare("vllm", IDLE_SHARE + busy + 0.02 * self.metrics.running, self.memory_bytes, self.gpus)
            current = state.read()
            lost = [index for index in self.gpus if state.is_lost(current, index)]
            if lost:
                print(f"EngineDeadError: CUDA error: device {lost[0]} is lost", flush=True)
                os._exit(1)
            await asyncio.sleep(1)
