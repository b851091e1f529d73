"""What the guard decides: one pure step from a state and a sample to the next state and actions.

Heat is judged on NVML's margin (degrees left to the maximum operating temperature), never on absolute degrees. Time
over a limit is accumulated and drains again while the GPU is below it, so one bad sample does nothing and a heat that
flickers around the limit is not forgotten. Going back always needs a wider margin and a longer time than going forth.

`now` never jumps: the caller counts seconds by a monotonic clock and continues where the state was saved. A GPU is its
slot (`roster`), whatever number NVML gives it today.

Levels of a GPU: normal → watch → capped → derated → recovering → normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..probes import nvml, xid

LONGEST_STEP_S = 3.0  # a pause of the guard itself counts as at most this much heat
LEVELS = ("normal", "watch", "capped", "derated", "recovering")
BAD_RECOVERY = frozenset({1, 2, 4})  # reset, reboot, drain-and-reset
DRAIN_P2P = 3
HUNG_SAMPLES = 2  # one late answer may be a busy machine
CAP_SLACK_W = 5.0  # boards round their limit
CAP_AGAIN_S = 60.0  # a limit that does not stay is set again this often


@dataclass(frozen=True)
class Policy:
    """Limits and times. Margins in °C to the maximum operating temperature, times in seconds.

    Margins 10, 3 and 15 and the 60 s before acting: docs of NVML margins and throttle guards as used in practice; the
    board itself slows down at a margin of about -2 and shuts down at -5 (L40S) or -8 (H100 SXM). `note_s`: how long a
    person is called for an Xid that does not stop service. `contained_errors`: see `probes.xid`.
    """

    watch_margin_celsius: float = 10.0
    act_margin_celsius: float = 3.0
    critical_margin_celsius: float = 0.0
    resume_margin_celsius: float = 15.0
    act_after_s: float = 60.0
    critical_after_s: float = 10.0
    cap_fraction: float = 0.15
    cap_steps: int = 2
    relax_after_s: float = 600.0
    blind_after_s: float = 30.0
    stuck_after_s: float = 300.0
    stuck_power_swing: float = 0.3
    cool_down_s: float = 60.0
    probation_s: float = 60.0
    max_actions: int = 8
    window_s: float = 3600.0
    note_s: float = 86400.0
    contained_errors: bool = False
    observe_only: bool = False


@dataclass(frozen=True)
class Gpu:
    """What the guard remembers of one GPU. Times in seconds."""

    level: str = "normal"
    since: float = 0.0
    heat_s: float = 0.0
    critical_s: float = 0.0
    cool_s: float = 0.0
    blind_s: float = 0.0
    lost_samples: int = 0
    caps: int = 0
    base_limit_w: float | None = None
    min_limit_w: float | None = None
    cap_w: float | None = None
    cap_set: float = 0.0
    fault: str | None = None
    note: str | None = None
    note_until: float = 0.0
    margin: float | None = None
    margin_since: float = 0.0
    power_low: float = 0.0
    power_high: float = 0.0


@dataclass(frozen=True)
class State:
    """The guard's whole memory; survives a restart as JSON."""

    gpus: tuple[Gpu, ...] = ()
    derated: int | None = None
    cause: str = ""
    actions: tuple[float, ...] = ()
    pages: Mapping[str, float] = field(default_factory=dict)
    last_t: float = 0.0
    unread: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> State:
        """Raises TypeError, KeyError or AttributeError when the data is not a state."""
        gpus = tuple(Gpu(**gpu) for gpu in data["gpus"])
        return cls(**{**data, "gpus": gpus, "actions": tuple(data["actions"]), "pages": dict(data["pages"])})


@dataclass(frozen=True)
class Action:
    """kind: cap (watts), uncap (watts), derate, restore, page, unpage, level. `reason` is for a person."""

    kind: str
    reason: str
    gpu: int | None = None
    watts: float | None = None


def begin(count: int, now: float) -> State:
    """The state of a guard that has never run."""
    return State(gpus=tuple(Gpu(since=now, margin_since=now) for _ in range(count)), last_t=now)


