"""What `day`, `play` and the rehearsal share: ask, run, say how it ended."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from ..errors import InputError
from ..evidence.records import Record, read_status
from .days import Subject
from .engine import Finished
from .eta import clock
from .outcome import exit_code, explain


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """`-i SITE --check --yes --json`."""
    parser.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site's directory")
    parser.add_argument("--check", action="store_true", help="dry run: predict, change and record nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before starting")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON on stdout, progress on stderr")


def confirm(question: str, hosts: Mapping[str, Iterable[str]]) -> None:
    """Ask on the terminal. Raises InputError where nobody can be asked, SystemExit(0) on a no."""
    named = " ".join(dict.fromkeys(host for group in hosts.values() for host in group))
    if not sys.stdin.isatty():
        raise InputError(
            "command line", "--yes", "nobody can be asked here: not a terminal", "add --yes to start without a question"
        )
    try:
        answer = input(f"{question} on {named}? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        print("not started")
        raise SystemExit(0)


def gate_record(site_dir: Path, run_id: str) -> Record | None:
    """The gate that this run recorded."""
    records = [record for record in read_status(site_dir) if record.kind == "gate" and record.data.get("run") == run_id]
    return records[-1] if records else None


def tell(finished: Finished, subject: Subject, site_dir: Path, as_json: bool, stream: IO[str]) -> int:
    """Print how the run ended and return the exit code."""
    run, code = finished.run, exit_code(finished.run)
    result = run.result
    gate = gate_record(site_dir, run.id) if run.day and not run.check else None
    checks = list(gate.data.get("checks") or []) if gate else []
    verdict = result.verdict if result else None
    ending = verdict or (result.state if result else "error")
    for check in checks:
        if check.get("status") != "pass":
            print(f"  {check_line(check)}", file=stream)
    if code or ending in ("refused", "interrupted"):
        for line in explain(run, site_dir):
            print(f"gpu-cutover: {line}", file=sys.stderr)
        if result and result.state == "error" and result.message:
            print(result.message, file=sys.stderr)
    passed = sum(check.get("status") == "pass" for check in checks)
    counted = f", {passed} of {len(checks)} checks passed" if checks else ""
    dry = " (dry run: nothing changed, nothing recorded)" if run.check else ""
    changed = f", changed={result.changed}" if result else ""
    print(f"{subject.title}: {ending}{dry}{counted}{changed}, {clock(run.duration_s)}; log {finished.log}", file=stream)
    if as_json:
        print(json.dumps(_outcome(finished, code, checks)))
    return code


def _outcome(finished: Finished, code: int, checks: Sequence[dict[str, object]]) -> dict[str, object]:
    run, result = finished.run, finished.run.result
    return {
        "name": run.name,
        "day": run.day,
        "check": run.check,
        "run": run.id,
        "state": result.state if result else "error",
        "verdict": result.verdict if result else None,
        "message": result.message if result else "",
        "exit_code": code,
        "duration_s": round(run.duration_s, 2),
        "changed": result.changed if result else 0,
        "checks": list(checks),
        "log": str(finished.log),
    }


def check_line(check: dict[str, object]) -> str:
    """One judged figure on one line."""
    unit = f" {check.get('unit')}" if check.get("unit") else ""
    figure = check.get("figure")
    shown = "no figure" if figure is None else f"{figure:.6g}{unit}" if isinstance(figure, float) else f"{figure}{unit}"
    limit = check.get("limit")
    against = "" if limit is None else f" ({check.get('relation') or 'limit'} {limit}{unit})"
    where = f" [{check['host']}]" if check.get("host") else ""
    return f"{check.get('status')}: {check.get('id')}{where}: {shown}{against} - {check.get('sentence')}"
