"""Which engine runs on which GPUs: placement directories, their difference to what runs, and applying one.

A placement is a directory `/etc/gpu-cutover/placements/<name>/` with one `<model>.env` per engine; `current` is a
symbolic link to one of them. Every env file carries the digest of its own content in `GPU_CUTOVER_ENV_DIGEST`, so the
environment of a running engine's main process says which placement it was started for: the difference is taken
against the kernel's truth, not against a record that a crash could leave wrong.

Pure: `render`, `difference`, `waves`. Everything that acts goes through a `Host` that is passed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

DIRECTORY = Path("/etc/gpu-cutover/placements")
PLAN_FILE = "plan.json"
CURRENT = "current"
HEALTHY = "healthy"
DIGEST_VARIABLE = "GPU_CUTOVER_ENV_DIGEST"
HEALTH_PATH = {"vllm": "/health", "triton": "/v2/health/ready"}
VERSION_PATH = {"vllm": "/version", "triton": "/v2"}
_PLAIN = re.compile(r"^[A-Za-z0-9_./:,@%+=-]*$")


def derated_name(gpu: int) -> str:
    """The placement for one lost GPU."""
    return f"without-gpu{gpu}"


def derated_gpu(name: str) -> int | None:
    """The GPU that a placement does without; None for the healthy one."""
    match = re.fullmatch(r"without-gpu(\d+)", name)
    return int(match[1]) if match else None


# --- rendering (pure) ------------------------------------------------------------------------------------------------


def env_digest(unit: str, env: Mapping[str, object]) -> str:
    """Digest of everything that makes an engine restart necessary when it changes."""
    canonical = json.dumps([unit, {name: str(value) for name, value in env.items()}], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _quoted(value: str) -> str:
    if _PLAIN.match(value):
        return value
    escaped = re.sub(r'([\\"$`])', r"\\\1", value)
    return f'"{escaped}"'


def env_file(unit: str, env: Mapping[str, object]) -> str:
    """The content of one `<model>.env`, in systemd's EnvironmentFile syntax.

    Raises ValueError for a value with a line break, which that syntax cannot carry safely.
    """
    lines = []
    for name, value in sorted(env.items()):
        if "\n" in str(value):
            raise ValueError(f"{unit}: {name} has a line break")
        lines.append(f"{name}={_quoted(str(value))}")
    return "\n".join([*lines, f"{DIGEST_VARIABLE}={env_digest(unit, env)}", ""])


def render(
    placements: Mapping[str, Mapping[str, Any]], engines: Mapping[str, Mapping[str, Any]], address: str
) -> dict[str, str]:
    """Relative path → content of every env file and of `plan.json`.

    `placements` and `engines` are those of `site_plan`; `address` is where the engines listen. Raises ValueError when a
    placement names an engine that is not described.
    """
    files: dict[str, str] = {}
    plan: dict[str, Any] = {}
    for name, placement in sorted(placements.items()):
        described: dict[str, Any] = {}
        for model, wanted in sorted(placement["engines"].items()):
            if model not in engines:
                raise ValueError(f"placement {name}: engine {model} is not described")
            engine = engines[model]
            url = f"http://{address}:{engine['port']}"
            files[f"{name}/{model}.env"] = env_file(engine["unit"], wanted.get("env", {}))
            described[model] = {
                "unit": engine["unit"],
                "gpus": list(wanted["gpus"]),
                "url": url,
                "health": url + HEALTH_PATH[engine["engine"]],
                "version": engine["weights_digest"],
                "digest": env_digest(engine["unit"], wanted.get("env", {})),
            }
        plan[name] = {
            "engines": described,
            "routes": placement.get("routes", {}),
            "off": list(placement.get("off", [])),
            "degraded": placement.get("degraded", {}),
        }
    files[PLAN_FILE] = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    return files


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """One engine of a placement as the host runs it."""

    model: str
    unit: str
    gpus: tuple[int, ...]
    url: str
    health: str
    version: str
    digest: str


@dataclass(frozen=True)
class Placement:
    """One named placement."""

    name: str
    engines: dict[str, Engine]
    routes: dict[str, str | None]
    off: tuple[str, ...]
    degraded: dict[str, str]


def parse_plan(text: str) -> dict[str, Placement]:
    """The placements of `plan.json`. Raises ValueError with the reason when the file is not one of ours."""
    try:
        return {name: _placement(name, entry) for name, entry in json.loads(text).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"plan.json does not describe placements: {error!r}") from error


def _placement(name: str, entry: Mapping[str, Any]) -> Placement:
    engines = {
        model: Engine(model, raw["unit"], tuple(raw["gpus"]), raw["url"], raw["health"], raw["version"], raw["digest"])
        for model, raw in entry["engines"].items()
    }
    return Placement(name, engines, dict(entry["routes"]), tuple(entry["off"]), dict(entry["degraded"]))


def load_plan(directory: Path = DIRECTORY) -> dict[str, Placement]:
    """Read `plan.json`. Raises OSError or ValueError."""
    return parse_plan((directory / PLAN_FILE).read_text())


def current_name(directory: Path = DIRECTORY) -> str | None:
    """The placement that `current` points to, or None."""
    link = directory / CURRENT
    return link.readlink().name if link.is_symlink() else None


def switch_current(directory: Path, name: str) -> None:
    """Point `current` to a placement with one rename. Raises FileNotFoundError when the placement is not there."""
    if not (directory / name).is_dir():
        raise FileNotFoundError(f"{directory / name}: no such placement")
    fresh = directory / f".{CURRENT}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(directory / CURRENT)


# --- what must change (pure) -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Units by what must happen to them; each list is sorted."""

    keep: tuple[str, ...]
    stop: tuple[str, ...]
    start: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not (self.stop or self.start or self.restart)

    def as_dict(self) -> dict[str, list[str]]:
        return {
            "keep": list(self.keep),
            "stop": list(self.stop),
            "start": list(self.start),
            "restart": list(self.restart),
        }


