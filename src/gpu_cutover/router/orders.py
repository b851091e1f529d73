"""One order to change routes on this gateway: checked, journalled, carried out, read back. Standard library only.

The one way a table reaches the disk. Used by `gpu-cutover-route`, by the module `route_table` and by the tenant watch;
all hold the same lock. What an order may say: docs/architecture.md, "A change of routes".
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import InputError, Refused
from . import change, readiness
from .change import Kept, Raw, States
from .files import kept_copy
from .journal import JOURNAL, Journal, Line
from .readiness import Legs, Silent
from .table import POOLS, ROUTES, STATES, parse_table

LOCK_PATIENCE_S = 4.0
CONFIRM_S = 2.0
CONFIRM_PAUSE_S = 0.005
KINDS = ("set", "roll_back", "model", "breaker", "install", "adopt")
CHECKS = ("none", "fast", "ask")
RECORDS = ("none", "cutover", "rollback")
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway's files are, and the metrics port of each router that confirms (none: nobody is asked)."""

    tables: Path = Path("/etc/gpu-cutover/router")
    journal: Path = JOURNAL
    records: Path = Path("/var/log/gpu-cutover")
    ports: Mapping[str, int] = field(default_factory=dict)

    def table(self, pool: str) -> Path:
        return self.tables / f"{pool}.json"


@dataclass(frozen=True, slots=True)
class Order:
    """What to change. Keys that another kind of order uses stay at their defaults."""

    do: str
    id: str
    by: str
    path: str  # ansible | break-glass | watch | peer
    reason: str = "ordered"
    record: str = "none"  # kind of the ledger's record; none: whoever orders records it
    write: bool = True
    check: str = "none"
    silent: Silent | None = None  # legs that do not answer, where somebody asked already
    leaving: dict[str, str] = field(default_factory=dict)  # gateways left as they are, and why
    states: States = field(default_factory=dict)
    only_from: list[str] | None = None
    expect: dict[str, dict[str, Any]] = field(default_factory=dict)
    tenant: str | None = None
    route: str | None = None
    accept_off: bool = False
    model: str | None = None
    out: bool = True
    pools: list[str] = field(default_factory=lambda: ["hybrid"])
    override: str = "auto"
    tables: dict[str, Raw] = field(default_factory=dict)

    @property
    def takes_back(self) -> bool:
        """Rollback is legal in every state: nothing but the disk may stop it."""
        return self.do == "roll_back" or (self.do == "model" and self.out)


def parse_order(data: object) -> Order:
    """An order out of plain data. Raises InputError naming the key."""
    if not isinstance(data, dict):
        raise _wrong("(order)", "is not a mapping", "send one JSON object")
    unknown = sorted(set(data) - set(Order.__slots__))
    if unknown:
        raise _wrong(unknown[0], "is an unknown key", "use " + ", ".join(Order.__slots__))
    for key in ("do", "id", "by", "path"):
        if not isinstance(data.get(key), str) or not data[key]:
            raise _wrong(key, "is missing", "give a text")
    order = Order(**data)
    for key, value, known in (
        ("do", order.do, KINDS),
        ("check", order.check, CHECKS),
        ("record", order.record, RECORDS),
        ("route", order.route or ROUTES[0], ROUTES),
    ):
        if value not in known:
            raise _wrong(key, f"{value!r} is not known", "use one of " + ", ".join(known))
    if order.do in ("model", "breaker") and not order.model:
        raise _wrong("model", "is missing", "name the model")
    for name, routes in order.states.items():
        for route, state in routes.items():
            if state not in STATES:
                raise _wrong(f"states.{name}.{route}", f"{state!r} is no state", "use one of " + ", ".join(STATES))
    return order


def _wrong(key: str, problem: str, fix: str) -> InputError:
    return InputError("order", key, problem, fix)


