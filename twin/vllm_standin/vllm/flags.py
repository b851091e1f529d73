"""The command line: those of vLLM's flags that a unit of this project may carry. An unknown flag is an error, exit
2.
"""

from __future__ import annotations

import argparse

from . import __version__

_WITH_VALUE = {
    "--host": str,
    "--port": int,
    "--max-model-len": int,
    "--max-num-seqs": int,
    "--max-num-batched-tokens": int,
    "--gpu-memory-utilization": float,
    "--kv-cache-dtype": str,
    "--kv-cache-memory-bytes": int,
    "--dtype": str,
    "--quantization": str,
    "--runner": str,
    "--convert": str,
    "--tokenizer": str,
    "--revision": str,
    "--seed": int,
    "--api-key": str,
    "--load-format": str,
    "--chat-template": str,
    "--limit-mm-per-prompt": str,
    "--middleware": str,
    "--uvicorn-log-level": str,
    "--generation-config": str,
    "--pooler-config": str,
    "--hf-overrides": str,
    "--override-generation-config": str,
    "--compilation-config": str,
    "--distributed-executor-backend": str,
    "--pipeline-parallel-size": int,
    "--root-path": str,
    "--swap-space": float,
    "--block-size": int,
    "--max-log-len": int,
    "--download-dir": str,
    "--mm-processor-kwargs": str,
    "--speculative-config": str,
    "--served-model-name": str,
}
_SWITCHES = (
    "--trust-remote-code",
    "--enforce-eager",
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--enable-chunked-prefill",
    "--no-enable-chunked-prefill",
    "--disable-log-stats",
    "--enable-log-requests",
    "--no-enable-log-requests",
    "--enable-request-id-headers",
    "--disable-custom-all-reduce",
    "--disable-uvicorn-access-log",
    "--disable-fastapi-docs",
    "--enable-server-load-tracking",
)


def parser() -> argparse.ArgumentParser:
    """`vllm serve MODEL [flags]`."""
    top = argparse.ArgumentParser(prog="vllm")
    top.add_argument("-v", "--version", action="version", version=__version__)
    serve = top.add_subparsers(dest="command", required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag", nargs="?")
    serve.add_argument("--model")
    serve.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    for flag, kind in _WITH_VALUE.items():
        serve.add_argument(flag, type=kind, nargs="+" if flag == "--served-model-name" else None)
    for flag in _SWITCHES:
        serve.add_argument(flag, action="store_true")
    serve.set_defaults(
        host="0.0.0.0", port=8000, max_num_seqs=256, gpu_memory_utilization=0.92, runner="auto", max_model_len=8192
    )
    return top
