"""Read the GPUs through NVML without ever hanging.

NVML calls can block for ever when a driver is ill, and nothing inside a process can interrupt them. So they run in a
child process that answers one line per question; the parent waits with a hard time-out, kills a child that does not
answer and reports `error`. The child needs `nvidia-ml-py` (imported late), the parent only the standard library: a
module on Debian's own Python asks through the interpreter of `/opt/gpu-cutover`.

A reading is plain data: `{"t": epoch seconds, "driver": str, "gpus": [...], "xids": [...]}` or
`{"t": …, "error": str}`. One GPU: `index, uuid, name, serial, vbios, part_number, bus_id, lost, temperature_celsius,
margin_celsius, slowdown_margin_celsius, shutdown_margin_celsius, memory_temperature_celsius, clocks_event_bits,
power_w, limit_w, limit_min_w, limit_max_w, default_limit_w, utilisation_percent, memory_total_bytes, memory_used_bytes,
ecc_uncorrected, ecc_corrected, remap_corrected, remap_uncorrected, remap_pending, remap_failure, recovery_action,
pcie_generation, pcie_width, pcie_generation_max, pcie_width_max, pcie_replays, persistence`. A value that the board
does not report is None.

NVML numbers the boards it finds in the order of their buses: after a reboot without one board, those behind it have
other numbers. So what never changes while a child lives is asked once, and a board that falls off the bus later is
still told with its `uuid` and `bus_id`. A child that sees an Xid says so at once (`Reader.wait`).

Margins are NVML's T.Limit: degrees left to the board's maximum operating temperature; the slowdown and shutdown margins
are offsets on that scale (negative; L40S: -2 and -5).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

AGENT_PYTHON = "/opt/gpu-cutover/bin/python"

# Clocks-event bits (NVML, nvmlClocksEventReasons).
BIT_HW_SLOWDOWN = 0x8
BIT_SW_THERMAL = 0x20
BIT_HW_THERMAL = 0x40
BIT_POWER_BRAKE = 0x80
THERMAL_BITS = BIT_SW_THERMAL | BIT_HW_THERMAL

RECOVERY_ACTION = {0: "none", 1: "reset", 2: "reboot", 3: "drain-p2p", 4: "drain-and-reset"}

# Field identifiers (NVML, nvmlFieldValue).
_FIELDS = {
    193: "shutdown_margin_celsius",
    194: "slowdown_margin_celsius",
    82: "memory_temperature_celsius",
    142: "remap_corrected",
    143: "remap_uncorrected",
    144: "remap_pending",
    145: "remap_failure",
    230: "recovery_action",
}
_XID_EVENT = 0x8
SLOW_EVERY = 10
NUDGE = b"!"  # the child's line that says: an Xid came, do not wait for the next second


# --- the child: the only code that touches NVML ----------------------------------------------------------------------


def _value(call: Callable[[], Any]) -> Any:
    """The call's result, or None where the board or the library does not support it. A lost GPU is raised."""
    import pynvml

    try:
        value = call()
    except pynvml.NVMLError as error:
        if isinstance(error, pynvml.NVMLError_GpuIsLost):
            raise
        return None
    return value.decode() if isinstance(value, bytes) else value


def _fields(handle: Any) -> dict[str, Any]:
    import pynvml

    found: dict[str, Any] = dict.fromkeys(_FIELDS.values())
    values = _value(lambda: pynvml.nvmlDeviceGetFieldValues(handle, list(_FIELDS))) or []
    for value in values:
        if value.nvmlReturn == 0:
            raw = value.value
            number = [raw.dVal, raw.uiVal, raw.ulVal, raw.ullVal, raw.sllVal, raw.siVal][min(value.valueType, 5)]
            found[_FIELDS[value.fieldId]] = number
    return found


def _scaled(value: Any, divisor: float) -> float | None:
    return None if value is None else value / divisor


