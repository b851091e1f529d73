"""What the gateways' answers mean: go on, refuse, how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, EXIT_HOLD, InputError, Refused
from ..evidence.days import refusal
from ..evidence.records import Record

Answer = Mapping[str, Any]
States = Mapping[str, Mapping[str, str]]
SHOWN = 6  # tenants named in a sentence


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be sent: an order for each gateway that acts, and the gateways that are left as they are, with why."""

    orders: dict[str, dict[str, Any]]
    stale: dict[str, str]
    predicted: dict[str, Answer] = field(default_factory=dict)

    @property
    def slow(self) -> list[str]:
        """What moves although its target is slow."""
        return [f"{host}: {sentence}" for host, one in self.predicted.items() for sentence in one.get("slow", [])]


def plan(order: Mapping[str, Any], predicted: Mapping[str, Answer], lost: Mapping[str, str], degraded: bool) -> Plan:
    """Decide from every gateway's prediction whether and where the order is carried out.

    Raises InputError where a gateway says that the order is wrong, Refused when a gateway is lost or a target does not
    answer, unless `degraded` allows to leave that gateway as it is. Nothing has been changed then.
    """
    able = {host: answer for host, answer in predicted.items() if answer.get("ok")}
    for host, answer in predicted.items():
        if answer.get("error") == "input":
            raise InputError(f"{answer['file']} of {host}", answer["key"], answer["problem"], answer["fix"])
        if not answer.get("ok") and answer.get("error") != "lost":
            raise Refused(f"{host}: {answer.get('message')}. Nothing was changed.")
    if not able:
        raise Refused("no gateway can be reached, nothing was changed: " + _sentences(lost))
    if lost and not degraded:
        raise Refused(_lost_sentence(lost, able))
    held = {host: "; ".join(answer["held"]) for host, answer in able.items() if answer["held"]}
    if held and (not degraded or len(held) == len(able)):
        raise Refused("nothing was changed, because the target does not answer: " + _sentences(held))
    stale = {**lost, **held}
    acting = [host for host in able if host not in stale]
    silent = {host: able[host]["silent"] for host in acting}
    if not degraded:  # one table for all: a route that one gateway's cloud cannot answer stays on all of them
        together = _together(silent.values())
        silent = dict.fromkeys(acting, together)
    orders = {host: {**order, "write": True, "silent": silent[host], "leaving": stale} for host in acting}
    return Plan(orders, stale, {host: able[host] for host in acting})


def _lost_sentence(lost: Mapping[str, str], able: Mapping[str, Answer]) -> str:
    stays = _moves(next(iter(able.values()))["before"])
    would = f" would go on with: {stays}." if stays else " would not be asked."
    return (
        f"{_sentences(lost)}. Nothing was changed: {', '.join(lost)}{would}\n"
        f"Repair it, or act on {', '.join(able)} alone with --degraded (the record says what is stale)."
    )


def _together(found: Any) -> dict[str, dict[str, str]]:
    sides: dict[str, dict[str, str]] = {"cloud": {}, "onprem": {}}
    for silent in found:
        for side, routes in silent.items():
            sides[side].update(routes)
    return sides


def _sentences(why: Mapping[str, str]) -> str:
    return "; ".join(f"{host}: {reason}" for host, reason in why.items())


def _moves(states: States) -> str:
    named = [
        f"{tenant} {', '.join(f'{route} {state}' for route, state in sorted(routes.items()))}"
        for tenant, routes in sorted(states.items())
    ]
    more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return "; ".join(named[:SHOWN]) + more


@dataclass(frozen=True, slots=True)
class Ending:
    """How a change ended: exit code, sentences, and where nobody knows."""

    code: int
    sentences: tuple[str, ...]
    unknown: Mapping[str, str]
    changed: bool


def ending(answers: Mapping[str, Answer], stale: Mapping[str, str], slow: Sequence[str] = ()) -> Ending:
    """Judge the answers to the orders that were sent. `slow`: told, and no reason for another exit code."""
    unknown = {host: str(one.get("message")) for host, one in answers.items() if not one.get("ok")}
    good = {host: one for host, one in answers.items() if one.get("ok")}
    told = [
        f"{host}: {why}; whether it was done there is not known: gpu-cutover route show"
        for host, why in unknown.items()
    ]
    told += [
        f"{host}, pool {pool}: written, but {one['problem']}"
        for host, answer in good.items()
        for pool, one in answer["readback"].items()
        if one["problem"]
    ]
    told += [f"{host}: {problem}" for host, answer in good.items() for problem in answer["problems"]]
    if len({one["states_sha256"] for one in good.values()}) > 1:
        told.append(f"{' and '.join(good)} do not hold the same states: gpu-cutover route show")
    wrong = bool(told)
    told += [f"{host} is stale: it goes on as before ({why})" for host, why in stale.items()]
    told += slow
    kept = list(dict.fromkeys(sentence for one in good.values() for sentence in one["kept"]))
    told += kept
    waiting = [sentence for one in good.values() for sentence in one["waiting"]]
    neither = sorted({name for one in good.values() for name in one["neither"]})
    if neither:
        told.append(f"HOLD: neither the cloud nor our machine answers {', '.join(neither)}")
    code = EXIT_ERROR if wrong else EXIT_HOLD if waiting else EXIT_DONE
    return Ending(code, tuple(told), unknown, any(one["changed"] for one in good.values()))


def moved(answers: Mapping[str, Answer]) -> list[str]:
    """One line a tenant that moved: `zam: audio onprem → cloud, chat onprem → cloud`."""
    answer = next((one for one in answers.values() if one.get("ok") and one["after"]), None)
    if answer is None:
        return []
    lines = []
    for tenant, routes in sorted(answer["after"].items()):
        before = answer["before"].get(tenant, {})
        lines.append(f"{tenant}: " + ", ".join(f"{r} {before.get(r)} → {state}" for r, state in sorted(routes.items())))
    return lines


def gate_refusal(records: Sequence[Record], tenant: str, state: str, first: str, today: Any) -> str | None:
    """Why a tenant may not be put into this state yet, as days 8, 9 and 10 decide it; None when it may.

    A mirror asks what day 8 asks (day 7 promoted), the first tenant what day 9 asks, everybody else what day 10 asks.
    A waiver counts as it does for the day. Away from our machine (`cloud`, `off`) nobody is ever asked.
    """
    if state not in ("mirror", "onprem"):
        return None
    day = 8 if state == "mirror" else 9 if tenant == first else 10
    return refusal(records, day, today)