# --- one GPU ---------------------------------------------------------------------------------------------------------


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _fault_of(reading: Mapping[str, Any], xids: list[int], lost_samples: int, policy: Policy) -> str | None:
    """Why this GPU must leave service whatever its temperature; None when nothing says so."""
    hardware = [code for code in xids if xid.is_hardware(code, policy.contained_errors)]
    if hardware:
        return f"Xid {hardware[0]} ({xid.ACTION.get(hardware[0], 'not in the catalogue')})"
    if lost_samples >= 2:
        return "its board is not there" if reading.get("absent") else "the GPU is lost (fallen off the bus)"
    if reading.get("recovery_action") in BAD_RECOVERY:
        return f"NVML asks for {nvml.RECOVERY_ACTION[reading['recovery_action']]}"
    if _number(reading.get("remap_failure")):
        return "row remapping failed"
    return None


def _note_of(reading: Mapping[str, Any], xids: list[int], policy: Policy) -> str | None:
    """What a person should know although the GPU goes on; None when there is nothing."""
    for code in xids:
        if xid.needs_a_person(code) and not xid.is_hardware(code, policy.contained_errors):
            return f"Xid {code} ({xid.ACTION[code]}): goes on; reset it when convenient and tell the vendor"
    if reading.get("recovery_action") == DRAIN_P2P:
        return "NVML asks to drain its peer-to-peer traffic"
    if xid.RECOVERY_CHANGED in xids and _number(reading.get("recovery_action")) is None:
        return "Xid 154: another recovery action, and NVML does not say which"
    return None


def _sensor(gpu: Gpu, margin: float, power: float | None, now: float) -> dict[str, Any]:
    """Since when the margin stands still, and how far power moved meanwhile."""
    watts = gpu.power_high if power is None else power
    if margin != gpu.margin:
        return {"margin": margin, "margin_since": now, "power_low": watts, "power_high": watts}
    return {
        "margin": margin,
        "margin_since": gpu.margin_since,
        "power_low": min(gpu.power_low, watts),
        "power_high": max(gpu.power_high, watts),
    }


def _stuck(sensor: Mapping[str, float], base_limit_w: float | None, policy: Policy, now: float) -> bool:
    """A temperature that stands still while power swings is no temperature."""
    return (
        now - sensor["margin_since"] >= policy.stuck_after_s
        and base_limit_w is not None
        and sensor["power_high"] - sensor["power_low"] >= policy.stuck_power_swing * base_limit_w
    )


def _told(gpu: Gpu, reading: Mapping[str, Any], xids: list[int], policy: Policy, now: float) -> dict[str, Any]:
    """What the board says of itself beside its temperature: lost, faults, notes, limits."""
    lost_samples = gpu.lost_samples + 1 if reading.get("lost") else 0
    limit = _number(reading.get("limit_w")) if gpu.caps == 0 else None
    note, until = _note_of(reading, xids, policy), now + policy.note_s
    if note is None and now < gpu.note_until:
        note, until = gpu.note, gpu.note_until
    return {
        "lost_samples": lost_samples,
        "fault": gpu.fault or _fault_of(reading, xids, lost_samples, policy),
        "note": note,
        "note_until": until if note else 0.0,
        "base_limit_w": limit or gpu.base_limit_w,
        "min_limit_w": _number(reading.get("limit_min_w")) or gpu.min_limit_w,
    }


def _heat(gpu: Gpu, margin: float, bits: object, policy: Policy, step_s: float) -> dict[str, Any]:
    """The timers after a temperature that is believed."""
    throttled = isinstance(bits, int) and bool(bits & nvml.THERMAL_BITS)
    hot = margin <= policy.act_margin_celsius or throttled
    critical = margin <= policy.critical_margin_celsius
    cool = margin >= policy.resume_margin_celsius and not throttled
    return {
        "blind_s": max(0.0, gpu.blind_s - 2 * step_s),
        "heat_s": 0.0 if cool else max(0.0, gpu.heat_s + (step_s if hot else -step_s)),
        "critical_s": gpu.critical_s + step_s if critical else max(0.0, gpu.critical_s - step_s),
        "cool_s": gpu.cool_s + step_s if cool else 0.0,
    }


