"""`gpu-cutover-router`: one process per pool, replaced without a dropped stream.

With `--runtime-dir` the program is two processes: this one, which systemd knows, and its child, which serves. When this
one ends, whether stopped, restarted or killed, the child goes on serving until a successor has taken its sockets
(`handover`), and then for as long as its open streams last.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from ..errors import EXIT_DONE, EXIT_USAGE, InputError
from .files import TableFile
from .log_key import DIRECTORY
from .self_test import SelfTest, parse_target

COMING = "successor"  # touched by a process that starts: whoever serves now waits for it


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, then drain. Exit codes at the start: 2 when table or words cannot be used, 10 for a
    sealed router that the kernel does not keep inside.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(words)
    try:
        table = TableFile(arguments.table, orjson.loads)
        if table.get().pool != arguments.pool:
            raise InputError(str(arguments.table), "pool", f"is not {arguments.pool}", "start the router of this pool")
        seal = _self_test(arguments)
    except InputError as error:
        print(f"gpu-cutover-router: {error}", file=sys.stderr)
        return EXIT_USAGE
    if arguments.runtime_dir and arguments.life is None:
        (arguments.runtime_dir / COMING).touch()
        return _supervise(words)
    from .serving import run  # what serves is not loaded into the process that only waits

    arguments.log_key = arguments.log_key or DIRECTORY / f"{arguments.pool}.key"
    return run(table, arguments, seal)


def _self_test(arguments: argparse.Namespace) -> SelfTest | None:
    """What a sealed router tries; None for the hybrid one. Raises InputError for a sealed one without."""
    if arguments.pool != "sealed":
        return None
    if not arguments.never or not arguments.canary:
        fix = "say what the kernel must keep from it: --never HOST:PORT (several) and --canary PORT"
        raise InputError("command line", "--pool sealed", "has nothing to test its seal by", fix)
    return SelfTest(tuple(parse_target(text) for text in arguments.never), arguments.canary)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-cutover-router", description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--pool", choices=("hybrid", "sealed"), required=True)
    parser.add_argument("--host", default="127.0.0.1", help="only the edge on this host may reach the data plane")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--metrics-host", default="0.0.0.0", help="the monitor scrapes it")
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--log-dir", type=Path, default=Path("/var/log/gpu-cutover"))
    parser.add_argument("--log-key", type=Path, help=f"signs the records; {DIRECTORY}/<pool>.key without it")
    parser.add_argument("--runtime-dir", type=Path, help="where a successor finds this process; serves in a child")
    parser.add_argument("--max-in-flight", type=int, default=512, help="requests; beyond it 503 with Retry-After")
    parser.add_argument("--max-body-mib", type=int, default=256, help="bodies of the requests in flight, together")
    parser.add_argument(
        "--idle-s",
        type=float,
        default=10.0,
        help="after handing on: how long connections that the edge keeps are answered",
    )
    parser.add_argument("--never", action="append", metavar="HOST:PORT", help="sealed: must be out of reach")
    parser.add_argument("--canary", type=int, metavar="PORT", help="sealed: UDP, dropped by the seal")
    parser.add_argument("--life", type=int, help=argparse.SUPPRESS)  # ends when the parent does
    return parser


def _supervise(words: list[str]) -> int:
    """Start the process that serves, and share its fate; the reverse does not hold. Returns its exit code."""
    life, alive = os.pipe()
    command = [sys.executable, "-P", "-m", "gpu_cutover.router.main", *words, "--life", str(life)]
    child = subprocess.Popen(command, pass_fds=[life])
    os.close(life)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    code = child.wait()
    os.close(alive)
    return code if code >= 0 else 128 - code


def _leave(_number: int, _frame: object) -> None:
    """End at once, without waiting for the child: it sees the pipe close."""
    os._exit(EXIT_DONE)


if __name__ == "__main__":
    sys.exit(main())
