"""What has happened on a site, what is next, what was interrupted: from ledger records and run files alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..evidence.days import DayState, day_states, refusal
from ..evidence.records import Record
from .days import DAYS
from .eta import ago, clock
from .outcome import interrupted_sentence, place
from .record import Run, epoch

EVENT_KINDS = ("cutover", "rollback", "derate", "restore", "drill", "watch", "hold", "waiver", "certificates")
SHOWN_EVENTS = 10


def build_status(
    site: str,
    records: Sequence[Record],
    runs: Sequence[Run],
    holder: Mapping[str, Any] | None,
    playbooks: Mapping[int, str],
    now_s: float,
) -> dict[str, Any]:
    """The status as plain data. `runs` newest first, `holder` what the lock's holder says, `now_s` since 1970."""
    states = day_states(records)
    gates = {int(r.data.get("day", 0)): r for r in records if r.kind == "gate"}
    run = run_state(runs, holder, now_s)
    return {
        "site": site,
        "days": [_day(states[day], gates.get(day), playbooks.get(day)) for day in DAYS],
        "next": _next(states, records, run, now_s),
        "run": run,
        "events": [event(record) for record in records if record.kind in EVENT_KINDS],
        "routing": routing(records),
    }


def run_state(runs: Sequence[Run], holder: Mapping[str, Any] | None, now_s: float) -> dict[str, Any]:
    """running while somebody holds the lock; interrupted when the newest real run ended without a result; else none."""
    real = [run for run in runs if not run.check]
    if holder is not None:
        own = next((run for run in runs if run.id == holder.get("id")), None)
        return _running(holder, own, now_s)
    newest = real[0] if real else None
    if newest is None:
        return {"state": "none"}
    if newest.result is None or newest.result.state == "interrupted":
        return {"state": "interrupted", **_facts(newest), "sentence": interrupted_sentence(newest, now_s)}
    return {
        "state": "none",
        "last": {**_facts(newest), "result": newest.result.state, "verdict": newest.result.verdict},
    }


def _running(holder: Mapping[str, Any], run: Run | None, now_s: float) -> dict[str, Any]:
    title = str(holder.get("title", "a run"))
    if run is None:
        return {"state": "running", "id": holder.get("id"), "by": holder.get("by"), "sentence": f"{title} is starting"}
    where = place(run)
    took = clock(now_s - epoch(run.started))
    return {
        "state": "running",
        **_facts(run),
        "sentence": f"{title} has been running for {took} (by {run.by}){', now at ' + where if where else ''}",
    }


def _facts(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "day": run.day,
        "by": run.by,
        "started": run.started,
        "updated": run.updated,
        "role": run.role,
        "task": run.task,
        "hosts": run.hosts,
        "tasks_done": run.tasks_done,
    }


def _day(state: DayState, gate: Record | None, playbook: str | None) -> dict[str, Any]:
    checks = gate.data.get("checks") or [] if gate else []
    waiver = state.waiver
    return {
        "day": state.day,
        "title": DAYS[state.day],
        "playbook": playbook,
        "verdict": state.verdict,
        "at": gate.time if gate else None,
        "duration_s": duration_s(gate.data) if gate else None,
        "waiver": {"by": waiver.by, "reason": waiver.reason, "until": waiver.until.isoformat()} if waiver else None,
        "checks_failed": [_failed(check) for check in checks if check.get("status") != "pass"],
    }


def _failed(check: Mapping[str, Any]) -> dict[str, Any]:
    return {key: check.get(key) for key in ("id", "status", "host", "sentence")}


def _next(
    states: Mapping[int, DayState], records: Sequence[Record], run: Mapping[str, Any], now_s: float
) -> dict[str, Any] | None:
    today = datetime.fromtimestamp(now_s, UTC).date()
    day = next((number for number in DAYS if not states[number].opens_next(today)), None)
    if day is None:
        return None
    state = states[day]
    why = "not run yet" if state.verdict is None else f"its gate says {state.verdict}"
    if state.open_checks:
        why += f" (open: {', '.join(state.open_checks)})"
    refused = str(run["sentence"]) if run["state"] == "running" else refusal(records, day, today)
    then = refusal(records, day + 1, today) if day < max(DAYS) else None
    return {"day": day, "title": DAYS[day], "why": why, "refused": refused, "after_it_refused": then}


def event(record: Record) -> dict[str, Any]:
    """One record as an event: what, when (UTC), how long it took (seconds, None when not measured)."""
    return {
        "kind": record.kind,
        "name": record.name,
        "at": record.time,
        "duration_s": duration_s(record.data),
        "data": dict(record.data),
    }


def duration_s(data: Mapping[str, Any]) -> float | None:
    """What was measured (`took_s`), else `started` to `finished` (ISO or epoch), else over a `timeline`; seconds."""
    for key in ("took_s", "duration_s"):
        if isinstance(data.get(key), int | float):
            return round(float(data[key]), 4)
    begin, end = moment(data.get("started")), moment(data.get("finished"))
    if begin is None or end is None:
        times = [moment(entry.get("t")) for entry in data.get("timeline") or [] if isinstance(entry, Mapping)]
        known = [time for time in times if time is not None]
        begin, end = (min(known), max(known)) if len(known) > 1 else (None, None)
    return None if begin is None or end is None else round(end - begin, 3)