def _observe(gpu: Gpu, reading: Mapping[str, Any], xids: list[int], policy: Policy, now: float, step_s: float) -> Gpu:
    """The GPU after one sample: timers and faults only, no decision."""
    told = _told(gpu, reading, xids, policy, now)
    margin = _number(reading.get("margin_celsius"))
    blind: dict[str, Any] = {"blind_s": gpu.blind_s + step_s, "cool_s": 0.0}
    if margin is None:
        return replace(gpu, **told, **blind)
    sensor = _sensor(gpu, margin, _number(reading.get("power_w")), now)
    heat = _heat(gpu, margin, reading.get("clocks_event_bits"), policy, step_s)
    if _stuck(sensor, told["base_limit_w"], policy, now):
        # A sensor that stands still is not believed when it says cool; heat it shows goes on counting.
        worse = {name: max(getattr(gpu, name), heat[name]) for name in ("heat_s", "critical_s")}
        return replace(gpu, **told, **sensor, **blind, **worse)
    return replace(gpu, **told, **sensor, **heat)


def _seen(gpu: Gpu) -> bool:
    return gpu.margin is not None and gpu.blind_s == 0 and gpu.fault is None


def _warm(gpu: Gpu, limit: float) -> bool:
    return _seen(gpu) and gpu.margin is not None and gpu.margin <= limit


def _wants_out(gpu: Gpu, policy: Policy) -> str | None:
    """Why this GPU should leave service; None while it may stay."""
    if gpu.fault:
        return gpu.fault
    if gpu.critical_s >= policy.critical_after_s:
        return f"margin {gpu.margin:g} °C for {gpu.critical_s:.0f} s"
    exhausted = gpu.caps >= policy.cap_steps or gpu.level == "recovering"
    if gpu.heat_s >= policy.act_after_s and exhausted:
        how = "after its restore" if gpu.level == "recovering" else f"after {gpu.caps} power caps"
        return f"still hot {how}: margin {gpu.margin:g} °C for {gpu.heat_s:.0f} s"
    return None


# --- the host --------------------------------------------------------------------------------------------------------


