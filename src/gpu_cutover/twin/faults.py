"""Faults on purpose: `gpu-cutover twin fault NAME …`. Each writes what a stand-in reads, or does what a person
would do.

`clear` heals everything that can heal; a killed engine is systemd's business, a hung one is woken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, InputError
from . import services
from .lab import Lab, load_lab
from .network import run_in_host
from .services import wiring_path
from .standins import bus_id, write_in_host

GPU_FAULTS = "/var/lib/twin/faults.json"
XID_QUEUE = "/var/lib/twin/nvml.state.xid"
CLOUD_FAULT = "/var/lib/twin/cloud-fault.json"
HOT_INLET_CELSIUS = 46.0
HANG_S = 60.0
CLOUD_KINDS = ("delay", "error", "refuse", "silent")
XID_OFF_THE_BUS = 79
XID_DOUBLE_BIT = 48


@dataclass(frozen=True)
class Fault:
    """A fault's name on the command line, its arguments, and what it does."""

    arguments: tuple[str, ...]
    summary: str
    act: Callable[[Injector, Sequence[str]], None]


def gpu_faults(now: dict[str, Any], kind: str, gpu: int) -> dict[str, Any]:
    """The faults of the simulated GPUs with one more of a kind (`fan`, `lost`, `stuck`). Pure."""
    return {**now, kind: sorted({*now.get(kind, []), gpu})}


class Injector:
    """Writes faults into one lab. `run` enters a host (`run_in_host`), `write` replaces a file there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.gpu_host = next((name for name in lab.hosts if name.startswith("gpu")), "gpu1")

    def gpu(self, text: str) -> int:
        """A GPU's index. Raises InputError."""
        listed = self._run(self.gpu_host, "cat", "/etc/twin/gpus.json")
        count = len(json.loads(listed))
        if not text.isdecimal() or int(text) >= count:
            raise InputError("fault", "GPU", f"there is no GPU {text}", f"0 to {count - 1}")
        return int(text)

    def update_gpus(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change the fault file of the simulated GPUs."""
        result = run_in_host(self.lab.name, self.gpu_host, ["cat", GPU_FAULTS])
        now: dict[str, Any] = json.loads(result.stdout) if result.returncode == 0 else {}
        write_in_host(self.lab.name, self.gpu_host, GPU_FAULTS, json.dumps(change(now)).encode())

    def update_bmc(self, **values: Any) -> None:
        """Change the BMC's fault file; None removes a value."""
        path = self.lab.state_directory / "bmc-faults.json"
        now = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({key: value for key, value in {**now, **values}.items() if value is not None}))

    def xid(self, gpu: int, code: int) -> None:
        """Append an event for NVML's event sets and a line in the host's log as the driver words it."""
        bus = bus_id(gpu)[4:].rpartition(".")[0].lower()
        line = f"NVRM: Xid (PCI:{bus}): {code}, pid='<unknown>', name=<unknown>, injected"
        script = 'echo "$1 $2" >> "$3"; logger -t kernel -p kern.err "$4"'
        self._run(self.gpu_host, "sh", "-c", script, "sh", str(gpu), str(code), XID_QUEUE, line)

    def cloud(self, kind: str, seconds: float) -> None:
        """Make the cloud stand-in slow, failing, refusing or silent; "" heals it."""
        write_in_host(self.lab.name, "cloud", CLOUD_FAULT, json.dumps({"kind": kind, "seconds": seconds}).encode())

    def engine(self, action: str, name: str) -> None:
        """Kill an engine's processes or stop them in their tracks."""
        signals = {"kill": "KILL", "hang": "STOP"}
        if action not in signals:
            raise InputError("fault", "engine", f"unknown action {action!r}", "kill or hang")
        unit = f"{self.engine_kind(name)}@{name}.service"
        self._run(self.gpu_host, "systemctl", "kill", f"--signal={signals[action]}", "--kill-whom=all", unit)

    def engine_kind(self, name: str) -> str:
        """`vllm` or `triton`, as the site declares the model. Raises InputError."""
        models = self.lab.site.get("models", {})
        if name not in models:
            raise InputError("fault", name, "is not a declared model", f"one of {', '.join(sorted(models))}")
        return str(models[name]["engine"])

    def wire(self, host: str, port: str) -> None:
        """Let the switch announce another port to a host."""
        self.lab.host(host)
        path = wiring_path(self.lab)
        if not path.exists():
            raise InputError(f"lab {self.lab.name}", host, "the lab is not up", "gpu-cutover twin up")
        wiring = json.loads(path.read_text())
        wiring["ports"][self.lab.host(host).port]["port"] = port
        self._rewire(wiring)

    def _rewire(self, wiring: dict[str, Any]) -> None:
        path = wiring_path(self.lab)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(wiring, indent=1))
        temporary.replace(path)

    def clear(self) -> None:
        """Heal: GPUs, BMC, cloud, cables; wake what was hung."""
        self.update_gpus(lambda _: {})
        (self.lab.state_directory / "bmc-faults.json").unlink(missing_ok=True)
        if "cloud" in self.lab.hosts:
            self.cloud("", 0.0)
        cables = services.read_cables(self.lab.site_dir / "records" / "cabling.yml")
        self._rewire(services.wiring(self.lab, cables))
        for unit in ("vllm@*.service", "triton@*.service"):
            run_in_host(self.lab.name, self.gpu_host, ["systemctl", "kill", "--signal=CONT", "--kill-whom=all", unit])

    def _run(self, host: str, *argv: str) -> str:
        result = run_in_host(self.lab.name, host, list(argv))
        if result.returncode:
            raise InputError(
                f"lab {self.lab.name}",
                f"{host}: {argv[0]}",
                result.stderr.decode(errors="replace").strip(),
                "see the host",
            )
        return result.stdout.decode(errors="replace")


