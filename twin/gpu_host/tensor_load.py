#!/usr/bin/python3
"""A stand-in for a tensor-core load in the manner of gpu-burn: `tensor-load --seconds S --gpu N`.

Imitates: full load on one GPU (declared to the thermal process), one JSON line per second `{gpu, tflops, errors,
t}`, less throughput when the
board throttles, exit 1 when the GPU is lost.
Does NOT imitate: arithmetic, checking its results for errors, memory traffic.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = ["/usr/local/lib/twin", str(Path(__file__).resolve().parent.parent / "shared")]
import load  # noqa: E402
import state  # noqa: E402

# Dense BF16 that a good board sustains: H100 SXM about 730 TFLOPS (published by a burn-in tool);
# L40S: 0.74 of its peak likewise.
SUSTAINED = {"NVIDIA H100 80GB HBM3": 730.0, "NVIDIA L40S": 268.0}
MEMORY_SHARE = 0.9


def throughput(everything: dict[str, str], gpu: int, second: int) -> float:
    """TFLOPS of one second: boards differ by half a percent, seconds by a tenth, a throttled or capped board gives
    less.
    """
    base = SUSTAINED.get(state.of_gpu(everything, gpu, "name"), 100.0)
    board = 1 - 0.00125 * gpu
    moment = 1 + 0.001 * ((second * 7) % 3 - 1)
    capped = min(
        1.0, int(state.of_gpu(everything, gpu, "limit_mw")) / max(1, int(state.of_gpu(everything, gpu, "limit_max_mw")))
    )
    return base * board * moment * capped / state.slowdown(everything, [gpu])


def main() -> int:
    """Load one GPU for a while."""
    parser = argparse.ArgumentParser(prog="tensor-load", allow_abbrev=False)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--gpu", type=int, required=True)
    options = parser.parse_args()
    ends, second, memory = time.monotonic() + options.seconds, 0, 0
    while time.monotonic() < ends:
        everything = state.read()
        if options.gpu >= state.count(everything) or state.is_lost(everything, options.gpu):
            print("CUDA error: device is lost", file=sys.stderr)
            return 1
        if not second:
            total, reserved, used = (
                int(state.of_gpu(everything, options.gpu, f"mem.{key}")) for key in ("total", "reserved", "used")
            )
            memory = int(max(0, total - reserved - used) * MEMORY_SHARE)
        load.declare("tensor-load", 1.0, memory, [options.gpu])
        time.sleep(max(0.0, min(1.0, ends - time.monotonic())))
        figure = throughput(state.read(), options.gpu, second)
        print(
            json.dumps({"gpu": options.gpu, "tflops": round(figure, 2), "errors": 0, "t": round(time.time(), 3)}),
            flush=True,
        )
        second += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