def difference(wanted: Mapping[str, str], running: Mapping[str, str | None]) -> Difference:
    """Compare wanted unit → digest with running unit → digest (None: does not run; "": runs, digest unknown).

    An engine whose digest is equal is never touched: a de-rate keeps what the surviving GPUs already serve.
    """
    alive = {unit for unit, digest in running.items() if digest is not None}
    keep = {unit for unit in alive & wanted.keys() if running[unit] == wanted[unit]}
    return Difference(
        keep=tuple(sorted(keep)),
        stop=tuple(sorted(alive - wanted.keys())),
        start=tuple(sorted(wanted.keys() - alive)),
        restart=tuple(sorted((alive & wanted.keys()) - keep)),
    )


def displaced(before: Placement | None, after: Placement) -> set[str]:
    """Models that have to start anew on the way from one placement to another: nobody should ask them meanwhile."""
    known = {} if before is None else wanted_digests(before)
    return {engine.model for engine in after.engines.values() if known.get(engine.unit) != engine.digest}


def wanted_digests(placement: Placement) -> dict[str, str]:
    """Unit → digest of a placement."""
    return {engine.unit: engine.digest for engine in placement.engines.values()}


def waves(engines: Iterable[Engine]) -> list[list[Engine]]:
    """Engines to start, grouped so that no two of a group share a GPU.

    An engine measures the free memory of its GPU while it starts; two at once on one GPU would each count the other's.
    Within that, the engine on most GPUs starts first: it takes longest to load.
    """
    groups: list[list[Engine]] = []
    for engine in sorted(engines, key=lambda e: (-len(e.gpus), e.unit)):
        for group in groups:
            if all(set(engine.gpus).isdisjoint(other.gpus) for other in group):
                group.append(engine)
                break
        else:
            groups.append([engine])
    return groups


# --- acting ----------------------------------------------------------------------------------------------------------


class Host(Protocol):
    """What applying a placement needs of the machine."""

    def running(self, units: Iterable[str]) -> dict[str, str | None]:
        """Unit → digest it was started with; None when it does not run, "" when unknown."""

    def stop(self, units: Iterable[str]) -> None: ...

    def start(self, units: Iterable[str]) -> None: ...

    def set_boot(self, enabled: Collection[str], disabled: Collection[str]) -> None:
        """Which units come back after a reboot."""

    def healthy(self, url: str) -> bool: ...

    def now(self) -> float:
        """Monotonic seconds."""

    def sleep(self, seconds: float) -> None: ...


@dataclass
class Applied:
    """What applying did."""

    difference: Difference
    late: list[str] = field(default_factory=list)
    seconds: float = 0.0


def apply(
    placements: Mapping[str, Placement],
    name: str,
    directory: Path,
    host: Host,
    bound_s: float,
    tell: Callable[[str], None],
    drain_s: float = 0.0,
    unwanted: Callable[[], bool] = lambda: False,
    moved: Collection[int] = (),
    ready: Callable[[str], None] = lambda unit: None,
) -> Applied:
    """Bring the host to a placement; safe to repeat after an interruption at any point.

    `bound_s` bounds the wait for the health of each wave; engines that are not healthy by then are in `late`, and
    applying goes on: the others must not wait for one that is broken. `drain_s` is left between the switch of `current`
    (which the routers see) and the first stop. `unwanted` ends the wait for engines early when
    another placement is asked for meanwhile. Engines on a GPU of `moved` are restarted whatever they run on. `ready` is
    told every unit that became healthy. Raises OSError or ValueError from the file system.
    """
    began = host.now()
    placement = placements[name]
    units = {engine.unit for other in placements.values() for engine in other.engines.values()}
    running = host.running(units)
    elsewhere = {engine.unit for engine in placement.engines.values() if set(engine.gpus) & set(moved)}
    change = difference(wanted_digests(placement), {u: "" if d and u in elsewhere else d for u, d in running.items()})
    if current_name(directory) != name:
        switch_current(directory, name)
        tell(f"current placement is {name}")
    host.set_boot(enabled=sorted(wanted_digests(placement)), disabled=sorted(units - wanted_digests(placement).keys()))
    to_stop = sorted({*change.stop, *change.restart})
    if to_stop:
        host.sleep(drain_s)
        host.stop(to_stop)
        tell(f"stopped {', '.join(to_stop)}")
    late: list[str] = []
    fresh = [e for e in placement.engines.values() if e.unit in change.start or e.unit in change.restart]
    for wave in waves(fresh):
        if unwanted():
            break
        host.start([engine.unit for engine in wave])
        tell(f"started {', '.join(engine.unit for engine in wave)}")
        late += _await(wave, host, bound_s, tell, unwanted, ready)
    return Applied(change, late, host.now() - began)


def _await(
    wave: list[Engine],
    host: Host,
    bound_s: float,
    tell: Callable[[str], None],
    unwanted: Callable[[], bool],
    ready: Callable[[str], None],
) -> list[str]:
    """Wait until every engine of a wave is healthy; the units that are not within the bound."""
    waiting = {engine.unit: engine.health for engine in wave}
    deadline = host.now() + bound_s
    while waiting:
        for unit, url in list(waiting.items()):
            if host.healthy(url):
                del waiting[unit]
                tell(f"healthy {unit}")
                ready(unit)
        if not waiting or host.now() >= deadline or unwanted():
            break
        host.sleep(0.2)
    for unit in waiting:
        tell(f"not healthy within {bound_s:g} s: {unit}")
    return sorted(waiting)