def _facts(handle: Any) -> dict[str, Any]:
    """What does not change while the driver is loaded."""
    import pynvml as n

    bus = getattr(_value(lambda: n.nvmlDeviceGetPciInfo(handle)), "busId", None)
    limits = _value(lambda: n.nvmlDeviceGetPowerManagementLimitConstraints(handle)) or (None, None)
    return {
        "uuid": _value(lambda: n.nvmlDeviceGetUUID(handle)),
        "name": _value(lambda: n.nvmlDeviceGetName(handle)),
        "serial": _value(lambda: n.nvmlDeviceGetSerial(handle)),
        "vbios": _value(lambda: n.nvmlDeviceGetVbiosVersion(handle)),
        "part_number": _value(lambda: n.nvmlDeviceGetBoardPartNumber(handle)),
        "bus_id": bus.decode() if isinstance(bus, bytes) else bus,
        "limit_min_w": _scaled(limits[0], 1000),
        "limit_max_w": _scaled(limits[1], 1000),
        "default_limit_w": _scaled(_value(lambda: n.nvmlDeviceGetPowerManagementDefaultLimit(handle)), 1000),
        "pcie_generation_max": _value(lambda: n.nvmlDeviceGetMaxPcieLinkGeneration(handle)),
        "pcie_width_max": _value(lambda: n.nvmlDeviceGetMaxPcieLinkWidth(handle)),
    }


