#!/usr/bin/python3
"""A stand-in for nccl-tests' all_reduce_perf over the simulated GPUs.

Imitates: the flags `-b -e -f -g -n -w -c -J`, the table, the JSON file, the exit status, a bus bandwidth that fits
the board and the
number of GPUs (latency at small sizes, saturation at large ones).
Does NOT imitate: NCCL, any transfer, several nodes, topology effects other than pair against four.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = ["/usr/local/lib/twin", str(Path(__file__).resolve().parent.parent / "shared")]
import state  # noqa: E402

# Expected GB/s by number of GPUs; derived from link rates, no measurement of a four-GPU board is known.
PCIE_GEN4 = {1: 0.0, 2: 20.4, 3: 13.1, 4: 12.6}
NVLINK_MESH = {1: 0.0, 2: 128.0, 3: 240.0, 4: 352.0}
LATENCY_S = 18e-6


def size_of(text: str) -> int:
    """`8`, `64K`, `8G` in bytes."""
    scale = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:].upper(), 1)
    return int(text[:-1] if scale > 1 else text) * scale


def rows(first: int, last: int, factor: int, gpus: int, peak_gb_s: float) -> list[dict[str, float | int]]:
    """One row per message size: time in µs, algorithm and bus bandwidth in GB/s."""
    found: list[dict[str, float | int]] = []
    share = 2 * (gpus - 1) / gpus if gpus > 1 else 1.0
    size = first
    while size <= last:
        seconds = LATENCY_S + (size * share / (peak_gb_s * 1e9) if peak_gb_s else 0.0)
        algorithm = size / seconds / 1e9
        found.append(
            {
                "size": size,
                "time_us": seconds * 1e6,
                "algbw": algorithm,
                "busbw": algorithm * share if gpus > 1 else 0.0,
                "wrong": 0,
            }
        )
        if factor < 2:
            break
        size *= factor
    return found


def main() -> int:
    """Parse, print, write."""
    parser = argparse.ArgumentParser(prog="all_reduce_perf", allow_abbrev=False)
    parser.add_argument("-b", "--minbytes", default="32M")
    parser.add_argument("-e", "--maxbytes", default="32M")
    parser.add_argument("-f", "--stepfactor", type=int, default=1)
    parser.add_argument("-g", "--ngpus", type=int, default=1)
    parser.add_argument("-n", "--iters", type=int, default=20)
    parser.add_argument("-w", "--warmup_iters", type=int, default=1)
    parser.add_argument("-c", "--check", type=int, default=1)
    parser.add_argument("-T", "--timeout", type=int, default=0)
    parser.add_argument("-J", "--output_file")
    options = parser.parse_args()
    everything = state.read()
    lost = [index for index in range(min(options.ngpus, state.count(everything))) if state.is_lost(everything, index)]
    if options.ngpus > state.count(everything) or lost:
        print("Test NCCL failure: unhandled cuda error", file=sys.stderr)
        return 1
    linked = state.of_gpu(everything, 0, "nvlink.links") not in ("N/A", "0")
    peak = (NVLINK_MESH if linked else PCIE_GEN4).get(options.ngpus, 0.0)
    results = rows(size_of(options.minbytes), size_of(options.maxbytes), options.stepfactor, options.ngpus, peak)
    print("#       size         count      type   redop    root     time   algbw   busbw #wrong")
    for row in results:
        print(
            f"{row['size']:12d} {row['size'] // 4:12d}     float     sum      -1 "
            f"{row['time_us']:8.2f} {row['algbw']:7.2f} {row['busbw']:7.2f}      0"
        )
    average = sum(row["busbw"] for row in results) / len(results)
    print(f"# Out of bounds values : 0 OK\n# Avg bus bandwidth    : {average:.4f}")
    if options.output_file:
        entries = [
            {
                "size": row["size"],
                "count": row["size"] // 4,
                "type": "float",
                "redop": "sum",
                "root": -1,
                "out_of_place": {"time": row["time_us"], "alg_bw": row["algbw"], "bus_bw": row["busbw"], "nwrong": 0},
                "in_place": {"time": row["time_us"], "alg_bw": row["algbw"], "bus_bw": row["busbw"], "nwrong": 0},
            }
            for row in results
        ]
        report = {
            "version": 1,
            "config": {
                "nThreads": 1,
                "nGpus": options.ngpus,
                "minBytes": results[0]["size"],
                "maxBytes": results[-1]["size"],
            },
            "results": entries,
            "out_of_bounds": {"out_of_bounds": 0, "okay": True},
            "average_bus_bandwidth": {"bandwidth": average},
        }
        Path(options.output_file).write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
