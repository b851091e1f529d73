"""What a record costs a router, and how long its log takes to verify: both as processor time of one process."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from printing import at_most, show

RECORD = {
    **{"t": 1795300000.123, "request_id": "0123456789abcdef0123456789abcdef", "tenant": "doc-zam", "route": "chat"},
    **{"workload": "soap", "state": "onprem", "leg": "onprem", "why": "policy", "model": "llama-3.1-70b-instruct"},
    **{"version": "ab" * 32, "gpus": [2, 3], "status": 200, "outcome": "ok", "first_byte_ms": 20.1, "total_ms": 40.2},
    **{"bytes_in": 2000, "bytes_out": 1000, "request_sha256": "cd" * 32, "tokens": 321, "requested_model": "gpt-4o"},
    **{"engine": "vllm", "engine_version": "0.20.2", "gpu_uuids": ["GPU-8f9d1c2e-1111-2222-3333-444455556666"] * 2},
    "attempt": 0,
}
PER_FLUSH = 20  # 100 requests a second at five flushes a second


def run(lines: int) -> None:
    """Measure and print."""
    from gpu_cutover.router import log_key
    from gpu_cutover.router.record import RecordLog

    with tempfile.TemporaryDirectory() as folder:
        log_key.make(Path(folder) / "hybrid.key")
        log = RecordLog(Path(folder) / "requests-hybrid.jsonl", key=Path(folder) / "hybrid.key")
        began = time.process_time()
        for number in range(lines):
            log.add(RECORD)
            if number % PER_FLUSH == 0:
                log.flush()
        cost_s = (time.process_time() - began) / lines
        log.close()
        at_most("record of a request, CPU, amortised over writing and signing", cost_s * 1e6, 30, "µs", 1)
        _verify(log.path, (Path(folder) / "hybrid.pub").read_text().strip())


def _verify(path: Path, public: str) -> None:
    from gpu_cutover.router import log_key
    from gpu_cutover.router.chain import Walk
    from gpu_cutover.router.log_files import rotated

    began = time.process_time()
    walk = Walk(log_key.verifies, frozenset([public]))
    for file in (*reversed(rotated(path)), path):
        with file.open("rb") as handle:
            walk.follow(file.name, handle)
    state = "whole" if not walk.findings else "NOT whole"
    show(f"audit verify, {walk.lines:,} lines, {state}, CPU", f"{time.process_time() - began:.2f} s")