def _slow(handle: Any) -> dict[str, Any]:
    """What decides nothing and changes slowly: asked with every tenth reading of a child that stays."""
    import pynvml as n

    memory = _value(lambda: n.nvmlDeviceGetMemoryInfo(handle))
    return {
        "memory_total_bytes": getattr(memory, "total", None),
        "memory_used_bytes": getattr(memory, "used", None),
        "ecc_corrected": _value(
            lambda: n.nvmlDeviceGetTotalEccErrors(handle, n.NVML_MEMORY_ERROR_TYPE_CORRECTED, n.NVML_VOLATILE_ECC)
        ),
        "pcie_generation": _value(lambda: n.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
        "pcie_width": _value(lambda: n.nvmlDeviceGetCurrPcieLinkWidth(handle)),
        "pcie_replays": _value(lambda: n.nvmlDeviceGetPcieReplayCounter(handle)),
        "persistence": _value(lambda: n.nvmlDeviceGetPersistenceMode(handle)),
    }


def _gpu(index: int, facts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """One board as it is now; `facts` holds what was asked of each board before and is brought up to date."""
    import pynvml as n

    handle = n.nvmlDeviceGetHandleByIndex(index)
    if index not in facts:
        facts[index] = {"asked": 0, "facts": _facts(handle)}
    known = facts[index]
    if known["asked"] % SLOW_EVERY == 0:
        known["slow"] = _slow(handle)
    known["asked"] += 1
    utilisation = _value(lambda: n.nvmlDeviceGetUtilizationRates(handle))
    return {
        "index": index,
        "lost": False,
        **known["facts"],
        **known["slow"],
        "temperature_celsius": _value(lambda: n.nvmlDeviceGetTemperatureV(handle, n.NVML_TEMPERATURE_GPU)),
        "margin_celsius": _value(lambda: n.nvmlDeviceGetMarginTemperature(handle)),
        "clocks_event_bits": _value(lambda: n.nvmlDeviceGetCurrentClocksEventReasons(handle)),
        "power_w": _scaled(_value(lambda: n.nvmlDeviceGetPowerUsage(handle)), 1000),
        "limit_w": _scaled(_value(lambda: n.nvmlDeviceGetPowerManagementLimit(handle)), 1000),
        "utilisation_percent": getattr(utilisation, "gpu", None),
        "ecc_uncorrected": _value(
            lambda: n.nvmlDeviceGetTotalEccErrors(handle, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC)
        ),
        **_fields(handle),
    }


def _gpu_or_lost(index: int, facts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    import pynvml

    try:
        return _gpu(index, facts)
    except pynvml.NVMLError as error:
        lost = isinstance(error, pynvml.NVMLError_GpuIsLost)
        named = {key: facts[index]["facts"][key] for key in ("uuid", "bus_id", "serial") if index in facts}
        return {"index": index, "lost": lost, "error": str(error), **named}


class _XidListener(threading.Thread):
    """Collects Xid events; events of a GPU that cannot register are simply not there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._lock = threading.Lock()
        self._seen: list[dict[str, Any]] = []
        self._told = True

    def run(self) -> None:
        import pynvml as n

        events = n.nvmlEventSetCreate()
        indexes: dict[int | None, int] = {}
        for index in range(n.nvmlDeviceGetCount()):
            with contextlib.suppress(n.NVMLError):
                handle = n.nvmlDeviceGetHandleByIndex(index)
                n.nvmlDeviceRegisterEvents(handle, _XID_EVENT, events)
                indexes[ctypes.cast(handle, ctypes.c_void_p).value] = index
        while indexes:
            try:
                event = n.nvmlEventSetWait_v2(events, 1000)
            except n.NVMLError_Timeout:
                continue
            except n.NVMLError:
                time.sleep(1.0)
                continue
            # By address: a GPU that fell off the bus (Xid 79) can no longer be asked for its index.
            gpu = indexes.get(ctypes.cast(event.device, ctypes.c_void_p).value)
            if event.eventType & _XID_EVENT:
                with self._lock:
                    self._seen.append({"t": time.time(), "gpu": gpu, "xid": int(event.eventData)})
                    if self._told:
                        self._told = False
                        os.write(1, NUDGE + b"\n")

    def drain(self) -> list[dict[str, Any]]:
        with self._lock:
            seen, self._seen, self._told = self._seen, [], True
        return seen


def _read_now(listener: _XidListener | None, facts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    import pynvml

    gpus = [_gpu_or_lost(index, facts) for index in range(pynvml.nvmlDeviceGetCount())]
    driver = _value(pynvml.nvmlSystemGetDriverVersion)
    return {"t": time.time(), "driver": driver, "gpus": gpus, "xids": listener.drain() if listener else []}


def _start_nvml() -> str | None:
    """Initialise; the reason when that is impossible."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return "nvidia-ml-py is not installed in this environment"
    except pynvml.NVMLError as error:
        return f"NVML does not start: {error}"
    return None


def _answer(listener: _XidListener | None, facts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    import pynvml

    try:
        return _read_now(listener, facts)
    except pynvml.NVMLError as error:
        return {"t": time.time(), "error": f"NVML: {error}"}


def _serve() -> None:
    """Answer one reading per line on standard input until it closes; end when NVML does not start.

    A line `limit <uuid> <milliwatts>` sets a power limit instead. Answers are written with one call each, because the
    listener writes, too.
    """
    listener: _XidListener | None = None
    facts: dict[int, dict[str, Any]] = {}
    problem = _start_nvml()
    if problem is None:
        listener = _XidListener()
        listener.start()
    for line in sys.stdin:
        words = line.split()
        if problem:
            answer: dict[str, Any] = {"t": time.time(), "error": problem}
        elif words:
            answer = _set_limit(words[1], int(words[2]))
        else:
            answer = _answer(listener, facts)
        os.write(1, json.dumps(answer).encode() + b"\n")
        if problem:
            return


def _set_limit(uuid: str, milliwatts: int) -> dict[str, Any]:
    import pynvml

    try:
        pynvml.nvmlDeviceSetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByUUID(uuid), milliwatts)
    except pynvml.NVMLError as error:
        return {"refused": f"{uuid}: {error}"}
    return {}


def main(argv: list[str] | None = None) -> int:
    """`--once` prints one reading, `--serve` answers questions on standard input."""
    parser = argparse.ArgumentParser(prog="gpu_cutover.probes.nvml")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--once", action="store_true")
    group.add_argument("--serve", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.serve:
        _serve()
        return 0
    problem = _start_nvml()
    answer = {"t": time.time(), "error": problem} if problem else _answer(None, {})
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


# --- the parent: never hangs -----------------------------------------------------------------------------------------


def _command(interpreter: str, *arguments: str) -> list[str]:
    return [interpreter, "-m", "gpu_cutover.probes.nvml", *arguments]


def _ask_once(interpreter: str, arguments: list[str], timeout_s: float) -> dict[str, Any]:
    """Run one short child. A child that cannot even be killed is left behind rather than waited for."""
    try:
        child = subprocess.Popen(
            _command(interpreter, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return {"error": f"{interpreter}: {error.strerror}"}
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return {"error": f"NVML did not answer within {timeout_s:g} s"}
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        return {"error": f"the NVML reader failed: {(err.strip().splitlines() or ['no output'])[-1]}"}
    return answer


def read_once(interpreter: str = AGENT_PYTHON, timeout_s: float = 10.0) -> dict[str, Any]:
    """One reading of all GPUs; `{"t", "error"}` when NVML does not answer within `timeout_s` seconds. Never raises."""
    return {"t": time.time()} | _ask_once(interpreter, ["--once"], timeout_s)


class Reader:
    """A child that stays: one answer per question, Xid events in between kept. Not for several threads at once."""

    def __init__(self, interpreter: str = sys.executable) -> None:
        self._interpreter = interpreter
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def read(self, timeout_s: float) -> dict[str, Any]:
        """The next reading; `{"t", "error"}` after `timeout_s` seconds, and the child is replaced. Never raises.

        `hung` is true in the reading that took too long.
        """
        return self._ask(b"", timeout_s)

    def set_limit(self, uuid: str, watts: float, timeout_s: float) -> str | None:
        """Cap one board's power in watts; the reason when it did not work. Never raises."""
        answer = self._ask(f"limit {uuid} {watts * 1000:.0f}".encode(), timeout_s)
        problem = answer.get("refused") or answer.get("error")
        return None if problem is None else str(problem)

    def wait(self, seconds: float) -> None:
        """Until `seconds` have passed or the child saw an Xid, whichever comes first."""
        if self._child is None or self._child.stdout is None:
            time.sleep(max(0.0, seconds))
            return
        if NUDGE not in self._buffer and select.select([self._child.stdout], [], [], max(0.0, seconds))[0]:
            self._buffer += os.read(self._child.stdout.fileno(), 65536)
        self._buffer = b""  # nothing was asked, so whatever is here is a nudge (or the end, which the next read tells)

    def _ask(self, question: bytes, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._exchange(question, timeout_s)
        except OSError as error:
            self.close()
            return {"t": time.time(), "error": f"the NVML reader cannot be asked: {error}"}
        if line is None:
            self.close()
            return {"t": time.time(), "error": f"NVML did not answer within {timeout_s:g} s", "hung": True}
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.close()
            return {"t": time.time(), "error": "the NVML reader ended without an answer"}
        if "error" in answer:
            self.close()
        return answer

    def _exchange(self, question: bytes, timeout_s: float) -> bytes | None:
        """One question, one line; b"" when the child ended, None when time ran out."""
        if self._child is None:
            self._child = subprocess.Popen(
                _command(self._interpreter, "--serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._buffer = b""
        stdin, stdout = self._child.stdin, self._child.stdout
        if stdin is None or stdout is None:
            return b""
        os.write(stdin.fileno(), question + b"\n")
        deadline = time.monotonic() + timeout_s
        while True:
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([stdout], [], [], left)[0]:
                    return None
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    return b""
                self._buffer += chunk
            line, _, self._buffer = self._buffer.partition(b"\n")
            if line != NUDGE:
                return line

    def close(self) -> None:
        """End the child. One that hangs in the kernel is killed and not waited for."""
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.5)


if __name__ == "__main__":
    sys.exit(main())