def _fan(injector: Injector, words: Sequence[str]) -> None:
    gpu = injector.gpu(words[0])
    injector.update_gpus(lambda now: gpu_faults(now, "fan", gpu))


def _stuck(injector: Injector, words: Sequence[str]) -> None:
    gpu = injector.gpu(words[0])
    injector.update_gpus(lambda now: gpu_faults(now, "stuck", gpu))


def _lost(injector: Injector, words: Sequence[str]) -> None:
    gpu = injector.gpu(words[0])
    injector.update_gpus(lambda now: gpu_faults(now, "lost", gpu))
    injector.xid(gpu, XID_OFF_THE_BUS)


def _ecc(injector: Injector, words: Sequence[str]) -> None:
    gpu = injector.gpu(words[0])
    injector.update_gpus(lambda now: {**now, "ecc": {**now.get("ecc", {}), str(gpu): 1}})
    injector.xid(gpu, XID_DOUBLE_BIT)


def _xid(injector: Injector, words: Sequence[str]) -> None:
    if not words[1].isdecimal():
        raise InputError("fault", "CODE", f"{words[1]!r} is no Xid", "a number, for example 79")
    injector.xid(injector.gpu(words[0]), int(words[1]))


def _hot(injector: Injector, words: Sequence[str]) -> None:
    injector.update_gpus(lambda now: {**now, "inlet_celsius": HOT_INLET_CELSIUS})
    injector.update_bmc(inlet_celsius=HOT_INLET_CELSIUS)


def _psu(injector: Injector, words: Sequence[str]) -> None:
    if not words[0].isdecimal():
        raise InputError("fault", "N", f"{words[0]!r} is no supply", "a number from 1")
    injector.update_bmc(psu_failed=[int(words[0]) - 1])


def _cloud(injector: Injector, words: Sequence[str]) -> None:
    if words[0] not in CLOUD_KINDS:
        raise InputError("fault", "cloud", f"unknown kind {words[0]!r}", f"one of {', '.join(CLOUD_KINDS)}")
    injector.cloud(words[0], 15.0)


FAULTS = {
    "fan-failure": Fault(("GPU",), "a GPU's fan stands still", _fan),
    "hot-inlet": Fault((), f"the air at the inlet has {HOT_INLET_CELSIUS:.0f} °C", _hot),
    "gpu-lost": Fault(("GPU",), "a GPU falls off the bus (Xid 79)", _lost),
    "ecc": Fault(("GPU",), "an uncorrectable memory error (Xid 48)", _ecc),
    "xid": Fault(("GPU", "CODE"), "the driver reports an Xid", _xid),
    "stuck-sensor": Fault(("GPU",), "a GPU's temperature no longer changes", _stuck),
    "nvml-hang": Fault(
        (), "every NVML call hangs", lambda injector, _: injector.update_gpus(lambda now: {**now, "hang_s": HANG_S})
    ),
    "cloud": Fault(("KIND",), f"the cloud misbehaves: {', '.join(CLOUD_KINDS)}", _cloud),
    "engine": Fault(("ACTION", "NAME"), "kill or hang an engine", lambda injector, words: injector.engine(*words)),
    "wrong-cable": Fault(
        ("HOST", "PORT"), "a host is plugged into another switch port", lambda injector, words: injector.wire(*words)
    ),
    "psu-failed": Fault(("N",), "a power supply fails", _psu),
    "clear": Fault((), "heal everything", lambda injector, _: injector.clear()),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per fault."""
    parser.add_argument("-i", "--inventory", type=Path, default=Path("inventory/twin"), metavar="SITE")
    names = parser.add_subparsers(dest="fault", required=True, metavar="NAME")
    for name, fault in FAULTS.items():
        added = names.add_parser(name, help=fault.summary)
        added.add_argument("-i", "--inventory", type=Path, default=argparse.SUPPRESS, metavar="SITE")
        for word in fault.arguments:
            added.add_argument("words", action="append", metavar=word)
        added.set_defaults(words=[])


def run(arguments: argparse.Namespace) -> int:
    """Inject one fault; raises InputError when the host is off or a word makes no sense."""
    inject(arguments.inventory, arguments.fault, arguments.words)
    print(
        f"fault {arguments.fault} {' '.join(arguments.words)}".rstrip()
        + (": healed" if arguments.fault == "clear" else ": injected")
    )
    return EXIT_DONE


def inject(site_dir: Path, name: str, words: Sequence[str] = ()) -> None:
    """Inject the fault `name` into the lab of a site; the drills call this."""
    fault = FAULTS.get(name)
    if fault is None or len(words) != len(fault.arguments):
        raise InputError(
            "fault", name, "no such fault, or another number of arguments", "gpu-cutover twin fault --help"
        )
    fault.act(Injector(load_lab(site_dir)), words)
