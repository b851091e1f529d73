"""Random lives of a GPU host: heat, broken sensors, lost boards, Xids, a clock that jumps, an operator who restores."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

from gpu_cutover.guard import decide
from gpu_cutover.guard.decide import Policy

GPUS = 4
PULLS = (35.0, 25.0, 20.0, 8.0, 2.0, -3.0)
CODES = (13, 31, 43, 63, 94, 79, 95, 119, 154, 9999)
POLICY = Policy(act_after_s=10, critical_after_s=4, relax_after_s=40, blind_after_s=8, stuck_after_s=30, cool_down_s=10,
                probation_s=10, window_s=300)  # fmt: skip
CALLS = ("chassis", "two GPUs", "breaker", "observe-only", "blind")  # what speaks of heat, or of not seeing it
SLACK_S = 2.0  # of one sample that came late and one that was only a spike back


@dataclass
class Life:
    """What happened in one history."""

    seed: int
    steps: int = 0
    flaps: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    derates: int = 0
    restores: int = 0


class Host:
    """Boards whose margins wander; everything about them may break."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.margins = [rng.uniform(10, 40) for _ in range(GPUS)]
        self.pulls = [rng.choice(PULLS) for _ in range(GPUS)]
        self.limits = [350.0] * GPUS
        self.broken: dict[int, tuple[str, int]] = {}  # sensor → how, for how many samples
        self.shown: list[Any] = [30] * GPUS
        self.inlet = 0

    def step(self) -> dict[str, Any]:
        rng = self.rng
        if rng.random() < 0.01:
            self.pulls[rng.randrange(GPUS)] = rng.choice(PULLS)
        if rng.random() < 0.002:
            self.inlet = rng.randrange(20, 80)
        if rng.random() < 0.01:
            self.broken[rng.randrange(GPUS)] = (
                rng.choice(["nan", "none", "text", "stuck", "spike", "lost", "gone"]),
                rng.choice([1, 2, 5, 40]),
            )
        self.inlet -= self.inlet > 0
        if rng.random() < 0.004:
            return {"t": 0.0, "error": "NVML did not answer within 3 s", "hung": True}
        xids = [{"gpu": rng.choice([0, 1, 2, 3, None, 7]), "xid": rng.choice(CODES)}] if rng.random() < 0.003 else []
        gpus = [self._gpu(index) for index in range(GPUS)]
        return {"t": 0.0, "gpus": [gpu for gpu in gpus if gpu is not None], "xids": xids}

    def _gpu(self, index: int) -> dict[str, Any] | None:
        rng = self.rng
        pull = min(self.pulls[index], 0.0) if self.inlet else self.pulls[index]
        relief = 12.0 * (1 - self.limits[index] / 350.0)  # a capped board runs cooler
        self.margins[index] += 0.1 * (pull + relief - self.margins[index]) + rng.gauss(0, 0.7)
        how, left = self.broken.get(index, ("", 0))
        if left <= 0:
            self.broken.pop(index, None)
            how = ""
        else:
            self.broken[index] = (how, left - 1)
        shown: Any = round(self.margins[index])
        shown = {"nan": math.nan, "none": None, "text": "N/A", "stuck": self.shown[index], "spike": shown - 40}.get(
            how, shown
        )
        self.shown[index] = shown
        if how == "gone":
            return None
        bits = 0x4 | (0x20 if isinstance(shown, int) and shown <= -2 else 0)
        return {
            "index": index, "margin_celsius": shown, "power_w": rng.uniform(100, self.limits[index]),
            "limit_min_w": 100.0, "limit_w": self.limits[index],
            "clocks_event_bits": bits, "recovery_action": 0, "lost": how == "lost",
        }  # fmt: skip

    def obey(self, actions: list[decide.Action]) -> None:
        for action in actions:
            if action.watts is not None and action.gpu is not None:
                self.limits[action.gpu] = action.watts


def live(seed: int, steps: int, policy: Policy = POLICY) -> Life:
    """One history.

    A flap: a de-rate that no restore went before, or within a cool-down of the one before. Missed: a GPU in service
    that showed its critical margin for longer than the bound, and neither left nor was called for.
    """
    rng = random.Random(seed)
    if rng.random() < 0.1:
        policy = replace(policy, observe_only=True)
    life, host, now = Life(seed), Host(rng), 1000.0
    state, last_derate, critical = decide.begin(GPUS, now), -math.inf, [0.0] * GPUS
    for _ in range(steps):
        step_s = rng.choice([1.0] * 200 + [0.0, 0.3, 5.0, 3600.0])
        now += step_s
        sample = host.step()
        before = state
        state, actions = decide.decide(state, sample, policy, now)
        host.obey(actions)
        life.steps += 1
        if any(action.kind == "derate" for action in actions):
            life.derates += 1
            if before.derated is not None or now - last_derate < policy.cool_down_s:
                life.flaps.append(f"seed {seed}, t {now - 1000:g}: GPU {state.derated} after GPU {before.derated}")
            last_derate = now
        _look(life, state, sample, policy, critical, min(step_s, decide.LONGEST_STEP_S), now)
        if state.derated is not None and rng.random() < 0.05:
            state, asked, refusal = decide.ask_restore(state, sample, policy, now)
            host.obey(asked)
            life.restores += refusal is None
        elif rng.random() < 0.02:
            state = decide.ask_accept(state, [], now)
    return life


def _look(
    life: Life,
    state: decide.State,
    sample: dict[str, Any],
    policy: Policy,
    critical: list[float],
    step_s: float,
    now: float,
) -> None:
    shown = {gpu["index"]: gpu["margin_celsius"] for gpu in sample.get("gpus", [])}
    for index in range(GPUS):
        margin = shown.get(index)
        hot = isinstance(margin, int) and margin <= policy.critical_margin_celsius and index != state.derated
        critical[index] = critical[index] + step_s if hot else 0.0
        handled = any(page.startswith(CALLS) for page in state.pages)
        if critical[index] > policy.critical_after_s + SLACK_S and not handled:
            life.missed.append(f"seed {life.seed}, t {now - 1000:g}: GPU {index} at {margin} for {critical[index]:g} s")
