"""Does the software fit together: driver, CUDA, engines, operating system, and until when. Pure; today is passed in.

A driver runs every CUDA up to the one it was made with. A newer minor of the same major runs too, with a limited
feature set (NVIDIA's minor-version compatibility); a newer major does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal

from ..catalog import Catalog, Gpu, load_catalog
from ..catalog.compat import Branch, Matrix, Release, System
from ..catalog.prices import load_prices
from ..errors import InputError
from ..site.model import Driver as Declared
from ..site.model import Site
from ..site.problems import nearest
from .finding import Finding, in_order

Verdict = Literal["ok", "limited", "eol", "unsupported", "unknown"]
"""`limited`: runs by minor-version compatibility only; `unknown`: no source says."""

FILE = "catalog/compat.yml"
ADD = f"To add it, write an entry in {FILE} (no code)"
FABRIC = "Fabric Manager guide; catalog GPU"
MODULES = "driver installation guide: open modules are the default since R560 and right for Turing and newer"


@dataclass(frozen=True)
class Part:
    """One part of the software as pinned, the verdict and why. `end_of_life` is `YYYY-MM` or None."""

    part: str
    pinned: str
    verdict: Verdict
    why: str
    end_of_life: str | None
    source: str


@dataclass(frozen=True)
class Compat:
    """Every part's verdict on the day `today`."""

    today: str
    system: str
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part:
        """The part of this name. Raises KeyError."""
        return {part.part: part for part in self.parts}[name]


# --- rules -----------------------------------------------------------------------------------------------------------


def version_key(version: str) -> tuple[int, ...]:
    """Compares as numbers: 580.95.05 < 580.105.08; the part after a dash is the package's, not the driver's."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def minor_of(cuda: str) -> tuple[int, int]:
    """`(13, 0)` of `13.0.2` and of `13.0`."""
    major, minor, *_ = (*version_key(cuda), 0)
    return major, minor


def over(end_of_life: str, today: date) -> bool:
    """Whether the month `YYYY-MM` has passed."""
    year, month = version_key(end_of_life.replace("-", "."))
    return (today.year, today.month) > (year, month)


def months_left(end_of_life: str, today: date) -> int:
    """Whole months from today's to the one in which support ends; negative when it has."""
    year, month = version_key(end_of_life.replace("-", "."))
    return (year - today.year) * 12 + month - today.month


def newest_cuda(driver: str, matrix: Matrix) -> str | None:
    """The newest toolkit this driver version runs natively; None: older than the table."""
    fitting = [cuda for cuda, first in matrix.cuda.items() if version_key(driver) >= version_key(first)]
    return max(fitting, key=version_key, default=None)


def runs_cuda(cuda: str, driver: str, matrix: Matrix) -> tuple[Verdict, str]:
    """Whether a program built with this CUDA runs on this driver version, and why."""
    branch, (major, minor) = version_key(driver)[0], minor_of(cuda)
    first = matrix.minor_version.get(major)
    if first is None:
        return "unknown", f"no source says which driver CUDA {major} needs"
    if branch < first:
        return "unsupported", f"CUDA {major}.x needs a driver of branch {first} or newer, R{branch} is older"
    newest = newest_cuda(driver, matrix)
    if newest is None:
        return "limited", f"driver {driver} is older than any in the table, minor-version compatibility at best"
    if (major, minor) <= minor_of(newest):
        return "ok", f"driver {driver} runs CUDA up to {newest} natively"
    return "limited", (
        f"driver {driver} runs CUDA up to {newest} natively; {cuda} runs by minor-version compatibility only: no PTX of"
        " newer toolkits, and a public log shows NCCL failing to start in such an image"
    )


