"""Which board is which GPU of the site: slots bound to UUIDs, so that a board that is gone never shifts the others.

NVML and CUDA number what they find. A server of four that boots without its second board has GPUs 0, 1, 2, and what
was GPU 2 is called 1. Everything here speaks of *slots*, the site's GPU numbers; a reading is turned into slots
(`by_slot`) before anything is decided, and slots into numbers or UUIDs (`devices`) when an engine starts.

Slots are learned from the first complete reading (every declared board, in the order of the buses), or declared. After
that only a person binds them anew. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Board:
    """What is in a slot. `source` says how that is known."""

    uuid: str
    bus_id: str = ""
    serial: str = ""
    source: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


Roster = tuple[Board, ...]


def _boards(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a whole reading; none when there is no reading."""
    gpus = sample.get("gpus")
    if sample.get("error") or not isinstance(gpus, list):
        return []
    return [gpu for gpu in gpus if isinstance(gpu, Mapping)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def learn(sample: Mapping[str, Any], count: int, source: str) -> tuple[Roster, str | None]:
    """The slots as this reading shows them, in the order of the buses; the second value says why it cannot tell.

    Only a reading of exactly `count` boards that all answer with different UUIDs is believed.
    """
    rows = _boards(sample)
    uuids = [_text(row.get("uuid")) for row in rows]
    if len(rows) != count:
        return (), f"{len(rows)} of {count} boards answer"
    if not all(uuids) or len(set(uuids)) != count or any(row.get("lost") for row in rows):
        return (), "not every board tells its UUID"
    ordered = sorted(rows, key=lambda row: (_text(row.get("bus_id")), row.get("index", 0)))
    boards = (Board(_text(r.get("uuid")), _text(r.get("bus_id")), _text(r.get("serial")), source) for r in ordered)
    return tuple(boards), None


def declared(uuids: Sequence[str], before: Roster) -> Roster:
    """The slots as the configuration declares them; where a board was seen is kept."""
    known = {board.uuid: board for board in before}
    return tuple(Board(u, *_seen(known.get(u)), source="declared") for u in uuids)


def _seen(board: Board | None) -> tuple[str, str]:
    return ("", "") if board is None else (board.bus_id, board.serial)


def by_slot(sample: Mapping[str, Any], roster: Roster) -> dict[str, Any]:
    """The reading with slots for numbers. `nvml_index` keeps NVML's, `roster` lists (key, sentence) to call for.

    A slot whose board is not among those that answer is `lost`; where a board answers without saying who it is, the
    slots that are left are unreadable instead. Without a roster, or of another machine altogether, nothing is turned.
    """
    rows = _boards(sample)
    if not roster or not rows:
        return dict(sample)
    slots = {board.uuid: slot for slot, board in enumerate(roster)}
    found = {slots[row["uuid"]]: row for row in rows if row.get("uuid") in slots}
    strangers = [row for row in rows if row.get("uuid") and row["uuid"] not in slots]
    if not found and strangers:
        text = "none of the boards is known: another machine's? `gpu-cutover-guard ctl accept` binds them"
        return {**sample, "gpus": [], "roster": [("boards: unknown", text)]}
    nameless = [row for row in rows if not row.get("uuid") and not row.get("lost")]
    gpus = [
        {**found[slot], "index": slot, "nvml_index": found[slot].get("index")}
        if slot in found
        else {"index": slot, "lost": not nameless, "uuid": board.uuid, "absent": True}
        for slot, board in enumerate(roster)
    ]
    numbers = {row.get("index"): slot for slot, row in found.items()}
    xids = [
        {**event, "gpu": numbers.get(event.get("gpu"))}
        for event in sample.get("xids") or []
        if isinstance(event, Mapping)
    ]
    return {**sample, "gpus": gpus, "xids": xids, "roster": _problems(found, strangers, roster)}


def _problems(
    found: Mapping[int, Mapping[str, Any]], strangers: Sequence[Mapping[str, Any]], roster: Roster
) -> list[tuple[str, str]]:
    problems = []
    for row in strangers:
        empty = ", ".join(str(slot) for slot in range(len(roster)) if slot not in found) or "none"
        text = f"board {row['uuid']} (serial {row.get('serial')}, bus {row.get('bus_id')}) is unknown; slots without"
        problems.append((f"board {row['uuid']}", f"{text} a board: {empty}; out of service until accepted"))
    moved = [
        slot
        for slot, row in sorted(found.items())
        if roster[slot].bus_id and row.get("bus_id") and row["bus_id"] != roster[slot].bus_id
    ]
    if moved:
        names = ", ".join(f"GPU {slot} ({roster[slot].bus_id} → {found[slot]['bus_id']})" for slot in moved)
        problems.append(("boards moved", f"boards sit elsewhere: {names}; pairs may straddle sockets until accepted"))
    return problems


def changed_slots(before: Roster, after: Roster) -> list[int]:
    """Slots whose board is another one."""
    return [slot for slot, board in enumerate(after) if slot >= len(before) or before[slot].uuid != board.uuid]


def from_dicts(data: Sequence[Mapping[str, str]]) -> Roster:
    """Raises TypeError when the data is no roster."""
    return tuple(Board(**board) for board in data)


def devices(slots: Sequence[int], sample: Mapping[str, Any], roster: Roster, by: str) -> tuple[list[str], str | None]:
    """What CUDA_VISIBLE_DEVICES must say for these slots now (`by`: uuid or index); or why an engine must not start.

    Without a roster a slot is its number.
    """
    if not roster:
        return [str(slot) for slot in slots], None
    here = {row.get("uuid"): row for row in _boards(sample) if not row.get("lost")}
    named = []
    for slot in slots:
        if slot >= len(roster):
            return [], f"there is no GPU {slot}"
        row = here.get(roster[slot].uuid)
        if row is None:
            return [], f"GPU {slot} ({roster[slot].uuid}) does not answer"
        named.append(roster[slot].uuid if by == "uuid" else str(row["index"]))
    return named, None
