"""The arguments that decide what an engine takes of its GPUs, as vLLM's command line has them. Pure."""

from __future__ import annotations


def vllm_flags(kind: str, gpus: int, fraction: float, max_model_len: int, kv_cache_dtype: str) -> list[str]:
    """Arguments of a model of this kind over so many GPUs with this share of each one's memory.

    Written here once: a placement of the planner and the environment of a unit must not differ by a digit, because a
    changed environment restarts the engine.
    """
    arguments = [
        *("--tensor-parallel-size", str(gpus)),
        *("--gpu-memory-utilization", f"{fraction:.3f}"),
        *("--max-model-len", str(max_model_len)),
    ]
    if kind == "decoder":
        return [*arguments, "--kv-cache-dtype", kv_cache_dtype]
    return [*arguments, "--runner", "pooling"] if kind == "encoder" else arguments
