"""A change straight to all gateways, without Ansible: ask, decide, write, read back, compare, record."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, InputError, Refused
from ..router.readiness import ASK_S
from ..runs.outcome import unreachable_help
from ..runs.record import running, who
from . import judge, recorder
from .gateways import ANSWER_S, Answers, Gateways

Say = Callable[[str], None]
BREAK_GLASS = "break-glass"


def new_order(do: str, **more: Any) -> dict[str, Any]:
    """An order of this person, named by time and process; the same on every gateway."""
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{os.urandom(2).hex()}"
    return {"do": do, "id": name, "by": who(), "path": BREAK_GLASS, "check": "fast", **more}


def change(
    site_dir: Path,
    order: Mapping[str, Any],
    *,
    degraded: bool = False,
    dry: bool = False,
    as_json: bool = False,
    ask: Callable[[Mapping[str, judge.Answer]], None] = lambda _: None,
) -> int:
    """Carry one order out on every gateway and record it. Returns the exit code.

    `ask` is called with the predictions before anything is written; it raises to stop. Raises InputError and Refused
    when nothing was changed. Ctrl-C before the orders are sent changes nothing; after, the gateways finish alone.
    """
    say: Say = (lambda text: print(text, file=sys.stderr)) if as_json else print
    _warn_of_a_run(site_dir)
    began, sent = time.monotonic(), False
    try:
        with Gateways(site_dir) as gateways:
            plan = _planned(gateways, site_dir, order, degraded)
            if dry:
                return _predicted(plan, as_json, say)
            ask(plan.predicted)
            started, sent = time.monotonic(), True
            answers = gateways.ask_each(plan.orders)
            done = time.monotonic()
            end = judge.ending(answers, plan.stale, plan.slow)
            _tell(order, answers, end, done - started, done - began, say)
            files = _record(site_dir, gateways, answers, {str(order["id"]): end.unknown}, say)
    except KeyboardInterrupt:
        return _interrupted(sent)
    if as_json:
        print(json.dumps(_as_data(order, answers, plan, end, done - started, files)))
    return end.code if files is not None else end.code or EXIT_ERROR


def _planned(gateways: Gateways, site_dir: Path, order: Mapping[str, Any], degraded: bool) -> judge.Plan:
    patience_s = ANSWER_S + (ASK_S if order.get("check") == "ask" else 0.0)
    predicted = gateways.ask({**order, "write": False}, patience_s)
    lost = {host: unreachable_help(host, why, site_dir) for host, why in gateways.lost.items()}
    words = {host: sentence.removeprefix(f"{host}: ") for host, sentence in lost.items()}
    return judge.plan(order, predicted, words, degraded)


def _warn_of_a_run(site_dir: Path) -> None:
    """A rollback waits for nobody; but a day that runs would go on moving tenants."""
    holder = running(site_dir)
    if holder is not None:
        title, by = holder.get("title", "a run"), holder.get("by", "somebody")
        print(
            f"gpu-cutover: {title} is running (started by {by}, process {holder.get('pid', '?')}) and may move "
            "tenants again: stop it there with Ctrl-C",
            file=sys.stderr,
        )


def _predicted(plan: judge.Plan, as_json: bool, say: Say) -> int:
    lines = judge.moved(plan.predicted) or ["nothing would change"]
    kept = list(dict.fromkeys(sentence for one in plan.predicted.values() for sentence in one["kept"]))
    for line in (*lines, *plan.slow, *kept):
        say(f"  {line}")
    say(f"(dry run on {', '.join(plan.orders)}: nothing changed, nothing recorded)")
    if as_json:
        print(json.dumps({"dry": True, "predicted": plan.predicted, "stale": plan.stale}))
    return EXIT_DONE


def _tell(order: Mapping[str, Any], answers: Answers, end: judge.Ending, took_s: float, all_s: float, say: Say) -> None:
    hosts = ", ".join(host for host, one in answers.items() if one.get("ok")) or "no gateway"
    confirmed = "confirmed by the routers" if not end.unknown and end.code != EXIT_ERROR else "NOT confirmed everywhere"
    what = "changed" if end.changed else "nothing had to change"
    say(f"{what} on {hosts} in {took_s:.3f} s, {confirmed} ({all_s:.3f} s since the command, change {order['id']})")
    for line in (*judge.moved(answers), *end.sentences):
        say(f"  {line}")


def _record(
    site_dir: Path, gateways: Gateways, answers: Answers, unknown: Mapping[str, Mapping[str, str]], say: Say
) -> list[str] | None:
    """Names of the new records; None when the ledger took none. The gateways' journals keep what is not recorded."""
    try:
        files = record_from(site_dir, gateways, answers, unknown)
    except (InputError, Refused) as error:
        later = "The gateways keep it; once the ledger is repaired: gpu-cutover route show"
        print(f"gpu-cutover: not recorded ({error}). {later}", file=sys.stderr)
        return None
    for file in files:
        say(f"recorded: {file}")
    return files


def record_from(
    site_dir: Path, gateways: Gateways, answers: Answers, unknown: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Record what the journals tell and the ledger does not; also a change whose journal could not be written.

    Each gateway is told what of its changes the ledger has, so that it can say by itself what is missing.
    """
    from ..evidence.records import read_status

    records = read_status(site_dir)
    orders = {host: {"do": "journal", "after": recorder.last_recorded(records, host)} for host in gateways.reached}
    told = gateways.ask_each(orders)
    changes = {host: list(one.get("changes", [])) for host, one in told.items()}
    for host, answer in answers.items():
        entry = answer.get("entry")
        if entry and entry["id"] not in [one["id"] for one in changes.get(host, [])]:
            changes.setdefault(host, []).append(entry)
    made = recorder.record(site_dir, changes, unknown)
    known = recorder.recorded([*records, *made])
    told_of = {host: [id for id in one.get("unrecorded", []) if (id, host) in known] for host, one in told.items()}
    gateways.ask_each({host: {"do": "recorded", "ids": ids} for host, ids in told_of.items() if ids})
    return [record.file for record in made]


def _interrupted(sent: bool) -> int:
    words = (
        "interrupted after the orders were sent; the gateways finish them by themselves and keep them for the ledger. "
        "Look with: gpu-cutover route show"
        if sent
        else "interrupted; nothing was changed"
    )
    print(f"gpu-cutover: {words}", file=sys.stderr)
    return EXIT_ERROR


def _as_data(
    order: Mapping[str, Any],
    answers: Answers,
    plan: judge.Plan,
    end: judge.Ending,
    took_s: float,
    files: list[str] | None,
) -> dict[str, Any]:
    shown = ("ok", "changed", "before", "after", "versions", "readback", "outcome", "kept", "took_s", "message")
    return {
        "id": order["id"],
        "exit_code": end.code,
        "took_s": round(took_s, 4),
        "gateways": {host: {key: one[key] for key in shown if key in one} for host, one in answers.items()},
        "stale": plan.stale,
        "unknown": dict(end.unknown),
        "sentences": list(end.sentences),
        "recorded": files,
    }
