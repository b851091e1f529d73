"""The guard's threads: one samples and decides every second, one brings the host to the wanted placement, one asks the
engines how they are. Sampling never waits for an engine, and nothing waits for NVML longer than its time-out."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from ..probes import nvml
from ..probes.web import answers, get_json
from . import decide, placement, store, systemd, web
from .config import Config
from .notify import notify

log = logging.getLogger("gpu-guard")
LED_TO_IT_S = 900.0


class Reader(Protocol):
    """Where samples come from."""

    def read(self, timeout_s: float) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Guard:
    """All of the guard's state behind one lock; every method is safe from every thread."""

    def __init__(
        self,
        config: Config,
        reader: Reader,
        host: placement.Host,
        set_limit: Callable[[int, float], str | None],
        engine_states: Callable[[Mapping[str, placement.Engine]], dict[str, dict[str, Any]]],
    ) -> None:
        self.config, self.reader, self.host = config, reader, host
        self.set_limit, self.engine_states = set_limit, engine_states
        self.lock = threading.RLock()
        self.wake = threading.Event()
        self.stopping = threading.Event()
        now = store.clock()
        self.memory = store.load(config.state_file, config.gpus, placement.current_name(config.placements), now)
        self.sample: dict[str, Any] = {"t": 0.0, "error": "no sample yet"}
        self.history: deque[dict[str, Any]] = deque(maxlen=config.history_s)
        self.engines: dict[str, dict[str, Any]] = {}
        self.gpu_uuids: dict[str, str] = {}  # by index, as last read: one that is lost keeps its name
        self.saved_at = 0.0
        if self.memory.changing:
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
        sample = self.reader.read(self.config.read_timeout_s)
        now = store.clock()
        with self.lock:
            self.sample = sample
            self.memory.state, actions = decide.decide(self.memory.state, sample, self.policy, now)
            self._remember(sample, now)
            self._act(actions, "guard")
            if actions or now - self.saved_at >= 30.0:
                self._save()

    def _save(self) -> None:
        try:
            store.save(self.memory, self.config.state_file)
            self.saved_at = store.clock()
        except OSError as error:
            # A full disk must not stop the guard from protecting; the next tick with news tries again.
            log.error("the state cannot be saved: %s", error)

    def _remember(self, sample: Mapping[str, Any], now: float) -> None:
        gpus = {gpu["index"]: gpu for gpu in sample.get("gpus", [])}
        self.gpu_uuids |= {str(index): gpu["uuid"] for index, gpu in gpus.items() if gpu.get("uuid")}
        rows = []
        for index, gpu in enumerate(self.memory.state.gpus):
            seen = gpus.get(index, {})
            rows.append(
                {
                    "temperature_celsius": seen.get("temperature_celsius"),
                    "margin_celsius": seen.get("margin_celsius"),
                    "power_w": seen.get("power_w"),
                    "limit_w": seen.get("limit_w"),
                    "level": gpu.level,
                }
            )
        self.history.append({"t": round(now, 2), "gpus": rows})
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
                self._limit(action.gpu, action.watts)

    def _limit(self, gpu: int, watts: float) -> None:
        problem = self.set_limit(gpu, watts)
        if problem:
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
        # The wish is on disk before anything is touched: a guard killed from here on finishes it after its restart.
        self._save()
        self.wake.set()

    # --- bringing the host to the wanted placement --------------------------------------------------------------------

    def change_if_needed(self) -> bool:
        """One attempt at the wanted placement; True when there was something to do."""
        with self.lock:
            name, changing = self._wanted(), self.memory.changing
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
                )
        except (OSError, ValueError) as error:
            self._tell_locked(f"the placement {name} cannot be applied: {error}; trying again")
            self.stopping.wait(2.0)
            return True
        self._finish_change(name, plan, applied)
        return True

    def _tell_locked(self, event: str) -> None:
        with self.lock:
            self._tell(event)

    def _finish_change(self, name: str, plan: Mapping[str, placement.Placement], applied: placement.Applied) -> None:
        with self.lock:
            if self._wanted() != name:
                return  # another change was asked for meanwhile: the next round does it
            memory = self.memory
            memory.changing = False
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
        for model, state in states.items():
            before = self.engines.get(model)
            if before is not None and before["up"] != state["up"]:
                self._tell(f"engine {model} is {'up' if state['up'] else 'down'}")
        self.engines = states

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
                "gpus": memory.state.as_dict()["gpus"],
                "pages": dict(memory.state.pages),
                "counts": dict(memory.counts),
                "engines": dict(self.engines),
                "gpu_uuids": dict(self.gpu_uuids),
                "events": list(memory.events),
                "changes": memory.as_dict()["changes"],
                "sample": dict(self.sample),
                "sample_age_s": round(store.clock() - self.sample["t"], 3) if self.sample["t"] else None,
                "not_restorable": decide.not_restorable(memory.state, self.sample, self.policy),
            }

    def answer(self, path: str, query: Mapping[str, list[str]]) -> web.Answer:
        """One HTTP request."""
        if path == "/history":
            return self._history(query)
        view = self.view()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", web.exposition(web.samples(view))
        if path == "/placement":
            return web.as_json(200, self._placement(view))
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
            return web.as_json(200, {"samples": [row for row in self.history if row["t"] >= since]})

    def _placement(self, view: Mapping[str, Any]) -> dict[str, Any]:
        off: list[str] = []
        degraded: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            plan = placement.load_plan(self.config.placements)[view["placement"]]
            off, degraded = list(plan.off), plan.degraded
        return {
            "name": view["placement"],
            "since": view["since"],
            "reason": view["reason"],
            "previous": view["previous"],
            "changing": view["changing"],
            "derated": view["derated"],
            "off": off,
            "degraded": degraded,
            "engines": view["engines"],
            "gpu_uuids": view["gpu_uuids"],
            "events": view["events"][-50:],
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
        now, memory = store.clock(), self.memory
        if len(words) >= 2 and words[0] == "derate" and words[1].isdigit():
            cause = " ".join(words[2:]) or "asked for by a person"
            memory.state, actions, refusal = decide.ask_derate(memory.state, int(words[1]), cause, now)
        elif words == ["restore"]:
            memory.state, actions, refusal = decide.ask_restore(memory.state, self.sample, self.policy, now)
        elif len(words) >= 2 and words[0] == "recorded":
            return self._recorded(set(words[1:]))
        elif words in (["observe-only", "on"], ["observe-only", "off"]):
            memory.observe_only, actions, refusal = words[1] == "on", [], None
            self._tell(f"observe-only is {words[1]}")
        else:
            return "commands: status, derate N [CAUSE], restore, recorded ID…, observe-only on|off"
        self._act(actions, "command")
        return refusal

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
        ready = False
        while not self.stopping.is_set():
            began = time.monotonic()
            self.tick()
            # Only while every thread lives: a guard that cannot act any more must be restarted by systemd.
            if all(helper.is_alive() for helper in helpers):
                notify("WATCHDOG=1" if ready else "READY=1\nWATCHDOG=1")
                ready = True
            self.stopping.wait(max(0.05, self.config.interval_s - (time.monotonic() - began)))
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


class EngineStates:
    """How the engines of a placement are, by systemd and by themselves. A running one is asked for its version once."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], str] = {}  # by unit and main process: a restart may bring another

    def __call__(self, engines: Mapping[str, placement.Engine]) -> dict[str, dict[str, Any]]:
        """Model → unit, GPUs, URL, up, state, restarts of its unit, engine_version ("": not told yet)."""
        shown = systemd.show(engine.unit for engine in engines.values())
        return {model: self._state(engine, shown.get(engine.unit, {})) for model, engine in engines.items()}

    def _state(self, engine: placement.Engine, unit: Mapping[str, str]) -> dict[str, Any]:
        up = unit.get("ActiveState") == "active" and answers(engine.health)
        return {
            "unit": engine.unit,
            "gpus": list(engine.gpus),
            "url": engine.url,
            "up": up,
            "state": unit.get("ActiveState", "unknown"),
            "restarts": int(unit.get("NRestarts") or 0),
            "engine_version": self._version(engine, unit.get("MainPID", "")) if up else "",
        }

    def _version(self, engine: placement.Engine, process: str) -> str:
        known = (engine.unit, process)
        if not self._versions.get(known):
            path = placement.VERSION_PATH[engine.unit.partition("@")[0]]
            with contextlib.suppress(OSError, KeyError, TypeError):
                self._versions = {key: told for key, told in self._versions.items() if key[0] != engine.unit}
                self._versions[known] = str(get_json(engine.url + path)["version"])
        return self._versions.get(known, "")


def real_guard(config: Config) -> Guard:
    """The guard on a real host."""
    return Guard(config, nvml.Reader(), systemd.SystemdHost(), nvml.set_power_limit, EngineStates())