def carry_out(order: Order, place: Place, clock: Callable[[], float] = time.time) -> Answer:
    """Change the tables of this gateway, or say what would be changed (`write` false).

    Raises InputError where the order or its result would be illegal (nothing is changed then), Refused while another
    change holds the lock or when the states are not as expected, OSError when the disk fails.
    """
    began = time.monotonic()
    journal = Journal(place.journal, _group_of(place.tables))
    with _locked(place.tables / ".lock", order.write):
        explained, problems = _explained(order, journal, place, clock)
        before, spoilt = _tables(order, place)
        problems += spoilt
        _expected(order, before)
        legs = _legs(order, before, place, clock())
        silent = legs.silent
        kept: list[Kept] = []
        held = _held(order, before, silent)
        now = _iso(clock())
        wanted = {} if held else _changed(order, before, silent, kept, now, place)
        answer = {**_told(order, before, wanted, silent, kept, held), "slow": _slow_sentences(order, before, legs)}
        answer |= {"explained": explained, "problems": problems}
        if order.write and not held:
            written = _write(order, before, wanted, place, journal, answer, clock)
            answer |= {**written, "problems": problems + written["problems"]}
    return {**answer, "took_s": round(time.monotonic() - began, 4)}


def acknowledge(ids: Iterable[str], place: Place, clock: Callable[[], float] = time.time) -> list[str]:
    """Note that the ledger tells these changes; the ids that were news. Raises Refused, OSError."""
    journal = Journal(place.journal, _group_of(place.tables))
    with _locked(place.tables / ".lock", True):
        explain(journal, place, clock)
        wanted = set(ids)
        news = [entry["id"] for entry in journal.unrecorded() if entry["id"] in wanted]
        if news:
            journal.add({"phase": "recorded", "t": round(clock(), 3), "ids": news})
    return news


def _write(
    order: Order,
    before: Mapping[str, Raw],
    wanted: Mapping[str, Raw],
    place: Place,
    journal: Journal,
    answer: Answer,
    clock: Callable[[], float],
) -> Answer:
    begun = _begun(order, before, wanted, place, answer, clock()) if order.do != "install" and wanted else None
    problems = _note(journal, begun, order)
    for pool, raw in wanted.items():
        write_whole(place.table(pool), raw)
    asked = wanted or _concerned(order, before)
    readback = confirm({pool: raw["version"] for pool, raw in asked.items()}, place.ports)
    outcome = "unconfirmed" if any(one["problem"] for one in readback.values()) else "done"
    ended = {"phase": "ended", "id": order.id, "t": round(clock(), 3), "outcome": outcome, "readback": readback}
    problems += _note(journal, ended if begun else None, order)
    entry = {**begun, **ended, "began": begun["t"]} if begun else None
    return {"readback": readback, "outcome": outcome, "entry": entry, "problems": problems}


def _note(journal: Journal, line: Line | None, order: Order) -> list[str]:
    """Write one line of the journal; what went wrong. A journal on a full disk does not keep anybody from the cloud."""
    if line is None:
        return []
    try:
        journal.add(line)
    except OSError as error:
        problem = f"{journal.path} cannot be written: {error.strerror}"
        if order.takes_back or line["phase"] == "ended":
            return [problem]
        raise Refused(f"{problem}; nothing was changed") from error
    return []


def _begun(
    order: Order, before: Mapping[str, Raw], wanted: Mapping[str, Raw], place: Place, answer: Answer, now: float
) -> Line:
    tables = {
        pool: {"before": digest_of(place.table(pool)), "after": _digest(_bytes(raw)), "version": raw["version"]}
        for pool, raw in wanted.items()
    }
    out = {pool: [before[pool]["models_rolled_back"], raw["models_rolled_back"]] for pool, raw in wanted.items()}
    return {
        "phase": "begun",
        "id": order.id,
        "t": round(now, 3),
        "now": next(iter(wanted.values()))["changed"],
        "order": {**asdict(order), "silent": answer["silent"], "tables": {}},
        "tables": tables,
        "before": answer["before"],
        "after": answer["after"],
        "kept": answer["kept"],
        "models_rolled_back": out,
    }


# --- what a crash left --------------------------------------------------------------------------------------------


def _explained(
    order: Order, journal: Journal, place: Place, clock: Callable[[], float]
) -> tuple[Line | None, list[str]]:
    """What a crash left, explained; and why it could not be, which keeps nobody from the cloud."""
    try:
        return (explain(journal, place, clock) if order.write else None), []
    except (OSError, InputError) as error:
        if order.takes_back:
            return None, [f"{journal.path}: {error}; an earlier change may have been cut off"]
        raise