class _Step:
    """Collects what one step changes; `decide` is pure because this lives only inside it."""

    def __init__(self, state: State, policy: Policy, now: float) -> None:
        self.policy, self.now = policy, now
        self.gpus = list(state.gpus)
        self.derated, self.cause, self.unread = state.derated, state.cause, state.unread
        self.times = [t for t in state.actions if now - t < policy.window_s]
        self.pages_before = dict(state.pages)
        self.pages: dict[str, str] = {}
        self.actions: list[Action] = []

    def level(self, index: int, level: str, reason: str, **changes: Any) -> None:
        gpu = self.gpus[index]
        if gpu.level != level:
            self.actions.append(Action("level", f"{gpu.level} → {level}: {reason}", index))
            gpu = replace(gpu, level=level, since=self.now)
        self.gpus[index] = replace(gpu, **changes)

    def page(self, key: str, reason: str) -> None:
        self.pages.setdefault(key, reason)

    def may_act(self, what: str, reserve: int = 0) -> bool:
        """The breaker and the observe-only switch; a page says why nothing was done."""
        if self.policy.observe_only:
            self.page(f"observe-only: {what}", f"observe-only, would {what}")
            return False
        if len(self.times) + reserve >= self.policy.max_actions:
            if reserve == 0:
                self.page("breaker", f"{len(self.times)} automatic actions in {self.policy.window_s:g} s; not {what}")
            return False
        self.times.append(self.now)
        return True

    def cap(self, index: int, reason: str) -> None:
        """One power step down; heat must build up again before the next."""
        gpu = self.gpus[index]
        if gpu.base_limit_w is None:
            self.gpus[index] = replace(gpu, caps=self.policy.cap_steps)
            return
        if gpu.caps >= self.policy.cap_steps or not self.may_act(f"cap GPU {index}"):
            return
        wanted = gpu.base_limit_w * (1 - self.policy.cap_fraction * (gpu.caps + 1))
        watts = max(wanted, gpu.min_limit_w or 0.0)
        self.actions.append(Action("cap", reason, index, watts))
        level = gpu.level if gpu.level in ("derated", "recovering") else "capped"
        after = {"caps": gpu.caps + 1, "cap_w": watts, "cap_set": self.now, "heat_s": 0.0, "cool_s": 0.0}
        self.level(index, level, reason, **after)

    def keep_cap(self, index: int, limit: float | None) -> None:
        """A limit does not survive a reboot or a reset of the board: set it again. No new decision, so not counted."""
        gpu = self.gpus[index]
        if gpu.caps == 0 or gpu.cap_w is None or limit is None or limit <= gpu.cap_w + CAP_SLACK_W:
            return
        if self.now - gpu.cap_set >= CAP_AGAIN_S and not self.policy.observe_only:
            self.actions.append(Action("cap", f"its limit was {limit:g} W again", index, gpu.cap_w))
            self.gpus[index] = replace(gpu, cap_set=self.now)

    def relax(self, index: int) -> None:
        gpu = self.gpus[index]
        # Three actions stay in reserve: relaxing must never be what keeps the guard from protecting.
        if not self.may_act(f"lift the cap of GPU {index}", reserve=3):
            return
        self.actions.append(Action("uncap", f"cool for {gpu.cool_s:.0f} s", index, gpu.base_limit_w))
        self.level(index, "normal", "cool again", caps=0, cap_w=None, heat_s=0.0)

    def derate(self, index: int, reason: str) -> None:
        if not self.may_act(f"de-rate to do without GPU {index}"):
            return
        self.derated, self.cause = index, reason
        self.actions.append(Action("derate", reason, index))
        self.level(index, "derated", reason, heat_s=0.0, critical_s=0.0, cool_s=0.0)

    def end(self) -> tuple[State, list[Action]]:
        """The next state; pages are told once when they come and once when they go."""
        for key, reason in self.pages.items():
            if key not in self.pages_before:
                self.actions.append(Action("page", reason))
        self.actions += [Action("unpage", key) for key in self.pages_before if key not in self.pages]
        pages = {key: self.pages_before.get(key, self.now) for key in self.pages}
        state = State(tuple(self.gpus), self.derated, self.cause, tuple(self.times), pages, self.now, self.unread)
        return state, self.actions


def decide(state: State, sample: Mapping[str, Any], policy: Policy, now: float) -> tuple[State, list[Action]]:
    """One step. `sample` is a reading of `probes.nvml`; `now` in epoch seconds. Never raises for any sample."""
    step_s = min(max(now - state.last_t, 0.0), LONGEST_STEP_S)
    step = _Step(state, policy, now)
    readings = _by_index(sample)
    events = _xids(sample)
    for index, gpu in enumerate(step.gpus):
        reading = readings.get(index, {})
        step.gpus[index] = _observe(gpu, reading, events.get(index, []), policy, now, step_s)
        step.keep_cap(index, _number(reading.get("limit_w")))
    _call(step, sample, events.get(None, []))
    chassis = _chassis(step)
    _protect(step, chassis)
    _sensors(step)
    for index in range(len(step.gpus)):
        _settle(step, index)
    return step.end()


def _call(step: _Step, sample: Mapping[str, Any], nobodys: list[int]) -> None:
    """What a person must know and no GPU answers for."""
    step.unread = step.unread + 1 if sample.get("error") else 0
    if step.unread >= HUNG_SAMPLES:
        step.page("nvml hung" if sample.get("hung") else "nvml", f"{sample['error']}; keeping the placement")
    for key, text in sample.get("roster") or []:
        step.page(key, text)
    for index, gpu in enumerate(step.gpus):
        if gpu.note:
            step.page(f"GPU {index} note", f"GPU {index}: {gpu.note}")
    hardware = [code for code in nobodys if xid.is_hardware(code, step.policy.contained_errors)]
    if hardware or step.now - step.pages_before.get("xid", -step.policy.note_s) < step.policy.note_s:
        step.page("xid", f"Xid {hardware} of a GPU that cannot be told; see the kernel's log")


