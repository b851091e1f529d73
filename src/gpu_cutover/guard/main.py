"""`gpu-cutover-guard run` is the daemon; `ctl …` speaks to it; `gpus MODEL` says which devices an engine may see."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import EXIT_DONE, EXIT_ERROR, EXIT_HOLD, EXIT_USAGE, InputError, Refused
from ..probes import nvml
from . import config as configuration
from . import control, engine_gpus


def _run(path: Path) -> int:
    from . import daemon, web  # not paid for by an engine's start

    config = configuration.load(path)
    guard = daemon.real_guard(config)
    signal.signal(signal.SIGTERM, lambda *_: guard.stopping.set())
    signal.signal(signal.SIGINT, lambda *_: guard.stopping.set())
    for server in (
        web.server(config.listen, config.port, guard.answer),
        control.server(config.socket, guard.command),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    guard.run()
    return EXIT_DONE


def _ctl(words: list[str], socket: Path) -> int:
    try:
        answer = control.ask(" ".join(words), socket)
    except OSError as error:
        print(f"gpu-cutover-guard: the guard does not answer: {error}", file=sys.stderr)
        return EXIT_ERROR
    print(json.dumps(answer, indent=2))
    return EXIT_DONE if answer["ok"] else EXIT_HOLD


def _gpus(path: Path, model: str, by: str) -> int:
    config = configuration.load(path)
    told = engine_gpus.resolve(model, by, config.placements, config.state_file, lambda: nvml.read_once(sys.executable))
    print(told, end="")
    return EXIT_DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 wrong configuration, 10 the guard refused a command, 30 no guard."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-guard", description="Thermal guard of a GPU host.")
    subparsers = parser.add_subparsers(dest="verb", required=True)
    run = subparsers.add_parser("run", help="be the daemon")
    run.add_argument("--config", type=Path, default=configuration.CONFIG_FILE)
    ctl = subparsers.add_parser(
        "ctl", help="status | derate N [CAUSE] | restore | accept | recorded ID… | observe-only on|off"
    )
    ctl.add_argument("--socket", type=Path, default=configuration.SOCKET)
    ctl.add_argument("words", nargs="+")
    gpus = subparsers.add_parser("gpus", help="write the devices that an engine may see")
    gpus.add_argument("--config", type=Path, default=configuration.CONFIG_FILE)
    gpus.add_argument("--by", choices=("index", "uuid"), default="index")
    gpus.add_argument("model")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if arguments.verb == "gpus":
            return _gpus(arguments.config, arguments.model, arguments.by)
        return _run(arguments.config) if arguments.verb == "run" else _ctl(arguments.words, arguments.socket)
    except InputError as error:
        print(f"gpu-cutover-guard: {error}", file=sys.stderr)
        return EXIT_USAGE
    except Refused as error:
        print(f"gpu-cutover-guard: {error}", file=sys.stderr)
        return EXIT_HOLD


if __name__ == "__main__":
    sys.exit(main())
