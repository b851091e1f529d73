"""Day 1's reading: one machine with all its parts, from its firmware, its driver (if there is one) and its BMC."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .dmi import read_dmi
from .gpus import count_on_bus, read_gpus
from .redfish import read_bmc
from .tools import run_tool

NVME_TIMEOUT_S = 10.0

Source = Callable[[], dict[str, Any]]


def read_machine(bmc_url: str, user: str = "", password: str = "", ca_file: str = "") -> dict[str, Any]:
    """All parts. Each source that did not answer is named in `errors`; its parts are then missing, never empty."""
    sources: dict[str, Source] = {
        "dmi": read_dmi,
        "gpus": read_gpus,
        "nvme": read_nvme,
        "bmc": lambda: read_bmc(bmc_url, user, password, ca_file),
    }
    with ThreadPoolExecutor(max_workers=len(sources)) as pool:
        running = {name: pool.submit(source) for name, source in sources.items()}
        answers = {name: future.result() for name, future in running.items()}
    return merge(answers, count_on_bus())


def read_nvme() -> dict[str, Any]:
    """{nvme: [...]} from the nvme tool, or {error}."""
    answer = run_tool(["nvme", "list", "-o", "json"], NVME_TIMEOUT_S)
    return {"error": answer.error} if answer.error else parse_nvme(answer.stdout)


def parse_nvme(text: str) -> dict[str, Any]:
    """Drives with decimal gigabytes; {error} for anything that is not nvme-cli's list."""
    try:
        devices = json.loads(text or "{}").get("Devices") or []
        drives = [
            {
                "model": str(device["ModelNumber"]).strip(),
                "serial": str(device["SerialNumber"]).strip(),
                "gb": round(int(device["PhysicalSize"]) / 1e9),
            }
            for device in devices
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"nvme: unexpected answer ({error!r})"}
    return {"nvme": drives}


def merge(answers: dict[str, dict[str, Any]], gpus_on_bus: int) -> dict[str, Any]:
    """One machine out of its sources. GPUs: the driver's word, else the BMC's; drives: the kernel's, else the BMC's."""
    errors = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
    dmi, bmc = answers["dmi"], answers["bmc"]
    machine: dict[str, Any] = {
        name: dmi[name] for name in ("system", "firmware", "cpus", "dimms", "memory_gib") if name in dmi
    }
    machine |= {name: bmc[name] for name in ("psus", "nics", "power_w") if bmc.get(name) not in (None, [])}
    drives = [drive for drive in bmc.get("drives", []) if drive.get("protocol") in (None, "NVMe")]
    machine |= _first("gpus", ("the driver", answers["gpus"].get("gpus")), ("the BMC", bmc.get("gpus")))
    machine |= _first("nvme", ("the kernel", answers["nvme"].get("nvme")), ("the BMC", drives))
    machine["gpus_on_bus"] = gpus_on_bus
    machine["errors"] = errors
    return machine


def _first(name: str, *offers: tuple[str, list[dict[str, Any]] | None]) -> dict[str, Any]:
    for source, parts in offers:
        if parts:
            return {name: parts, f"{name}_source": source}
    return {}