def release_of(engine: str, version: str, matrix: Matrix) -> Release | None:
    """What an engine's version carries; between two known ones of the same CUDA it is theirs. None: nobody knows.

    Raises InputError for an unknown engine.
    """
    if engine not in matrix.engines:
        fix = f"{nearest(engine, matrix.engines)} {ADD}"
        raise InputError(FILE, f"engines.{engine}", "is not an engine of the catalog", fix)
    known = matrix.engines[engine]
    found = known.get(version) or known.get("*")
    if found is not None or not version_key(version):
        return found
    ordered = sorted(known, key=version_key)
    for below, above in pairwise(ordered):
        between = version_key(below) < version_key(version) < version_key(above)
        if between and known[below].cuda == known[above].cuda:
            return Release(known[below].cuda, None, known[above].python, f"between {below} and {above}, both alike")
    return None


# --- one site --------------------------------------------------------------------------------------------------------


def assess(
    site: Site,
    matrix: Matrix,
    today: date,
    engines: Mapping[str, str] | None = None,
    system: str | None = None,
    catalog: Catalog | None = None,
) -> Compat:
    """Every part of a site's software against the matrix.

    `engines` (name → version) defaults to what the bundle carries, `system` to the plan's. Raises InputError for an
    unknown engine or system.
    """
    catalog = catalog or load_catalog()
    name = system or matrix.plan.system
    if name not in matrix.systems:
        fix = f"{nearest(name, matrix.systems)} {ADD}"
        raise InputError(FILE, f"systems.{name}", "is not an operating system of the catalog", fix)
    versions = dict(matrix.pins if engines is None else engines)
    driver, gpu = site.spec.driver, catalog.gpus[catalog.tiers[site.spec.tier].gpu]
    known = matrix.systems[name]
    return Compat(
        today=today.isoformat(),
        system=name,
        parts=(
            _branch(driver, matrix, today),
            _cuda(driver, matrix),
            _previous(driver, matrix, today),
            _modules(driver, catalog),
            _system(name, known, today),
            _repository(driver.cuda, name, known),
            *(_engine(engine, version, driver, known, matrix) for engine, version in sorted(versions.items())),
            _fabric_manager(gpu),
        ),
    )


def _branch(driver: Declared, matrix: Matrix, today: date) -> Part:
    known = matrix.branches.get(driver.branch)
    if known is None:
        why = f"not in the catalog: {nearest(driver.branch, matrix.branches)} {ADD}"
        return Part("driver", driver.version, "unknown", why, None, FILE)
    verdict, why = _life(driver.branch, known, today)
    return Part("driver", driver.version, verdict, why, known.end_of_life, known.source)


def _life(name: str, branch: Branch, today: date) -> tuple[Verdict, str]:
    what = f"R{name} ({branch.kind})"
    if branch.end_of_life is None:
        return ("eol", f"{what} has ended") if branch.ended else ("unknown", f"no source says until when {what} lives")
    if over(branch.end_of_life, today):
        return "eol", f"{what} ended in {branch.end_of_life}"
    left = months_left(branch.end_of_life, today)
    return "ok", f"{what} is maintained until {branch.end_of_life}, {left} months from now"


def _cuda(driver: Declared, matrix: Matrix) -> Part:
    verdict, why = runs_cuda(driver.cuda, driver.version, matrix)
    return Part("cuda", driver.cuda, verdict, why, None, "CUDA release notes, minimum driver table")


def _previous(driver: Declared, matrix: Matrix, today: date) -> Part:
    """The version a rollback goes back to: the only remedy for a driver that misbehaves."""
    source = "site driver.previous"
    if driver.previous is None:
        return Part("driver-rollback", "none", "unsupported", "no previous version to go back to", None, source)
    branch = driver.previous.split(".")[0]
    known = matrix.branches.get(branch)
    if known is None:
        return Part("driver-rollback", driver.previous, "unknown", f"R{branch} is not in the catalog", None, source)
    verdict, why = _life(branch, known, today)
    return Part("driver-rollback", driver.previous, verdict, why, known.end_of_life, source)


