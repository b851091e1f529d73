"""The guard's threads: one samples and decides every second, one brings the host to the wanted placement, one asks the
engines how they are. Sampling never waits for an engine, and nothing waits for NVML longer than its time-out. Decisions
and times of state count by a clock that never jumps; what people read carries the wall clock's time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from ..probes import nvml
from . import decide, placement, roster, store, systemd, web
from .config import Config
from .engines import EngineStates
from .history import History
from .notify import notify

log = logging.getLogger("gpu-guard")
LED_TO_IT_S = 900.0
SAVE_EVERY_S = 30.0
SHORTEST_WAIT_S = 0.05  # between two samples, also when Xids come in a storm
LONGEST_HOLD_S = 30.0  # of a question for the next placement


class Reader(Protocol):
    """Where samples come from."""

    def read(self, timeout_s: float) -> dict[str, Any]: ...

    def set_limit(self, uuid: str, watts: float, timeout_s: float) -> str | None: ...

    def wait(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class Guard:
    """All of the guard's state behind one lock; every method is safe from every thread."""

    def __init__(
        self,
        config: Config,
        reader: Reader,
        host: placement.Host,
        engine_states: Callable[[Mapping[str, placement.Engine]], dict[str, dict[str, Any]]],
    ) -> None:
        self.config, self.reader, self.host = config, reader, host
        self.engine_states = engine_states
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.wake = threading.Event()
        self.stopping = threading.Event()
        now = store.clock()
        self.memory = store.load(config.state_file, config.gpus, placement.current_name(config.placements), now)
        self.steady = store.steady(self.memory.state.last_t)
        self.raw: dict[str, Any] = {"t": 0.0, "error": "no sample yet"}
        self.sample = self.raw
        self.sampled = -1.0  # by the monotonic clock
        self.history = History(round(config.history_s / config.interval_s), config.gpus)
        self.engines: dict[str, dict[str, Any]] = {}
        self.gpu_uuids: dict[str, str] = {str(slot): board.uuid for slot, board in enumerate(self.memory.roster)}
        self.away: set[str] = set()  # models that start anew and are not back yet
        self.limits: list[tuple[int, float]] = []  # power limits to set, by the thread that owns the reader
        self.saved_at = -SAVE_EVERY_S
        if config.uuids:
            self._bind(roster.declared(config.uuids, self.memory.roster))
        if self.memory.changing:
            self.away = self._displaced(self.memory.previous, self._wanted())
            self._tell("the guard was stopped in the middle of a change; finishing it")

    # --- deciding -----------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> decide.Policy:
        """The configured policy, with the switch a person may have set since."""
        wanted = self.memory.observe_only
        return self.config.policy if wanted is None else replace(self.config.policy, observe_only=wanted)

    def _tell(self, event: str) -> None:
        log.info(event)
        self.memory.tell(event, store.clock())

    def tick(self) -> None:
        """Sample, decide, act."""
        raw = self.reader.read(self.config.read_timeout_s)
        with self.lock:
            self._learn(raw)
            sample = roster.by_slot(raw, self.memory.roster)
            self.raw, self.sample, self.sampled = raw, sample, time.monotonic()
            self.memory.state, actions = decide.decide(self.memory.state, sample, self.policy, self.steady())
            self._remember(sample)
            self._act(actions, "guard")
            if actions or time.monotonic() - self.saved_at >= SAVE_EVERY_S:
                self._save()
            limits, self.limits = self.limits, []
        for gpu, watts in limits:
            self._limit(gpu, watts)

    def _learn(self, raw: Mapping[str, Any]) -> None:
        """Bind slots to boards once: from the first whole reading of a guard that knows none."""
        if self.memory.roster:
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(store.clock()))
        found, _ = roster.learn(raw, self.config.gpus, f"learned {when}")
        if found:
            self.memory.roster = found
            self._tell(f"boards learned: {', '.join(board.uuid for board in found)}")
            self._save()

    def _bind(self, boards: roster.Roster) -> None:
        """Other boards in the slots, by a person's word: what ran on the board before must start anew."""
        memory = self.memory
        changed = roster.changed_slots(memory.roster, boards)
        known = bool(memory.roster)
        memory.roster = boards
        if not changed:
            return
        memory.state = decide.ask_accept(memory.state, changed, self.steady())
        self.gpu_uuids = {str(slot): board.uuid for slot, board in enumerate(boards)}
        self._tell(f"boards bound: {', '.join(f'GPU {slot} is {boards[slot].uuid}' for slot in changed)}")
        if known:
            memory.moved = sorted({*memory.moved, *changed})
            memory.changing = True
            with contextlib.suppress(OSError, ValueError, KeyError):
                running = placement.load_plan(self.config.placements)[self._wanted()].engines.values()
                self.away |= {engine.model for engine in running if set(engine.gpus) & set(changed)}
            self.news.notify_all()
            self.wake.set()

    def _save(self) -> None:
        try:
            store.save(self.memory, self.config.state_file)
            self.saved_at = time.monotonic()
        except OSError as error:
            # A full disk must not stop the guard from protecting; the next tick with news tries again.
            log.error("the state cannot be saved: %s", error)

    def _remember(self, sample: Mapping[str, Any]) -> None:
        gpus = {gpu["index"]: gpu for gpu in sample.get("gpus") or []}
        known = len(self.gpu_uuids)
        self.gpu_uuids |= {str(index): gpu["uuid"] for index, gpu in gpus.items() if gpu.get("uuid")}
        if len(self.gpu_uuids) != known:
            self.news.notify_all()
        self.history.append(store.clock(), gpus, [gpu.level for gpu in self.memory.state.gpus])
        for event in sample.get("xids") or []:
            self._tell(f"Xid {event.get('xid')} on GPU {event.get('gpu')}")
            self._count("xid")

    def _count(self, kind: str) -> None:
        self.memory.counts[kind] = self.memory.counts.get(kind, 0) + 1

    def _act(self, actions: list[decide.Action], by: str) -> None:
        for action in actions:
            where = "" if action.gpu is None else f" GPU {action.gpu}"
            if action.kind in ("derate", "restore"):
                self._begin_change(action, by)
            watts = "" if action.watts is None else f" to {action.watts:g} W"
            self._tell(f"{action.kind}{where}{watts}: {action.reason}")
            if action.kind not in ("level", "unpage"):
                self._count(action.kind)
            if action.kind in ("cap", "uncap") and action.gpu is not None and action.watts is not None:
                self.limits.append((action.gpu, action.watts))

    def _limit(self, gpu: int, watts: float) -> None:
        """Set a power limit. Not under the lock: a driver that hangs must not keep the placement from being told."""
        uuid = self.gpu_uuids.get(str(gpu))
        problem = self.reader.set_limit(uuid, watts, self.config.read_timeout_s) if uuid else "its UUID is not known"
        if problem:
            with self.lock:
                self._tell(f"the power limit of GPU {gpu} cannot be set: {problem}")
                self.memory.state = decide.cap_failed(self.memory.state, gpu, self.policy)

    def _wanted(self) -> str:
        lost = self.memory.state.derated
        return placement.HEALTHY if lost is None else placement.derated_name(lost)

    def _begin_change(self, action: decide.Action, by: str) -> None:
        now, name = store.clock(), self._wanted()
        memory = self.memory
        if memory.changes and memory.changes[-1].finished is None:
            memory.changes[-1].finished = now
        change = store.Change(action.kind, action.gpu, name, action.reason, now, by)
        change.timeline = _before(memory.events, action.gpu, now)
        memory.changes = [*memory.changes, change][-store.KEPT_CHANGES :]
        memory.previous, memory.placement, memory.since = memory.placement, name, now
        memory.reason, memory.changing = action.reason, True
        self.away |= self._displaced(memory.previous, name)
        self.news.notify_all()
        # The wish is on disk before anything is touched: a guard killed from here on finishes it after its restart.
        self._save()
        self.wake.set()

    def _displaced(self, before: str, after: str) -> set[str]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            plan = placement.load_plan(self.config.placements)
            return placement.displaced(plan.get(before), plan[after])
        return set()

    # --- bringing the host to the wanted placement --------------------------------------------------------------------

    def change_if_needed(self) -> bool:
        """One attempt at the wanted placement; True when there was something to do."""
        with self.lock:
            name, changing, moved = self._wanted(), self.memory.changing, tuple(self.memory.moved)
        if not changing and placement.current_name(self.config.placements) in (name, None):
            return False
        try:
            plan = placement.load_plan(self.config.placements)
            if name not in plan:
                raise ValueError(f"there is no placement {name}")
            with systemd.placement_lock(self.config.socket.with_name("placement.lock")):
                applied = placement.apply(
                    plan,
                    name,
                    self.config.placements,
                    self.host,
                    self.config.engine_bound_s,
                    self._tell_locked,
                    self.config.drain_s,
                    unwanted=lambda: self._wanted() != name,
                    moved=moved,
                    ready=lambda unit: self._back(_models(plan, {unit})),
                )
        except (OSError, ValueError) as error:
            self._tell_locked(f"the placement {name} cannot be applied: {error}; trying again")
            self.stopping.wait(2.0)
            return True
        self._finish_change(name, plan, applied, moved)
        return True

    def _back(self, models: Collection[str]) -> None:
        """These models answer again; whoever waits for the placement hears it now."""
        with self.news:
            self.away -= set(models)
            self.news.notify_all()

    def _tell_locked(self, event: str) -> None:
        with self.lock:
            self._tell(event)

    def _finish_change(
        self, name: str, plan: Mapping[str, placement.Placement], applied: placement.Applied, moved: Collection[int]
    ) -> None:
        with self.lock:
            if self._wanted() != name:
                return  # another change was asked for meanwhile: the next round does it
            memory = self.memory
            memory.changing = False
            memory.moved = [slot for slot in memory.moved if slot not in moved]
            self.away = set(_models(plan, set(applied.late)))
            self.news.notify_all()
            if memory.changes and memory.changes[-1].finished is None:
                change = memory.changes[-1]
                change.displaced = _models(plan, {*applied.difference.stop, *applied.difference.restart})
                change.off, change.late = list(plan[name].off), applied.late
                self._tell(f"placement {name} complete")
                change.finished = store.clock()
            self._save()

    # --- being asked --------------------------------------------------------------------------------------------------

    def watch_engines(self) -> None:
        """Ask systemd and the engines once."""
        with contextlib.suppress(OSError, ValueError):
            plan = placement.load_plan(self.config.placements)
            with self.lock:
                name = self.memory.placement
            states = self.engine_states(plan[name].engines) if name in plan else {}
            with self.lock:
                self._note_engines(states)

    def _note_engines(self, states: dict[str, dict[str, Any]]) -> None:
        if not self.memory.changing:
            self._back([model for model, state in states.items() if state["up"]])
        for model, state in states.items():
            before = self.engines.get(model)
            if before is not None and before["up"] != state["up"]:
                self._tell(f"engine {model} is {'up' if state['up'] else 'down'}")
        if states != self.engines:
            self.engines = states
            self.news.notify_all()

    def view(self) -> dict[str, Any]:
        """Everything anybody may ask for, as plain data."""
        with self.lock:
            memory = self.memory
            plans: list[str] = []
            with contextlib.suppress(OSError, ValueError):
                plans = sorted(placement.load_plan(self.config.placements))
            return {
                "placement": memory.placement,
                "placements": plans,
                "since": memory.since,
                "previous": memory.previous,
                "reason": memory.reason,
                "changing": memory.changing,
                "derated": memory.state.derated,
                "observe_only": self.policy.observe_only,
                "gpus": [asdict(gpu) for gpu in memory.state.gpus],
                "pages": dict(memory.state.pages),
                "counts": dict(memory.counts),
                "engines": dict(self.engines),
                "gpu_uuids": dict(self.gpu_uuids),
                "roster": [board.as_dict() for board in memory.roster],
                "boards": [
                    {key: gpu.get(key) for key in ("index", "uuid", "bus_id", "serial", "lost")}
                    for gpu in self.raw.get("gpus") or []
                ],
                "away": sorted(self.away),
                "events": list(memory.events),
                "changes": [asdict(change) for change in memory.changes],
                "sample": dict(self.sample),
                "sample_age_s": round(time.monotonic() - self.sampled, 3) if self.sampled >= 0 else None,
                "not_restorable": decide.not_restorable(memory.state, self.sample, self.policy),
            }

    def answer(self, path: str, query: Mapping[str, list[str]]) -> web.Answer:
        """One HTTP request."""
        if path == "/history":
            return self._history(query)
        if path == "/placement":
            return self._held(query)
        view = self.view()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", web.exposition(web.samples(view))
        if path == "/health":
            fresh = view["sample_age_s"] is not None and view["sample_age_s"] < 10.0
            told = {key: view[key] for key in ("sample_age_s", "placement", "changing", "pages", "observe_only")}
            return web.as_json(200 if fresh else 503, told | {"ok": fresh})
        return web.as_json(404, {"error": f"no such page: {path}"})

    def _history(self, query: Mapping[str, list[str]]) -> web.Answer:
        try:
            seconds = min(float(query.get("seconds", ["600"])[0]), float(self.config.history_s))
        except ValueError:
            return web.as_json(400, {"error": "seconds is no number"})
        with self.lock:
            since = store.clock() - seconds
            return web.as_json(200, {"samples": self.history.since(since)})

    def _held(self, query: Mapping[str, list[str]]) -> web.Answer:
        """The placement; with `after=<tag>&wait=<seconds>` as soon as it is another one, at the latest after `wait`."""
        try:
            wait = min(float(query.get("wait", ["0"])[0]), LONGEST_HOLD_S)
        except ValueError:
            return web.as_json(400, {"error": "wait is no number"})
        after = query.get("after", [""])[0]
        with self.news:
            deadline = time.monotonic() + wait
            while self._tag() == after and (left := deadline - time.monotonic()) > 0:
                self.news.wait(left)
            return web.as_json(200, self._placement())

    def _tag(self) -> str:
        """Another one whenever a router has to know: placement, who is away, boards, versions."""
        memory = self.memory
        versions = {model: state.get("engine_version") for model, state in self.engines.items()}
        told = [memory.placement, memory.since, memory.changing, sorted(self.away), self.gpu_uuids, versions]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def _placement(self) -> dict[str, Any]:
        """What everybody may know of the placement in force."""
        memory, off, degraded = self.memory, list[str](), dict[str, str]()
        with contextlib.suppress(OSError, ValueError, KeyError):
            plan = placement.load_plan(self.config.placements)[memory.placement]
            off, degraded = list(plan.off), plan.degraded
        return {
            "tag": self._tag(),
            "name": memory.placement,
            "since": memory.since,
            "reason": memory.reason,
            "previous": memory.previous,
            "changing": memory.changing,
            "derated": memory.state.derated,
            "off": off,
            "degraded": degraded,
            "away": sorted(self.away),
            "engines": dict(self.engines),
            "gpu_uuids": dict(self.gpu_uuids),
            "events": memory.events[-50:],
        }

    def command(self, words: list[str]) -> dict[str, Any]:
        """One command of the control socket; `ok` false with `reason` when it is refused."""
        if words == ["status"]:
            return {"ok": True, **self.view()}
        with self.lock:
            refusal = self._command(words)
            self._save()
            return {"ok": refusal is None, "reason": refusal, "placement": self.memory.placement}

    def _command(self, words: list[str]) -> str | None:
        now, memory = self.steady(), self.memory
        if len(words) >= 2 and words[0] == "derate" and words[1].isdigit():
            cause = " ".join(words[2:]) or "asked for by a person"
            memory.state, actions, refusal = decide.ask_derate(memory.state, int(words[1]), cause, now)
        elif words == ["restore"]:
            memory.state, actions, refusal = decide.ask_restore(memory.state, self.sample, self.policy, now)
        elif len(words) >= 2 and words[0] == "recorded":
            return self._recorded(set(words[1:]))
        elif words == ["accept"]:
            return self._accept()
        elif words in (["observe-only", "on"], ["observe-only", "off"]):
            memory.observe_only, actions, refusal = words[1] == "on", [], None
            self._tell(f"observe-only is {words[1]}")
        else:
            return "commands: status, derate N [CAUSE], restore, accept, recorded ID…, observe-only on|off"
        self._act(actions, "command")
        return refusal

    def _accept(self) -> str | None:
        """Bind the slots to the boards that answer now, in the order of the buses; why not, when that cannot be."""
        memory = self.memory
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(store.clock()))
        found, problem = roster.learn(self.raw, self.config.gpus, f"accepted {when}")
        if problem:
            return problem
        if self.config.uuids and tuple(board.uuid for board in found) != self.config.uuids:
            return "the boards are declared otherwise: change gpu_guard_uuids and run the role"
        out = memory.state.derated
        if (
            out is not None
            and memory.roster
            and memory.roster[out].uuid in {board.uuid for slot, board in enumerate(found) if slot != out}
        ):
            return f"GPU {out} is out and its board sits in another slot now: put it back, or restore first"
        self._bind(found)
        memory.state = decide.ask_accept(memory.state, [], self.steady())
        return None

    def _recorded(self, ids: set[str]) -> str | None:
        """Note that the ledger has these changes, so that a playbook run twice records them once."""
        for change in self.memory.changes:
            change.recorded = change.recorded or change.id in ids
        unknown = ids - {change.id for change in self.memory.changes}
        return f"there is no change {', '.join(sorted(unknown))}" if unknown else None

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stopping` is set."""
        helpers = [
            threading.Thread(target=self._changes_forever, name="changes", daemon=True),
            threading.Thread(target=self._engines_forever, name="engines", daemon=True),
        ]
        for helper in helpers:
            helper.start()
        ready, due = False, time.monotonic()
        while not self.stopping.is_set():
            began = time.monotonic()
            self.tick()
            # Only while every thread lives: a guard that cannot act any more must be restarted by systemd.
            if all(helper.is_alive() for helper in helpers):
                notify("WATCHDOG=1" if ready else "READY=1\nWATCHDOG=1")
                ready = True
            # On a grid, so that a late sample does not make the next one late; what was missed is not made up for.
            if due <= began:
                due = max(due + self.config.interval_s, began + SHORTEST_WAIT_S)
            self.reader.wait(due - time.monotonic())
            self.stopping.wait(max(0.0, began + SHORTEST_WAIT_S - time.monotonic()))
        with self.lock:
            self._save()
        self.reader.close()

    def _changes_forever(self) -> None:
        while not self.stopping.is_set():
            if not self.change_if_needed():
                self.wake.wait(1.0)
                self.wake.clear()

    def _engines_forever(self) -> None:
        while not self.stopping.wait(2.0 if self.engines else 0.5):
            self.watch_engines()


def _before(events: list[dict[str, Any]], gpu: int | None, now: float) -> list[dict[str, Any]]:
    """What led to a change: the recent events of its GPU, so that the record begins with the first sign."""
    recent = [event for event in events if now - event["t"] <= LED_TO_IT_S]
    return [event for event in recent if f"GPU {gpu}:" in event["event"] or f"GPU {gpu} to " in event["event"]]


def _models(plan: Mapping[str, placement.Placement], units: set[str]) -> list[str]:
    engines = (engine for entry in plan.values() for engine in entry.engines.values())
    return sorted({engine.model for engine in engines if engine.unit in units})


def real_guard(config: Config) -> Guard:
    """The guard on a real host."""
    return Guard(config, nvml.Reader(), systemd.SystemdHost(), EngineStates())
