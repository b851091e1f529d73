"""A guard as a real process over the simulated NVML, and stand-ins for what surrounds it: systemd and engines."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpu_cutover.guard import control, placement
from gpu_cutover.probes import web

from .guard_host import ENGINES, PLACEMENTS

SOURCE = Path(__file__).parents[2] / "twin" / "nvml" / "libnvidia-ml.c"


def build_nvml(folder: Path) -> Path:
    """The simulated library, in a folder for LD_LIBRARY_PATH."""
    compiler = shutil.which("gcc")
    assert compiler, "a C compiler builds the simulated NVML"
    out = folder / "libnvidia-ml.so.1"
    command = [compiler, "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(out), str(SOURCE)]
    subprocess.run(command, check=True)
    return folder


class Board:
    """The simulated boards' state file."""

    def __init__(self, path: Path, count: int = 4) -> None:
        self.path = path
        self.values: dict[str, Any] = {
            "count": count, "driver": "580.105.08", "gpu.name": "NVIDIA L40S", "gpu.tlimit.ref": 88, "gpu.lost": 0,
            "gpu.tlimit.slowdown": -2, "gpu.tlimit.shutdown": -5, "gpu.reasons": "0x4", "gpu.power_mw": 300000,
            "gpu.limit_mw": 350000, "gpu.limit_min_mw": 100000, "gpu.limit_max_mw": 350000, "gpu.recovery_action": 0,
            "gpu.mem.total": 2**35, "gpu.ecc.dbe.vol": 0, "gpu.remap.failure": 0,
        }  # fmt: skip
        self.seat(*range(count))

    def set(self, **changes: Any) -> None:
        """Keys with `__` for the dot."""
        self.values |= {key.replace("__", "."): value for key, value in changes.items()}
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{key}={value}\n" for key, value in self.values.items()))
        fresh.replace(self.path)

    def seat(self, *boards: int | str) -> None:
        """Which boards answer, in the order of the buses: what the driver finds when it is loaded."""
        for index, board in enumerate(boards):
            told = {"uuid": f"GPU-{board}", "serial": f"S{board}", "bus_id": f"00000000:{index + 4}1:00.0", "temp": 50}
            self.values |= {f"gpu{index}.{key}": value for key, value in told.items()}
        self.set(count=len(boards))

    def xid(self, gpu: int, code: int) -> None:
        with Path(f"{self.path}.xid").open("a") as handle:
            handle.write(f"{gpu} {code}\n")


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("did not happen in time")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- systemd and engines ---------------------------------------------------------------------------------------------

SYSTEMCTL = '''#!/usr/bin/python3 -SE
"""Stands in for systemctl: a unit is a sleeping process with the environment that its file gives it.

Does not imitate: jobs, dependencies, restarts. `kill` says at which act, and before or after it, the caller is killed.
"""
import os, signal, subprocess, sys
from pathlib import Path

HERE = Path(__file__).parent
words = [word for word in sys.argv[1:] if not word.startswith("-")]
verb, units = words[0], words[1:]


def pid_of(unit):
    try:
        return int((HERE / "units" / unit).read_text())
    except OSError:
        return 0


def act():
    for unit in units:
        if verb == "stop" and pid_of(unit):
            os.kill(pid_of(unit), signal.SIGKILL)
            (HERE / "units" / unit).unlink()
        elif verb == "start" and not pid_of(unit):
            model = unit.split("@")[1].removesuffix(".service")
            text = (HERE.parent / "placements" / "current" / f"{model}.env").read_text()
            env = dict(line.split("=", 1) for line in text.splitlines())
            started = subprocess.Popen(["sleep", "600"], env={**os.environ, **env}, start_new_session=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            (HERE / "units" / unit).write_text(str(started.pid))
        elif verb in ("enable", "disable"):
            (HERE / "boot" / unit).write_text(f"{verb}d")


if verb == "show":
    for unit in units:
        pid, boot = pid_of(unit), HERE / "boot" / unit
        state = "active" if pid else "inactive"
        kept = boot.read_text() if boot.exists() else "disabled"
        print(f"Id={unit}\\nActiveState={state}\\nMainPID={pid}\\nNRestarts=0\\nUnitFileState={kept}\\n")
    sys.exit(0)
acts, wanted = HERE / "acts", HERE / "kill"
number = len(acts.read_text()) if acts.exists() else 0
acts.write_text("x" * (number + 1))
when = wanted.read_text() if wanted.exists() else ""
if when == f"before {number}":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
act()
if when == f"after {number}":
    os.kill(os.getppid(), signal.SIGKILL)
'''