def _modules(driver: Declared, catalog: Catalog) -> Part:
    known = catalog.drivers.get(driver.branch)
    if known is None:
        why = f"packages of R{driver.branch} are not in the catalog"
        return Part("kernel-modules", f"R{driver.branch}", "unknown", why, None, MODULES)
    pinned = "open" if known.open_modules else "proprietary"
    return Part("kernel-modules", pinned, "ok", f"R{driver.branch}'s packages are the {pinned} modules", None, MODULES)


def _system(name: str, system: System, today: date) -> Part:
    if over(system.end_of_life, today):
        return Part("system", name, "eol", f"support ended in {system.end_of_life}", system.end_of_life, system.source)
    why = f"supported until {system.end_of_life}"
    return Part("system", name, "ok", why, system.end_of_life, system.source)


def _repository(cuda: str, name: str, system: System) -> Part:
    """Whether NVIDIA's packages for this system begin early enough."""
    if minor_of(cuda) < minor_of(system.first_cuda):
        why = f"NVIDIA's repository for {name} begins at CUDA {system.first_cuda}"
        return Part("cuda-packages", cuda, "unsupported", why, None, system.source)
    why = f"NVIDIA's repository for {name} has it (from {system.first_cuda}); engines bring their own runtime"
    return Part("cuda-packages", cuda, "ok", why, None, system.source)


def _engine(engine: str, version: str, driver: Declared, system: System, matrix: Matrix) -> Part:
    release = release_of(engine, version, matrix)
    if release is None:
        why = f"not in the catalog: {nearest(version, matrix.engines[engine])} {ADD}"
        return Part(engine, version, "unknown", why, None, FILE)
    if release.python and version_key(system.python) < version_key(release.python):
        why = f"needs Python {release.python}, the system has {system.python}"
        return Part(engine, version, "unsupported", why, None, release.source)
    verdict, why = runs_cuda(release.cuda, driver.version, matrix)
    own = f", cuDNN {release.cudnn}" if release.cudnn else ""
    return Part(engine, version, verdict, f"carries CUDA {release.cuda}{own}; {why}", None, release.source)


def _fabric_manager(gpu: Gpu) -> Part:
    if gpu.fabric_manager:
        return Part(
            "fabric-manager", "required", "ok", "the board has NVSwitch: its version is the driver's", None, FABRIC
        )
    why = "no NVSwitch: it is not required, and where it runs it stops with NV_WARN_NOTHING_TO_DO"
    return Part("fabric-manager", "not installed", "ok", why, None, FABRIC)


# --- findings --------------------------------------------------------------------------------------------------------


def findings(compat: Compat, matrix: Matrix, hardware_months: int | None = None) -> tuple[Finding, ...]:
    """What does not fit in the plan as written, and what does not in the site's pins; worst first.

    `hardware_months` is how long the server is to serve, the plan's amortisation where nothing else is said.
    """
    months = load_prices().amortisation_months if hardware_months is None else hardware_months
    today = date.fromisoformat(compat.today)
    found = [
        *_planned_cuda(compat, matrix),
        *_planned_branch(compat, matrix, today),
        *_planned_remedy(compat, matrix),
        *_planned_cudnn(compat, matrix),
        *_fabric_note(compat),
        *_newer_triton(compat, matrix),
        *_outlived(compat, today, months),
        *(finding for part in compat.parts for finding in _wrong(part)),
    ]
    return in_order(found)


