"""Collective bandwidth between the GPUs: NVIDIA's all_reduce_perf, its JSON parsed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .tools import run_tool

MARGIN_S = 30.0  # beyond the tool's own limit, before it is killed


def read_all_reduce(binary: str, gpus: int, largest: str, iterations: int, timeout_s: int) -> dict[str, Any]:
    """{gpus, busbw_gb_s, wrong, bytes} of the largest message, or {error}."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "all_reduce.json"
        argv = [binary, "-b", "8", "-e", largest, "-f", "2", "-g", str(gpus), "-n", str(iterations), "-w", "5"]
        answer = run_tool([*argv, "-c", "1", "-T", str(timeout_s), "-J", str(report)], timeout_s + MARGIN_S)
        if answer.error:
            return {"error": answer.error}
        try:
            return parse_all_reduce(report.read_text(), gpus)
        except OSError as error:
            return {"error": f"all_reduce_perf: wrote no report ({error.strerror})"}


def parse_all_reduce(text: str, gpus: int) -> dict[str, Any]:
    """Bus bandwidth in GB/s at the largest message, the slower of in place and out of place; wrong values of all sizes.

    A size whose result was not checked (nwrong null) makes `wrong` None.
    """
    try:
        results = json.loads(text)["results"]
        rows = [(int(row["size"]), [row["out_of_place"], row["in_place"]]) for row in results]
        size, ways = max(rows, key=lambda row: row[0])
        busbw = min(float(way["bus_bw"]) for way in ways)
        wrongs = [way["nwrong"] for _, both in rows for way in both]
        wrong = None if None in wrongs else int(sum(wrongs))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"all_reduce_perf: unexpected report ({error!r})"}
    return {"gpus": gpus, "bytes": size, "busbw_gb_s": busbw, "wrong": wrong}