class Engines:
    """All engines' health on one port, and the units of the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "systemd"
        for name in ("units", "boot"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "systemctl").write_text(SYSTEMCTL)
        (self.folder / "systemctl").chmod(0o755)
        self.healthy = threading.Event()
        self.healthy.set()
        healthy = self.healthy

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = b'{"version": "0.20.2"}'
                self.send_response(200 if healthy.is_set() else 503)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def place(self, directory: Path, placements: Mapping[str, Mapping[str, Any]] = PLACEMENTS) -> None:
        """Write the plan and start the healthy placement."""
        port = self.server.server_address[1]
        engines = {model: {**engine, "port": port} for model, engine in ENGINES.items()}
        for name, content in placement.render(placements, engines, "127.0.0.1").items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        placement.switch_current(directory, placement.HEALTHY)
        units = [ENGINES[model]["unit"] for model in placements[placement.HEALTHY]["engines"]]
        for verb in ("enable", "start"):
            subprocess.run([self.folder / "systemctl", verb, *units], check=True)
        (self.folder / "acts").unlink()

    def kill_at(self, when: str) -> None:
        """`before N` or `after N`: the N-th change of a unit from now on kills whoever asks for it."""
        (self.folder / "kill").write_text(when)

    def running(self) -> dict[str, str]:
        """Unit → digest of the placement that it was started for."""
        found = {}
        for path in (self.folder / "units").iterdir():
            entries = Path(f"/proc/{path.read_text()}/environ").read_bytes().decode().split("\0")
            prefix = f"{placement.DIGEST_VARIABLE}="
            found[path.name] = next(entry for entry in entries if entry.startswith(prefix)).removeprefix(prefix)
        return found

    def enabled(self) -> set[str]:
        return {path.name for path in (self.folder / "boot").iterdir() if path.read_text() == "enabled"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for path in (self.folder / "units").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)


class Guard:
    """One running guard; its configuration may be changed before it starts."""

    def __init__(self, folder: Path, **other: Any) -> None:
        self.port, self.socket = free_port(), folder / "run" / "control"
        self.placements, self.folder = folder / "placements", folder
        self.values: dict[str, Any] = {
            "gpus": 4, "listen": "127.0.0.1", "port": self.port, "interval_s": 0.1, "read_timeout_s": 3.0,
            "placements": str(self.placements), "state_file": str(folder / "state.json"), "drain_s": 0.0,
            "socket": str(self.socket),
            "policy": {"act_after_s": 2.0, "critical_after_s": 0.5, "blind_after_s": 1.0, "cool_down_s": 0.3},
        } | other  # fmt: skip
        self.config = folder / "guard.json"
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.config.write_text(json.dumps(self.values))
        command = [sys.executable, "-m", "gpu_cutover.guard.main", "run", "--config", str(self.config)]
        path = f"{self.folder / 'systemd'}:{os.environ['PATH']}"
        self.child = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "PATH": path})
        until(lambda: web.answers(f"http://127.0.0.1:{self.port}/health"))

    def died(self) -> int:
        """Wait for its end; the signal or exit status."""
        assert self.child is not None
        status, self.child = self.child.wait(timeout=60), None
        return status

    def kill(self) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL)
            self.died()

    def get(self, path: str) -> Any:
        return web.get_json(f"http://127.0.0.1:{self.port}{path}", 40.0)

    def ask(self, command: str) -> dict[str, Any]:
        return control.ask(command, self.socket)