def _by_index(sample: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    gpus = sample.get("gpus")
    if sample.get("error") or not isinstance(gpus, list):
        return {}
    return {gpu["index"]: gpu for gpu in gpus if isinstance(gpu, Mapping) and isinstance(gpu.get("index"), int)}


def _xids(sample: Mapping[str, Any]) -> dict[int | None, list[int]]:
    """Codes by GPU; by None where it cannot be told whose they are."""
    found: dict[int | None, list[int]] = {}
    for event in sample.get("xids") or []:
        if isinstance(event, Mapping) and isinstance(event.get("xid"), int):
            gpu = event.get("gpu")
            found.setdefault(gpu if isinstance(gpu, int) else None, []).append(event["xid"])
    return found


def _chassis(step: _Step) -> bool:
    """All GPUs warm and one hot: the air is warm, not one GPU. A de-rate would not help and would cost service.

    One GPU that cannot be seen does not make the air cool; once called, it stays so until one GPU is cool again.
    """
    serving = [gpu for index, gpu in enumerate(step.gpus) if index != step.derated]
    seen = [gpu for gpu in serving if _seen(gpu)]
    called = "chassis" in step.pages_before
    limit = step.policy.resume_margin_celsius if called else step.policy.watch_margin_celsius
    chassis = (
        len(seen) >= 2
        and 2 * len(seen) > len(serving)
        and all(_warm(gpu, limit) for gpu in seen)
        and (called or any(gpu.heat_s > 0 or gpu.critical_s > 0 for gpu in seen))
    )
    if chassis:
        step.page("chassis", "all GPUs are warm: check inlet air, fans and room cooling; no de-rate")
    return chassis


def _protect(step: _Step, chassis: bool) -> None:
    """Caps for every hot GPU, a de-rate for the one GPU that must leave; otherwise hold and page."""
    leaving: dict[int, str] = {}
    for index, gpu in enumerate(step.gpus):
        if index == step.derated:
            continue
        reason = _wants_out(gpu, step.policy)
        if reason and not (chassis and gpu.fault is None):
            leaving[index] = reason
        elif gpu.heat_s >= step.policy.act_after_s or (reason and chassis):
            step.cap(index, f"margin {gpu.margin:g} °C for {gpu.heat_s:.0f} s")
    if not leaving:
        return
    if step.derated is not None or len(leaving) > 1:
        _hold(step, leaving)
        return
    index, reason = next(iter(leaving.items()))
    step.derate(index, reason)


def _hold(step: _Step, leaving: Mapping[int, str]) -> None:
    """No placement exists for two lost GPUs: keep serving, cap what is hot, call a person."""
    already = "" if step.derated is None else f"GPU {step.derated} is out already; "
    listed = ", ".join(f"GPU {index}: {reason}" for index, reason in leaving.items())
    step.page("two GPUs", f"hold: {already}{listed}")
    for index in leaving:
        if step.gpus[index].fault is None:
            step.cap(index, "cannot be de-rated as well")


def _sensors(step: _Step) -> None:
    """A GPU that cannot be seen is capped and called out; it is never taken for cool."""
    blind = [i for i, gpu in enumerate(step.gpus) if gpu.blind_s >= step.policy.blind_after_s and gpu.fault is None]
    if not blind:
        return
    if len(blind) == len(step.gpus):
        step.page("blind", f"no GPU can be read for {step.policy.blind_after_s:g} s; keeping the placement")
        return
    for index in blind:
        step.page(f"blind GPU {index}", f"GPU {index} reports no believable temperature; capped as a precaution")
        if step.gpus[index].caps == 0 and index != step.derated:
            step.cap(index, "its temperature cannot be read")


def _settle(step: _Step, index: int) -> None:
    """The way back, and the watch level, which only informs."""
    gpu, policy = step.gpus[index], step.policy
    if gpu.level == "capped" and gpu.cool_s >= policy.relax_after_s:
        step.relax(index)
    elif gpu.level == "recovering" and gpu.cool_s >= policy.probation_s:
        step.level(index, "normal", f"cool for {gpu.cool_s:.0f} s after its restore")
    elif gpu.level == "normal" and _warm(gpu, policy.watch_margin_celsius):
        step.level(index, "watch", f"margin {gpu.margin:g} °C")
    elif gpu.level == "watch" and gpu.cool_s >= LONGEST_STEP_S:
        step.level(index, "normal", "margin is wide again")


# --- what a person asks for ------------------------------------------------------------------------------------------


def ask_derate(state: State, gpu: int, reason: str, now: float) -> tuple[State, list[Action], str | None]:
    """A de-rate by command; the third value says why it is refused. Not bound by the breaker: a person decided."""
    if not 0 <= gpu < len(state.gpus):
        return state, [], f"there is no GPU {gpu}"
    if state.derated == gpu:
        return state, [], None
    if state.derated is not None:
        return state, [], f"GPU {state.derated} is out already; restore it first"
    gpus = list(state.gpus)
    gpus[gpu] = replace(gpus[gpu], level="derated", since=now, cool_s=0.0, heat_s=0.0, critical_s=0.0)
    return replace(state, gpus=tuple(gpus), derated=gpu, cause=reason), [Action("derate", reason, gpu)], None


def not_restorable(state: State, sample: Mapping[str, Any], policy: Policy) -> str | None:
    """Why the de-rated GPU may not return yet; None when it may (or when nothing is de-rated)."""
    if state.derated is None:
        return None
    reading = _by_index(sample).get(state.derated, {})
    gpu = state.gpus[state.derated]
    if _number(reading.get("margin_celsius")) is None:
        return f"GPU {state.derated} cannot be read"
    fault = _fault_of(reading, [], 2 if reading.get("lost") else 0, policy)
    if fault:
        return f"GPU {state.derated}: {fault}"
    if gpu.cool_s < policy.cool_down_s:
        return (
            f"GPU {state.derated} is cool for {gpu.cool_s:.0f} s of {policy.cool_down_s:g} s "
            f"(margin {gpu.margin:g} °C, wanted {policy.resume_margin_celsius:g} °C)"
        )
    return None


def ask_restore(
    state: State, sample: Mapping[str, Any], policy: Policy, now: float
) -> tuple[State, list[Action], str | None]:
    """The healthy placement back by command, after the cool-down; the third value says why it is refused."""
    if state.derated is None:
        return state, [], None
    refusal = not_restorable(state, sample, policy)
    if refusal:
        return state, [], refusal
    index, gpus = state.derated, list(state.gpus)
    old = gpus[index]
    gpus[index] = replace(
        old, level="recovering", since=now, fault=None, caps=0, cap_w=None, cool_s=0.0, heat_s=0.0,
        critical_s=0.0, note=None, note_until=0.0,
    )  # fmt: skip
    actions = [Action("restore", f"GPU {index} returns by command", index)]
    if old.caps:
        actions.insert(0, Action("uncap", "returns to service", index, old.base_limit_w))
    return replace(state, gpus=tuple(gpus), derated=None, cause=""), actions, None


def cap_failed(state: State, gpu: int, policy: Policy) -> State:
    """A cap that could not be set: the next heat leads to a de-rate instead of another try."""
    gpus = list(state.gpus)
    gpus[gpu] = replace(gpus[gpu], caps=policy.cap_steps)
    return replace(state, gpus=tuple(gpus))


def ask_accept(state: State, slots: list[int], now: float) -> State:
    """The boards found are the right ones: nothing is remembered of the slots in `slots`, nor any fault or note.

    The de-rated GPU stays out until its restore.
    """
    gpus = [
        Gpu(since=now, margin_since=now) if slot in slots else replace(gpu, fault=None, note=None, note_until=0.0)
        for slot, gpu in enumerate(state.gpus)
    ]
    if state.derated is not None:
        gpus[state.derated] = replace(gpus[state.derated], level="derated")
    return replace(state, gpus=tuple(gpus))