def _planned_cuda(compat: Compat, matrix: Matrix) -> list[Finding]:
    """The plan's CUDA against the repository of its system, and the last engine that carries it."""
    plan = matrix.plan
    first = matrix.systems[plan.system].first_cuda
    if minor_of(plan.cuda) >= minor_of(first):
        return []
    with_it = [version for version, release in matrix.engines["vllm"].items() if release.cuda == plan.cuda]
    last = max(with_it, key=version_key, default=None)
    engine = f"the last vLLM on CUDA {plan.cuda} is {last}" if last else f"no vLLM carries CUDA {plan.cuda}"
    newest = max(matrix.engines["vllm"], key=version_key)
    carried, driver = matrix.engines["vllm"][newest].cuda, compat.part("driver").pinned
    return [
        Finding(
            "cuda-not-packaged",
            "blocker",
            0.5,
            f"The plan installs CUDA {plan.cuda} on {plan.system}, but NVIDIA's repository for it begins at {first}, "
            f"and {engine}, while {newest} carries CUDA {carried}",
            f"no toolkit on the host: engines bring their CUDA, and the pinned driver {driver} runs it",
            f"{plan.sources['cuda']}; {matrix.systems[plan.system].source}",
        )
    ]


def living(kind: str, matrix: Matrix, today: date) -> dict[str, str]:
    """Branches of a kind that are maintained today, with the month they end in."""
    return {
        name: branch.end_of_life
        for name, branch in matrix.branches.items()
        if branch.kind == kind and branch.end_of_life and not over(branch.end_of_life, today)
    }


def _planned_branch(compat: Compat, matrix: Matrix, today: date) -> list[Finding]:
    """The plan's "LTS branch only": which branches that leaves, and until when."""
    kind, alive = matrix.plan.branch_kind, living(matrix.plan.branch_kind, matrix, today)
    dead = sorted(name for name, branch in matrix.branches.items() if branch.kind == kind and name not in alive)
    gone = ", ".join(f"R{name} ended {matrix.branches[name].end_of_life}" for name in dead) or "none has ended"
    left = ", ".join(f"R{name} (until {end})" for name, end in sorted(alive.items())) or "none"
    pinned, source = compat.part("driver").pinned.split(".")[0], str(matrix.plan.sources["branch_kind"])
    if pinned in alive:
        text = f'"LTS branch only" leaves {left}; {gone}{_branch_of_planned_cuda(matrix, today)}'
        return [Finding("lts-branch-only", "note", 0.6, text, f"say R{pinned} in the plan, as the site does", source)]
    text = f'The plan says "LTS branch only", which leaves {left}, and the site pins R{pinned}'
    return [Finding("not-an-lts-branch", "major", 0.6, text, f"pin a version of {left}", source)]


def _branch_of_planned_cuda(matrix: Matrix, today: date) -> str:
    """The branch that the plan's CUDA came with, where it is over."""
    first = matrix.cuda.get(f"{matrix.plan.cuda}.0")
    known = matrix.branches.get(first.split(".")[0]) if first else None
    if first is None or known is None or _life(first.split(".")[0], known, today)[0] != "eol":
        return ""
    return f"; the plan's CUDA {matrix.plan.cuda} came with {first}, a branch that has ended"


def _planned_remedy(compat: Compat, matrix: Matrix) -> list[Finding]:
    plan = matrix.plan
    previous = compat.part("driver-rollback").pinned
    ready = f"{previous} is pinned as the previous one" if previous != "none" else "none is pinned"
    return [
        Finding(
            "tensorrt-llm-no-remedy",
            "minor",
            0.8,
            f"The plan's remedy for driver instability, {plan.driver_remedy}, runs on the same kernel driver and CUDA:"
            " an NCCL crash or an Xid stays where it was",
            f"keep a second driver version in the local repository and go back to it with one reboot ({ready})",
            f"{plan.sources['driver_remedy']}; engineer's knowledge",
        )
    ]


def _planned_cudnn(compat: Compat, matrix: Matrix) -> list[Finding]:
    if not matrix.plan.host_cudnn:
        return []
    pinned = matrix.pins["vllm"]
    carried = matrix.engines["vllm"][pinned].cudnn
    whisper = matrix.engines["faster-whisper"]["*"]
    return [
        Finding(
            "cudnn-on-the-host",
            "note",
            0.4,
            f"cuDNN on the host serves no engine: vLLM {pinned} brings cuDNN {carried}, and faster-whisper wants CUDA"
            f" {minor_of(whisper.cuda)[0]} with cuDNN {whisper.cudnn}, another CUDA than vLLM's"
            f" {matrix.engines['vllm'][pinned].cuda}",
            "one environment per engine; install none on the host",
            f"{matrix.plan.sources['host_cudnn']}; {whisper.source}",
        )
    ]


