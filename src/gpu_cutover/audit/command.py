"""`gpu-cutover audit collect|verify|query|export|accept -i SITE`: the gateways' records, collected, proven, asked."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_FAIL, InputError, Refused
from ..evidence.ledger import Ledger
from ..evidence.records import read_status
from ..router.log_key import verifies
from ..site import load_site
from . import query, store
from .collect import collect
from .export import export
from .kept import KIND, kept_checkpoints
from .proof import Proof, moment, prove

FILTERS = {
    "tenant": "attempts of this tenant",
    "route": "on this route",
    "leg": "on this leg: cloud, onprem, or none (refused)",
    "why": "policy, fallback, breaker, mirror, derate, drill, reverse, refused",
    "outcome": "ok, error, timeout, refused, client_gone",
    "model": "answered by this model",
    "request-id": "the request with this id (the caller got it as x-request-id)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    words = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, summary in (
        ("collect", "copy the logs here, keep their checkpoints in the ledger"),
        ("verify", "prove the copies: chain, signatures, continuity, the ledger's checkpoints"),
        ("query", "who went where, why, when"),
        ("export", "one file for an auditor"),
        ("accept", "a named person knows that lines of a log are gone (a lost disk)"),
    ):
        one = words.add_parser(name, help=summary, description=summary.capitalize() + ".")
        one.add_argument("-i", "--inventory", required=True, type=Path, metavar="SITE", help="the site directory")
        if name in ("verify", "query"):
            one.add_argument("--json", action="store_true", help="for programs")
        if name == "query":
            _add_filters(one)
        if name == "export":
            one.add_argument(
                "-o", "--output", type=Path, metavar="FILE", help="the zip; else in the site's .state/audit"
            )
        if name == "accept":
            one.add_argument("host")
            one.add_argument("log", help="the log's name, for example requests-hybrid")
            one.add_argument("--by", required=True, help="the person who answers for it")
            one.add_argument("--reason", required=True, help="what became of the lines")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name, summary in FILTERS.items():
        parser.add_argument(f"--{name}", help=summary)
    parser.add_argument("--since", metavar="TIME", help="not before, ISO 8601, UTC where no zone is named")
    parser.add_argument("--until", metavar="TIME", help="not after")
    parser.add_argument("--show", type=int, default=query.SHOWN, metavar="N", help="print the newest N (20)")


def run(args: argparse.Namespace) -> int:
    """0 done or proven, 20 something is broken, 10 nothing was collected yet or a gateway is out of reach."""
    site_dir: Path = args.inventory
    gateways = sorted(load_site(site_dir).hosts["gateway"])
    act: Callable[[Path, list[str], argparse.Namespace], int] = {
        "collect": _collect,
        "verify": _verify,
        "query": _query,
        "export": _export,
        "accept": _accept,
    }[args.what]
    return act(site_dir, gateways, args)


def _collect(site_dir: Path, gateways: list[str], args: argparse.Namespace) -> int:
    wrong = collect(site_dir)
    for log in store.logs(site_dir):
        copies = store.copies(site_dir, log)
        print(f"{log}: {len(copies)} files, {sum(path.stat().st_size for path in copies):,} bytes")
    for words in wrong:
        print(f"broken: {words}")
    return EXIT_FAIL if wrong else EXIT_DONE


def _proof(site_dir: Path, gateways: list[str]) -> Proof:
    if not store.logs(site_dir):
        raise Refused(f"{site_dir}: no log was collected yet; run gpu-cutover audit collect first")
    return prove(site_dir, gateways, verifies)


def _verify(site_dir: Path, gateways: list[str], args: argparse.Namespace) -> int:
    began = time.perf_counter()
    proof = _proof(site_dir, gateways)
    seconds = time.perf_counter() - began
    if args.json:
        print(json.dumps(_as_dict(proof), indent=2))
        return EXIT_FAIL if proof.broken else EXIT_DONE
    for finding in proof.findings:
        print(finding)
    for one in proof.logs:
        anchored = f"to {one.anchored} ({moment(one.anchored_t)})" if one.anchored else "nowhere"
        print(
            f"{one.log}: lines {one.first} to {one.last}, signed to {one.signed} ({one.checkpoints} checkpoints), "
            f"held against the controller's {anchored}, {len(one.holes)} gaps"
        )
    ending = f"{len(proof.broken)} findings, NOT whole" if proof.broken else "whole"
    print(f"{proof.lines:,} lines of {len(proof.logs)} logs in {seconds:.1f} s: {ending}")
    return EXIT_FAIL if proof.broken else EXIT_DONE


def _as_dict(proof: Proof) -> dict[str, Any]:
    return {
        "whole": not proof.broken,
        "lines": proof.lines,
        "findings": [asdict(finding) for finding in proof.findings],
        "logs": [{key: value for key, value in asdict(one).items() if key != "findings"} for one in proof.logs],
    }


def _query(site_dir: Path, gateways: list[str], args: argparse.Namespace) -> int:
    wanted = query.Filter(
        **{name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in FILTERS},
        since=query.parse_time(args.since, "--since") if args.since else None,
        until=query.parse_time(args.until, "--until") if args.until else None,
    )
    answer = query.ask(site_dir, wanted, _proof(site_dir, gateways), gateways, args.show)
    if args.json:
        told = {**asdict(answer), "proven": answer.proven, "never_proven": query.ALWAYS}
        print(json.dumps(told, indent=2))
    else:
        for record in answer.records:
            print(_line(record))
        print(f"{answer.found} attempts" + (f", the newest {len(answer.records)} shown" if answer.records else ""))
        for sentence in query.sentences(answer, wanted):
            print(sentence)
    return EXIT_FAIL if answer.broken else EXIT_DONE


def _line(record: dict[str, Any]) -> str:
    """One attempt on one line; whole digests are in `--json`."""
    words = [record.get(key) or "-" for key in ("tenant", "route", "state", "leg", "why", "outcome", "model")]
    weights = str(record.get("version") or "-")[:12]
    engine = f"{record.get('engine') or '-'} {record.get('engine_version') or '-'}"
    gpus = ",".join(record.get("gpu_uuids") or map(str, record.get("gpus") or [])) or "-"
    took = f"{record.get('total_ms', 0):g} ms"
    when = f"{moment(float(record['t']))} {record['host']} {record.get('request_id')}"
    return f"{when} {' '.join(words)} weights {weights} on {engine} gpu {gpus} {took}"


def _export(site_dir: Path, gateways: list[str], args: argparse.Namespace) -> int:
    proof = _proof(site_dir, gateways)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = args.output or site_dir / store.FOLDER.parent / "exports" / f"audit-{site_dir.resolve().name}-{stamp}.zip"
    try:
        written = export(site_dir, target, proof)
    except OSError as error:
        raise InputError(str(target), "-o", error.strerror or str(error), "name a file that can be written") from error
    state = f"{len(proof.broken)} findings, NOT whole" if proof.broken else "whole"
    print(f"{written}: {proof.lines:,} lines of {len(proof.logs)} logs, {state}")
    return EXIT_FAIL if proof.broken else EXIT_DONE


def _accept(site_dir: Path, gateways: list[str], args: argparse.Namespace) -> int:
    kept, _ = kept_checkpoints(read_status(site_dir), verifies)
    lost = [log for log in kept if (log.host, log.name) == (args.host, args.log)]
    if not lost:
        known = ", ".join(sorted({f"{log.host} {log.name}" for log in kept})) or "none yet"
        raise InputError("audit accept", "HOST LOG", "the controller keeps no checkpoint of it", f"known: {known}")
    ledger = Ledger.open(site_dir)
    for log in lost:
        data = {**asdict(log), "covers": kept[log].last, "by": args.by, "reason": args.reason}
        record = ledger.append(KIND, "accepted", {"accepted": data})
        print(f"recorded {record.file}: up to line {kept[log].last} of {log}, by {args.by}: {args.reason}")
    return EXIT_DONE
