"""Compares answers beside the router, in a process of low priority that ends with it.

Reads pairs on standard input, writes one line of JSON for each on standard output: the scores, or null.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

from ..compare.answers import compare_answers, worst
from .answers import decoded
from .body import BadBodyError, parse_json
from .comparing import LENGTH, Pair

NICENESS = 19


def main() -> int:
    """Until standard input ends. Argument: the seconds of processor time that one comparison may take."""
    os.nice(NICENESS)
    most_s = float(sys.argv[1])
    while (pair := _read(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_PROF, most_s)  # SIGPROF ends the process, also in the middle of a library's loop
        scored = _scored(pair)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(scored) + "\n")
        sys.stdout.flush()
    return 0


def _read(stream: BinaryIO) -> Pair | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    data = stream.read(LENGTH.unpack(head)[0])
    return Pair(*pickle.loads(data))  # written by the router that started this process


def _scored(pair: Pair) -> dict[str, Any] | None:
    """A missing on-prem answer gets the worst score, else the gate would reward failing; without a readable answer of
    the cloud there is nothing to compare with (None).
    """
    base = decoded(*pair.cloud)
    if base is None:
        return None
    candidate = decoded(*pair.onprem)
    if candidate is None:
        compared = worst(pair.kind)
    else:
        compared = compare_answers(pair.kind, _request(pair.request), base, candidate)
    scores = {name: round(score, 6) for name, score in compared.scores.items()}
    return {"scores": scores, "critical": list(compared.critical)}


def _request(body: bytes) -> dict[str, Any]:
    try:
        return parse_json(body)
    except BadBodyError:
        return {}  # multipart: the comparison of transcripts does not need the audio


if __name__ == "__main__":
    sys.exit(main())