def explain(journal: Journal, place: Place, clock: Callable[[], float] = time.time) -> Line | None:
    """End the change that a crash cut off, under the lock: what the journal says of it now, None without one.

    Tables tell how far it came: all written is done; some written, the rest is written now; none written, it was not
    done and the one who ordered it was told so. Tables that are neither as before nor as after were changed by hand.
    """
    begun = journal.unfinished()
    if begun is None:
        journal.rotate()
        return None
    found = {pool: digest_of(place.table(pool)) for pool in begun["tables"]}
    waiting = [pool for pool, digests in begun["tables"].items() if found[pool] == digests["before"]]
    written = [pool for pool, digests in begun["tables"].items() if found[pool] == digests["after"]]
    if len(waiting) + len(written) < len(found):
        outcome, note = "unexplained", "cut off; a table was changed by another hand since"
    elif not written:
        outcome, note = "not done", "cut off before any table was written"
    elif not waiting:
        outcome, note = "done", "cut off after the tables were written"
    else:
        outcome, note = _complete(begun, waiting, place)
    ended = {"phase": "ended", "id": begun["id"], "t": round(clock(), 3), "outcome": outcome, "note": note}
    journal.add(ended)
    return {**begun, **ended}


def _complete(begun: Line, waiting: list[str], place: Place) -> tuple[str, str]:
    order = parse_order(begun["order"])
    for pool in waiting:
        raw = read_raw(place.table(pool)) or {}
        after = change.stamped(
            raw, _mutated(order, pool, raw, begun["order"]["silent"], []), order.reason, begun["now"]
        )
        if _digest(_bytes(after)) != begun["tables"][pool]["after"]:
            return "unexplained", f"cut off between two tables; {pool} cannot be completed"
        write_whole(place.table(pool), after)
    return "done", f"cut off between two tables; completed with {', '.join(waiting)}"


# --- deciding -----------------------------------------------------------------------------------------------------


def _changed(
    order: Order, before: Mapping[str, Raw], silent: Silent, kept: list[Kept], now: str, place: Place
) -> dict[str, Raw]:
    """The tables that have to change, as they will be. All are legal before one of them is touched."""
    wanted = {}
    for pool in _pools(order, before):
        raw = before.get(pool, {})
        after = _mutated(order, pool, raw, silent, kept)
        if after != raw:
            parse_table(after, str(place.table(pool)))
            wanted[pool] = change.stamped(raw or None, after, order.reason, now)
    return wanted


def _mutated(order: Order, pool: str, raw: Raw, silent: Silent, kept: list[Kept]) -> Raw:
    file = f"{pool}.json"
    if order.do == "set":
        here = {name: routes for name, routes in order.states.items() if name in raw["tenants"]}
        return change.with_states(raw, here, file, order.only_from)
    if order.do == "roll_back":
        back = silent.get("cloud", {})
        return change.rolled_back(raw, order.tenant, order.route, order.accept_off, back, kept)
    if order.do == "model":
        return change.with_model(raw, str(order.model), order.out, file)
    if order.do == "breaker":
        return change.with_override(raw, str(order.model), order.override, file)
    if order.do == "adopt":
        return change.adopted(raw, order.tables[pool])
    return change.installed(raw or None, order.tables[pool])


def _pools(order: Order, before: Mapping[str, Raw]) -> list[str]:
    """The tables an order is about. Raises InputError for a tenant that none of them has, or where there are none."""
    if order.do == "install":
        return [pool for pool in POOLS if pool in order.tables]
    if order.do == "adopt":
        return [pool for pool in before if pool in order.tables]
    if not before:
        raise InputError("route tables", "(files)", "there are none", "run day 4 first")
    named = [*order.states, *([order.tenant] if order.tenant else [])]
    homes = {name: pool for pool, raw in before.items() for name in raw["tenants"]}
    for name in named:
        if name not in homes:
            known = ", ".join(sorted(homes)) or "none"
            raise InputError("route tables", f"tenants.{name}", "is in no route table", f"name one of {known}")
    if named:
        return sorted({homes[name] for name in named})
    return [pool for pool in before if pool in order.pools] if order.do == "model" else list(before)


