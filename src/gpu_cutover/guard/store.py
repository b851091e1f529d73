"""The guard's memory on disk: written whole by rename, and a damaged file is set aside, never guessed at."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .decide import State, begin
from .placement import HEALTHY, derated_gpu
from .roster import Roster, from_dicts

KEPT_EVENTS = 300
KEPT_CHANGES = 10


@dataclass
class Change:
    """One de-rate or restore, as the ledger will record it. Times in epoch seconds."""

    kind: str
    gpu: int | None
    placement: str
    cause: str
    started: float
    by: str
    finished: float | None = None
    timeline: list[dict[str, Any]] = field(default_factory=list)
    displaced: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    recorded: bool = False


@dataclass
class Memory:
    """Everything that survives the process. `moved` are slots whose engines still run on the board before."""

    state: State
    placement: str = HEALTHY
    since: float = 0.0
    previous: str = ""
    reason: str = ""
    changing: bool = False
    observe_only: bool | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    roster: Roster = ()
    moved: list[int] = field(default_factory=list)

    def tell(self, event: str, now: float) -> None:
        """Add an event, and to the running change's timeline while there is one."""
        entry = {"t": round(now, 3), "event": event}
        self.events = [*self.events, entry][-KEPT_EVENTS:]
        if self.changes and self.changes[-1].finished is None:
            self.changes[-1].timeline.append(entry)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def save(memory: Memory, path: Path) -> None:
    """Write the whole memory. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w") as handle:
        json.dump(memory.as_dict(), handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)


def _parse(text: str, gpus: int) -> Memory:
    raw = json.loads(text)
    memory = Memory(
        **{
            **raw,
            "state": State.from_dict(raw["state"]),
            "changes": [Change(**change) for change in raw["changes"]],
            "roster": from_dicts(raw.get("roster", ())),
        }
    )
    if len(memory.state.gpus) != gpus:
        raise ValueError(f"the file knows {len(memory.state.gpus)} GPUs, the site declares {gpus}")
    return memory


def load(path: Path, gpus: int, current: str | None, now: float) -> Memory:
    """The memory of the last run; a new one when there is none or it is damaged (the damaged file is kept beside it).

    A new memory takes the placement that is in force: a guard that lost its file does not bring a hot GPU back.
    """
    problem = ""
    try:
        return _parse(path.read_text(), gpus)
    except FileNotFoundError:
        problem = "first start"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"state file unusable ({error}), started anew"
        if path.exists():
            path.replace(path.with_name(f"{path.name}.damaged-{int(now)}"))
    name = current or HEALTHY
    state = begin(gpus, now)
    lost = derated_gpu(name)
    if lost is not None and lost < gpus:
        levels = [*state.gpus]
        levels[lost] = type(levels[lost])(level="derated", since=now, margin_since=now)
        state = State(gpus=tuple(levels), derated=lost, cause="found de-rated at start", last_t=now)
    memory = Memory(state=state, placement=name, since=now)
    memory.tell(problem, now)
    return memory


def clock() -> float:
    """Epoch seconds; a function so that tests can give another."""
    return time.time()


def steady(not_before: float, monotonic: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """A clock that only goes forward, one second a second, whatever is done to the wall clock; begins as epoch seconds.

    `not_before` is where the memory ended: a wall clock that was set back while the guard was down changes nothing.
    """
    start, began = max(clock(), not_before), monotonic()
    return lambda: start + monotonic() - began