def _fabric_note(compat: Compat) -> list[Finding]:
    part = compat.part("fabric-manager")
    if part.pinned != "not installed":
        return []
    fix = "do not install or require it; a recipe made for an 8-GPU board does"
    return [Finding("fabric-manager", "note", 0.3, f"Fabric Manager has no work here: {part.why}", fix, part.source)]


def _newer_triton(compat: Compat, matrix: Matrix) -> list[Finding]:
    """Which Triton releases the pinned driver runs natively, and which by compatibility only."""
    driver = compat.part("driver").pinned
    runs = {
        version: runs_cuda(release.cuda, driver, matrix)[0] for version, release in matrix.engines["triton"].items()
    }
    native = sorted(version for version, verdict in runs.items() if verdict == "ok")
    limited = sorted(version for version, verdict in runs.items() if verdict == "limited")
    if not native or not limited:
        return []
    newest = matrix.engines["triton"][limited[-1]].cuda
    return [
        Finding(
            "triton-newer-than-the-driver",
            "note",
            0.5,
            f"Triton {limited[0]} and newer carry CUDA {matrix.engines['triton'][limited[0]].cuda} to {newest}, which"
            f" driver {driver} runs by minor-version compatibility only",
            f"pin Triton {native[-1]} or older (CUDA {matrix.engines['triton'][native[-1]].cuda})",
            matrix.engines["triton"][limited[0]].source,
        )
    ]


def _outlived(compat: Compat, today: date, months: int) -> list[Finding]:
    """A driver or system whose support ends before the server is written off."""
    found = []
    for name in ("driver", "system"):
        part = compat.part(name)
        left = months_left(part.end_of_life, today) if part.end_of_life else None
        if part.verdict == "ok" and left is not None and left < months:
            found.append(
                Finding(
                    f"{name}-ends-before-the-hardware",
                    "note",
                    0.4,
                    f"{part.pinned} is supported until {part.end_of_life}, {left} months from now; the server is to"
                    f" serve {months}",
                    f"plan one change of the {name} before then, rehearsed on the twin",
                    part.source,
                )
            )
    return found


def _wrong(part: Part) -> list[Finding]:
    """A pin of the site that does not hold."""
    text = f"{part.part} {part.pinned}: {part.why}"
    if part.part == "driver-rollback":
        if part.verdict == "ok":
            return []
        fix = "pin a second version of the branch as driver.previous and keep its packages in the bundle"
        return [Finding("no-driver-to-go-back-to", "major", 0.5, text, fix, part.source)]
    if part.verdict == "eol":
        fix = "pin a maintained version: security fixes have stopped"
        return [Finding(f"{part.part}-end-of-life", "blocker", 0.7, text, fix, part.source)]
    if part.verdict == "unsupported":
        return [
            Finding(f"{part.part}-unsupported", "blocker", 0.9, text, "pin versions that fit together", part.source)
        ]
    if part.verdict == "limited":
        fix = "pin one the driver runs natively, or prove it on the box"
        return [Finding(f"{part.part}-limited", "major", 0.4, text, fix, part.source)]
    if part.verdict == "unknown":
        return [Finding(f"{part.part}-unknown", "minor", 0.7, text, "look it up and add it", part.source)]
    return []


# --- JSON ------------------------------------------------------------------------------------------------------------


def as_json(compat: Compat) -> dict[str, Any]:
    """Plain data: `{today, system, parts: [{part, pinned, verdict, why, end_of_life, source}]}`."""
    return {"today": compat.today, "system": compat.system, "parts": [asdict(part) for part in compat.parts]}
