"""Day 3's reading: what is installed, what is loaded, and what DCGM says about the boards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .gpus import read_gpus
from .tools import run_tool

DPKG_TIMEOUT_S = 10.0


def read_driver(packages: Sequence[str], dcgm_level: int, dcgm_timeout_s: float) -> dict[str, Any]:
    """Packages, loaded module, persistence, nouveau and DCGM. Parts that could not be read carry their own {error}."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        dcgm = pool.submit(read_dcgm, dcgm_level, dcgm_timeout_s)
        gpus = pool.submit(read_gpus)
        installed = read_packages(packages)
        return {
            "packages": installed,
            **loaded(gpus.result()),
            "nouveau": nouveau_loaded(),
            "dcgm": dcgm.result(),
        }


def read_packages(packages: Sequence[str]) -> dict[str, Any]:
    """{name: {version, held}} of those installed, or {error}."""
    answer = run_tool(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Abbrev}\n", *packages],
        DPKG_TIMEOUT_S,
        ok=(0, 1),
    )
    return {"error": answer.error} if answer.error else parse_packages(answer.stdout)


def parse_packages(text: str) -> dict[str, Any]:
    """The abbreviated status: first letter wanted (h: held), second actual (i: installed)."""
    found = {}
    for line in filter(None, text.splitlines()):
        name, version, status = line.split("\t")
        if status[1] == "i":
            found[name] = {"version": version, "held": status[0] == "h"}
    return found


def loaded(gpus: dict[str, Any]) -> dict[str, Any]:
    """The kernel's driver version and each GPU's state, from nvidia-smi.

    It fails when module and library differ, which a reboot heals; one that hangs says nothing about versions.
    """
    if "error" in gpus:
        return {"gpus_error": gpus["error"], "hung": gpus.get("hung", False)}
    boards = gpus["gpus"]
    versions = sorted({str(board["driver"]) for board in boards})
    return {"loaded": versions[0] if len(versions) == 1 else None, "gpus": boards}


def nouveau_loaded(sysfs: Path = Path("/sys")) -> bool | None:
    """True when the kernel runs nouveau, as a module or built in; None when sysfs shows neither modules nor drivers."""
    lists = [path for path in (sysfs / "module", sysfs / "bus/pci/drivers") if path.is_dir()]
    return any((path / "nouveau").is_dir() for path in lists) if lists else None


def read_dcgm(level: int, timeout_s: float) -> dict[str, Any]:
    """The diagnostic of DCGM at `level`, or {error}. dcgmi ends with a status other than 0 when a test fails."""
    answer = run_tool(["dcgmi", "diag", "-r", str(level), "-j"], timeout_s, ok=range(256))
    return {"error": answer.error} if answer.error else parse_dcgm(answer.stdout)


def parse_dcgm(text: str) -> dict[str, Any]:
    """{tests: {name: {results, per_gpu}}, version}. Both layouts of dcgmi's JSON: up to 3.x and 4.x."""
    try:
        report = _embedded_json(text)
        diagnostic = report.get("DCGM Diagnostic") or report["DCGM GPU Diagnostic"]
        categories = diagnostic["test_categories"]
        tests = {test["name"]: _results(test) for category in categories for test in category["tests"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"dcgmi: unexpected answer ({error!r}): {' '.join(text.split())[:160]}"}
    if not tests:
        return {"error": "dcgmi: it ran no test"}
    return {"tests": tests, "version": str(_version(diagnostic))}


def _embedded_json(text: str) -> Any:
    """dcgmi may print words before its JSON."""
    start = text.find("{")
    if start < 0:
        raise ValueError("no JSON")
    return json.loads(text[start:])


def _results(test: dict[str, Any]) -> dict[str, Any]:
    """{results: {status: count}, per_gpu}. Some software tests have one result for the whole machine."""
    counts: dict[str, int] = {}
    for result in test["results"]:
        status = str(result["status"]).lower()
        if status == "pass" and result.get("warnings"):
            status = "warn"  # DCGM may record an error and still say Pass
        counts[status] = counts.get(status, 0) + 1
    return {"results": counts, "per_gpu": any("gpu_id" in item or "entity_id" in item for item in test["results"])}


def _version(diagnostic: dict[str, Any]) -> Any:
    metadata = diagnostic.get("metadata") or diagnostic.get("Metadata") or {}
    return metadata.get("DCGM Version") or metadata.get("version") or ""