def _concerned(order: Order, before: Mapping[str, Raw]) -> dict[str, Raw]:
    """The tables whose routers are asked although nothing had to change."""
    return {pool: before[pool] for pool in _pools(order, before) if pool in before}


def _expected(order: Order, before: Mapping[str, Raw]) -> None:
    now: States = {}
    for raw in before.values():
        now.update(change.states(raw))
    surprises = change.unexpected(now, order.expect)
    if surprises:
        raise Refused("the table is not as expected: " + "; ".join(surprises))


def _targets(order: Order, before: Mapping[str, Raw]) -> dict[str, set[str]]:
    """{side: routes} that traffic would move to."""
    sides: dict[str, set[str]] = {"cloud": set(), "onprem": set()}
    for raw in before.values():
        for name, tenant in raw["tenants"].items():
            for route, state in tenant["routes"].items():
                goal = _goal(order, raw, name, route, state)
                sides["onprem"] |= {route} if goal in ("onprem", "mirror") else set()
                sides["cloud"] |= {route} if goal in ("cloud", "mirror") else set()
    return sides


def _goal(order: Order, raw: Raw, name: str, route: str, state: str) -> str:
    """Where the order would have this route served, "" where it leaves it alone."""
    if order.do == "set":
        wanted = order.states.get(name, {}).get(route, "")
        return wanted if wanted != state and (order.only_from is None or state in order.only_from) else ""
    if state != "onprem":
        return ""
    if order.do == "roll_back":
        named = order.tenant in (None, name) and order.route in (None, route)
        return "cloud" if named and raw["pool"] == "hybrid" else ""
    leg = raw["onprem"].get(raw["placement"], {}).get(route, {})
    if leg.get("model") != order.model:
        return ""
    if order.do == "model" and not order.out:
        return "onprem"
    leaves = order.do == "model" or (order.do == "breaker" and order.override == "open")
    return "cloud" if leaves and raw["pool"] == "hybrid" else ""


def _legs(order: Order, before: Mapping[str, Raw], place: Place, now: float) -> Legs:
    """Which legs answer, as far as the order wants to know."""
    nothing: Silent = {"cloud": {}, "onprem": {}}
    if order.silent is not None:
        return Legs(order.silent, nothing)
    table = before.get("hybrid")
    if order.check == "none" or table is None:
        return Legs(nothing, nothing)
    try:
        router = readiness.health(place.ports["hybrid"]) if "hybrid" in place.ports else {}
    except (OSError, ValueError):
        router = {}
    targets = _targets(order, before)
    legs = readiness.look(table, router, place.records, now, targets["cloud"] | targets["onprem"])
    if order.check == "ask":
        for side, routes in targets.items():
            asked = routes - set(legs.silent[side]) - set(legs.slow[side])
            legs.silent[side].update(readiness.ask_legs(table, router, side, asked))
    return legs


def _slow_sentences(order: Order, before: Mapping[str, Raw], legs: Legs) -> list[str]:
    """What traffic moves to although it is slow."""
    return [
        f"{route} goes to a slow leg: {legs.slow[side][route]}"
        for side, routes in _targets(order, before).items()
        for route in sorted(routes & set(legs.slow[side]))
    ]


def _held(order: Order, before: Mapping[str, Raw], silent: Silent) -> list[str]:
    """Why an order that moves all or nothing is not carried out. A rollback moves what it can (see `kept`)."""
    if order.do == "roll_back":
        return []
    return [
        f"{route} is not moved: {silent[side][route]}"
        for side, routes in _targets(order, before).items()
        for route in sorted(routes & set(silent.get(side, {})))
    ]


