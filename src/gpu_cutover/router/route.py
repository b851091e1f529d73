"""`gpu-cutover-route`: the one program that changes routes on a gateway.

`apply` reads one JSON order on standard input; `serve` answers one order a line until standard input ends. Both print
one JSON answer a line. Standard library only, and little of it: the start is part of a rollback's time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, EXIT_HOLD, EXIT_USAGE, InputError, Refused
from . import change, readiness
from .journal import Journal
from .orders import Answer, Place, acknowledge, carry_out, parse_order, read_raw
from .table import POOLS

PORTS = {"hybrid": 9402, "sealed": 9403}
EXIT = {"input": EXIT_USAGE, "refused": EXIT_HOLD, "error": EXIT_ERROR}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes of `apply`: 0 done, 10 refused or held, 30 error, 2 wrong order. `serve` ends with 0."""
    default = Place()
    parser = argparse.ArgumentParser(prog="gpu-cutover-route", description="Change routes on this gateway.")
    parser.add_argument("how", choices=("apply", "serve"))
    parser.add_argument("--tables", type=Path, default=default.tables)
    parser.add_argument("--journal", type=Path, default=default.journal)
    parser.add_argument("--records", type=Path, default=default.records)
    parser.add_argument("--port", action="append", metavar="POOL=PORT", help="a router's metrics port")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection does not cut a change off
    os.umask(0o002)  # the group writes tables too: the watch rolls back by itself
    ports = dict(pair.split("=", 1) for pair in arguments.port) if arguments.port else PORTS
    numbers = {pool: int(port) for pool, port in ports.items()}
    place = Place(arguments.tables, arguments.journal, arguments.records, numbers)
    if arguments.how == "apply":
        answer = respond(sys.stdin.read(), place)
        print(json.dumps(answer))
        return _exit_code(answer)
    for line in sys.stdin:
        try:
            print(json.dumps(respond(line, place)), flush=True)
        except BrokenPipeError:
            return EXIT_DONE  # whoever asked is gone; the journal knows
    return EXIT_DONE


def _exit_code(answer: Answer) -> int:
    if not answer["ok"]:
        return EXIT[answer["error"]]
    return EXIT_ERROR if answer.get("outcome") == "unconfirmed" else EXIT_HOLD if answer.get("held") else EXIT_DONE


def respond(text: str, place: Place) -> Answer:
    """The answer to one order. Never raises: whoever asked over a network needs a word."""
    try:
        data = json.loads(text)
        do = data.get("do") if isinstance(data, dict) else None
        if do == "show":
            return {"ok": True, **show(place)}
        if do == "journal":
            journal = Journal(place.journal)
            unrecorded = [entry["id"] for entry in journal.unrecorded()]
            return {"ok": True, "changes": journal.changes(data.get("after")), "unrecorded": unrecorded}
        if do == "unrecorded":
            return {"ok": True, "changes": [brief(entry) for entry in Journal(place.journal).unrecorded()]}
        if do == "recorded":
            return {"ok": True, "noted": acknowledge(map(str, data.get("ids", ())), place)}
        return {"ok": True, **carry_out(parse_order(data), place)}
    except InputError as error:
        said = {"file": error.file, "key": error.key, "problem": error.problem, "fix": error.fix}
        return {"ok": False, "error": "input", "message": str(error), **said}
    except Refused as error:
        return {"ok": False, "error": "refused", "message": str(error)}
    except Exception as error:  # a defect here must not look like a lost gateway
        return {"ok": False, "error": "error", "message": f"{type(error).__name__}: {error}"}


def show(place: Place) -> dict[str, Any]:
    """Where everybody is, by the tables and by the routers' own word."""
    raws = {pool: raw for pool in POOLS if (raw := read_raw(place.table(pool))) is not None}
    if not raws:
        raise InputError(str(place.tables), "(files)", "there are no route tables", "run day 4 first")
    states: change.States = {}
    for raw in raws.values():
        states.update(change.states(raw))
    return {
        "states": states,
        "policies": {name: tenant["policy"] for raw in raws.values() for name, tenant in raw["tenants"].items()},
        "pools": {pool: _pool(raw, place.ports.get(pool)) for pool, raw in raws.items()},
    }


def brief(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A change of the journal in few words, for whoever only wants to know of it."""
    order = entry["order"]
    told = {key: entry.get(key) for key in ("id", "t", "outcome", "before", "after", "models_rolled_back")}
    return {**told, **{key: order[key] for key in ("do", "by", "path", "reason", "model", "override")}}


def _pool(raw: Mapping[str, Any], port: int | None) -> dict[str, Any]:
    try:
        router = readiness.health(port) if port else {}
    except (OSError, ValueError) as error:
        router = {"problems": [f"the router does not answer: {error}"]}
    return {
        **{key: raw[key] for key in ("version", "changed", "reason", "models_rolled_back")},
        "overrides": raw.get("overrides", {}),
        "router": {key: router.get(key) for key in ("table_version", "placement", "breakers_open", "problems")},
    }


if __name__ == "__main__":
    sys.exit(main())
