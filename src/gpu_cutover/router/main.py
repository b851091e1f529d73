"""`gpu-cutover-router`: one process per pool."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from ..errors import EXIT_DONE, EXIT_USAGE, InputError
from .files import TableFile
from .log_key import DIRECTORY
from .server import Router

DRAIN_S = 60.0  # streams under way get this long after SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, then drain. Exit code 2 when the table cannot be used at the start."""
    arguments = _parser().parse_args(argv)
    try:
        table = TableFile(arguments.table)
        if table.get().pool != arguments.pool:
            raise InputError(str(arguments.table), "pool", f"is not {arguments.pool}", "start the router of this pool")
    except InputError as error:
        print(f"gpu-cutover-router: {error}", file=sys.stderr)
        return EXIT_USAGE
    log_key = arguments.log_key or DIRECTORY / f"{arguments.pool}.key"
    asyncio.run(_serve(Router(table, arguments.log_dir, log_key), arguments))
    return EXIT_DONE


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
    return parser


async def _serve(router: Router, arguments: argparse.Namespace) -> None:
    data = web.AppRunner(
        router.application(), handler_cancellation=True, shutdown_timeout=DRAIN_S, access_log=None, keepalive_timeout=75
    )
    metrics = web.AppRunner(router.metrics_application(), shutdown_timeout=1, access_log=None)
    await data.setup()
    await metrics.setup()
    await web.TCPSite(data, arguments.host, arguments.port, backlog=1024).start()
    await web.TCPSite(metrics, arguments.metrics_host, arguments.metrics_port).start()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    await data.cleanup()
    await metrics.cleanup()


if __name__ == "__main__":
    sys.exit(main())
