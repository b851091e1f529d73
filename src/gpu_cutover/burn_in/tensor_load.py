"""A tensor-core load on one GPU: `tensor_load.py --seconds S --gpu N`; one JSON line per second.

A line is `{gpu, tflops, errors, t}`. Stands alone on purpose: it runs with the Python that has torch with CUDA (the
inference engine's environment), where this package is not installed. Every product is compared with the first one: the
same inputs must give the same bits, so a GPU that computes wrongly is counted in `errors`. Exit 1 when CUDA is not
usable, the GPU is lost or errs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from typing import Any

SIZE = 8192  # 3 matrices of bf16 take 0.4 GB, so the load fits beside engines that keep a few GB free
BATCH = 16


def _matrices(torch: Any) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    left = torch.randn(SIZE, SIZE, dtype=torch.bfloat16, device="cuda")
    right = torch.randn(SIZE, SIZE, dtype=torch.bfloat16, device="cuda")
    return left, right, left @ right


def _one_second(torch: Any, left: Any, right: Any, expected: Any) -> tuple[float, int]:
    """TFLOPS (2·n³ per product) and products that differ, over about a second."""
    began, products, errors = time.monotonic(), 0, 0
    while time.monotonic() - began < 1.0:
        for _ in range(BATCH):
            result = left @ right
        torch.cuda.synchronize()
        products += BATCH
        errors += int(not torch.equal(result, expected))
    return 2 * SIZE**3 * products / (time.monotonic() - began) / 1e12, errors


def main() -> int:
    """Load one GPU until the time is over."""
    parser = argparse.ArgumentParser(prog="tensor-load")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--gpu", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's order
    os.environ["CUDA_VISIBLE_DEVICES"] = str(arguments.gpu)
    try:
        torch = importlib.import_module("torch")
        left, right, expected = _matrices(torch)
    except (ImportError, RuntimeError, AssertionError) as error:
        print(f"tensor-load: no usable CUDA for GPU {arguments.gpu}: {error}", file=sys.stderr)
        return 1
    end, total = time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end:
        try:
            tflops, errors = _one_second(torch, left, right, expected)
        except RuntimeError as error:
            print(f"tensor-load: GPU {arguments.gpu}: {error}", file=sys.stderr)
            return 1
        total += errors
        line = {"gpu": arguments.gpu, "tflops": round(tflops, 2), "errors": errors, "t": round(time.time(), 3)}
        print(json.dumps(line), flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