def _told(
    order: Order,
    before: Mapping[str, Raw],
    wanted: Mapping[str, Raw],
    silent: Silent,
    kept: list[Kept],
    held: list[str],
) -> Answer:
    """What changes, and what had to stay, for whoever ordered."""
    old: States = {}
    new: States = {}
    for pool in dict.fromkeys((*before, *wanted)):
        old.update(change.states(before[pool]) if pool in before else {})
        new.update(change.states(wanted.get(pool) or before[pool]))
    was, will = change.moved(old, new)
    after = {**before, **wanted}
    return {
        "id": order.id,
        "changed": bool(wanted),
        "before": was,
        "after": will,
        "versions": {pool: raw["version"] for pool, raw in after.items()},
        "models_rolled_back": {pool: raw["models_rolled_back"] for pool, raw in after.items()},
        "overrides": {pool: raw.get("overrides", {}) for pool, raw in after.items()},
        "states_sha256": _digest(json.dumps(new, sort_keys=True).encode()),
        "silent": silent,
        "kept": [str(one) for one in kept],
        "waiting": [str(one) for one in kept if one.why != change.SENSITIVE],
        "neither": [
            f"{one.tenant}/{one.route}"
            for one in kept
            if one.why != change.SENSITIVE and one.route in silent["onprem"] and one.route in silent["cloud"]
        ],
        "held": held,
        "readback": {},
        "outcome": "predicted" if not held else "held",
        "entry": None,
    }


# --- the disk, the routers ----------------------------------------------------------------------------------------


def _tables(order: Order, place: Place) -> tuple[dict[str, Raw], list[str]]:
    """Every pool's table, and what is wrong with them. Raises InputError for one that is no table.

    Rollback is legal in every state: where somebody spoilt a table it goes on from the one that an order last wrote.
    """
    found, problems = {}, []
    for pool in POOLS:
        path = place.table(pool)
        try:
            raw = read_raw(path)
            if raw is not None:
                parse_table(raw, str(path))
        except InputError as error:
            raw = read_raw(kept_copy(path)) if order.takes_back else None
            if raw is None:
                raise
            problems.append(f"{error}; gone on from the table that was last ordered")
        if raw is not None:
            found[pool] = raw
    return found, problems


def read_raw(path: Path) -> Raw | None:
    """A table as plain data; None where there is none. Raises InputError for a file that is no JSON."""
    try:
        raw: Raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(str(path), "(file)", f"is not JSON: {error}", "restore it; day 4 installs it anew") from error
    return raw


def write_whole(path: Path, raw: Raw) -> None:
    """Replace the table by rename and read it back. Raises OSError, also when the disk gave back something else."""
    content = _bytes(raw)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.chmod(0o644)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    if path.read_bytes() != content:
        raise OSError(f"{path} was not read back as written: check the disk, then order it again")
    with suppress(OSError):  # the table is in force; only who spoils it by hand makes anybody look for this
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.replace(kept_copy(path))


def confirm(versions: Mapping[str, int], ports: Mapping[str, int], patience_s: float = CONFIRM_S) -> dict[str, Any]:
    """{pool: {version, problem}}: what each pool's router says it decides by, waited for at most `patience_s` s."""
    deadline = time.monotonic() + patience_s
    return {pool: _confirmed(ports[pool], version, deadline) for pool, version in versions.items() if pool in ports}


def _confirmed(port: int, version: int, deadline: float) -> dict[str, Any]:
    while True:
        left = deadline - time.monotonic()
        try:
            said = readiness.health(port, max(0.05, min(1.0, left))).get("table_version")
            problem = "" if said == version else f"its router decides by version {said}, not {version}"
        except (OSError, ValueError) as error:
            said, problem = None, f"its router does not answer: {error}"
        if not problem or left <= 0:
            return {"version": said, "problem": problem}
        time.sleep(CONFIRM_PAUSE_S)


@contextmanager
def _locked(path: Path, lock: bool) -> Iterator[None]:
    """The one lock of this gateway's tables; gone with the process. Raises Refused after a few seconds of waiting."""
    if not lock:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("another change of routes holds this gateway; wait for it to end") from None
                time.sleep(CONFIRM_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _group_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_gid
    except OSError:
        return None


def digest_of(path: Path) -> str:
    """sha256 of a file, "" where there is none."""
    try:
        return _digest(path.read_bytes())
    except FileNotFoundError:
        return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _bytes(raw: Raw) -> bytes:
    return json.dumps(raw, indent=1, sort_keys=True).encode() + b"\n"


def _iso(epoch_s: float) -> str:
    moment = datetime.fromtimestamp(epoch_s, timezone.utc)  # noqa: UP017 - the name UTC is too new for some targets
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