def moment(value: Any) -> float | None:
    """Epoch seconds of an ISO text or a number; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return epoch(value) if isinstance(value, str) else None
    except ValueError:
        return None


def routing(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """{tenant: {route: state}} after the last record that changed it."""
    current: dict[str, dict[str, str]] = {}
    for record in records:
        after = record.data.get("after")
        if isinstance(after, Mapping):
            for tenant, routes in after.items():
                if isinstance(routes, Mapping):
                    current.setdefault(str(tenant), {}).update({str(k): str(v) for k, v in routes.items()})
    return current


def text(status: Mapping[str, Any], now_s: float) -> str:
    """The same for people."""
    lines = [
        f"site {status['site']}",
        "",
        f"{'day':>4}  {'title':<26}{'verdict':<11}{'when (UTC)':<18}{'took':>8}  waiver",
    ]
    lines += [_day_line(day) for day in status["days"]]
    lines += ["", *_next_lines(status["next"]), *_run_lines(status["run"])]
    events = status["events"][-SHOWN_EVENTS:]
    if events:
        lines += ["", f"last {len(events)} of {len(status['events'])} events"]
        lines += [_event_line(item, now_s) for item in events]
    lines += _routing_lines(status["routing"])
    lines += _gateway_lines(status.get("gateways"))
    return "\n".join(lines)


def _day_line(day: Mapping[str, Any]) -> str:
    took = "" if day["duration_s"] is None else clock(day["duration_s"])
    waiver = day["waiver"]
    waived = f"until {waiver['until']} by {waiver['by']}: {waiver['reason']}" if waiver else ""
    verdict = day["verdict"] or "–"
    line = f"{day['day']:>4}  {day['title']:<26}{verdict:<11}{_short(day['at']):<18}{took:>8}  {waived}".rstrip()
    return "\n".join([line, *(f"        {_failed_line(check)}" for check in day["checks_failed"])])


def _failed_line(check: Mapping[str, Any]) -> str:
    where = f" [{check['host']}]" if check["host"] else ""
    return f"{check['status']}: {check['id']}{where} - {check['sentence']}"


def _short(at: str | None) -> str:
    return at[:16].replace("T", " ") if at else ""


def _next_lines(following: Mapping[str, Any] | None) -> list[str]:
    if following is None:
        return ["next: nothing; all ten days are promoted or waived"]
    lines = [f"next: day {following['day']}, {following['title']} ({following['why']})"]
    for key, words in (("refused", "refused now"), ("after_it_refused", "after that")):
        if following[key]:
            lines.append(f"  {words}: {following[key].splitlines()[0]}")
    return lines


def _run_lines(run: Mapping[str, Any]) -> list[str]:
    if "sentence" in run:
        return [f"run: {run['sentence']}"]
    last = run.get("last")
    if not last or last["result"] not in ("failed", "error", "unreachable", "wrong_input"):
        return ["run: none"]
    role = f"role {last['role']}, " if last["role"] else ""
    where = f" at {role}task {last['task']}" if last["task"] else ""
    return [f"run: none; the last one ({last['name']}) ended with {last['result']}{where}"]


def _event_line(item: Mapping[str, Any], now_s: float) -> str:
    took = "" if item["duration_s"] is None else f"{item['duration_s']:.3f} s"
    at = moment(item["at"])
    when = f"{ago(now_s - at)} ago" if at is not None else ""
    return f"  {_short(item['at'])}  {item['kind']:<9}{item['name']:<34}{took:>10}  {when}"


def _routing_lines(table: Mapping[str, Mapping[str, str]]) -> list[str]:
    if not table:
        return ["", "routing: nothing recorded yet"]
    routes = sorted({route for states in table.values() for route in states})
    lines = ["", "routing   ".ljust(20) + "".join(f"{route:<9}" for route in routes)]
    return lines + [
        f"  {tenant:<18}" + "".join(f"{table[tenant].get(route, '–'):<9}" for route in routes)
        for tenant in sorted(table)
    ]


def _gateway_lines(told: Mapping[str, Any] | None) -> list[str]:
    """What the table above does not show yet."""
    if told is None:
        return []
    lines = []
    for change in told["changes"]:
        when = _short(datetime.fromtimestamp(change["t"], UTC).isoformat())
        lines.append(
            f"  {when}  by {change['by']} ({change['path']}) on {', '.join(change['gateways'])}: {change['reason']}"
        )
        lines += [f"      {line}" for line in change["moved"]]
    if lines:
        lines = ["", "changed on the gateways and not in the ledger yet", *lines]
        lines.append(f"  record them: {told['record_with']}")
    not_asked = [f"{host} was not asked for changes of its own: {why}" for host, why in told["not_asked"].items()]
    return lines + (["", *not_asked] if not_asked else [])
