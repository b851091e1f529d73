"""Day 3: does the pinned driver run, are the boards sound, do the GPUs reach each other fast enough? Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .check import About, Check, equals, number, reading_of, unproven

SKIPPED = frozenset({"skip", "not run", "notrun"})
DCGM = "DCGM diagnostic, level 2"


def checks(plan: Mapping[str, Any], readings: Mapping[str, Any]) -> list[Check]:
    """The gate of day 3 over every GPU host."""
    found: list[Check] = compatibility(plan["driver"])
    for host in plan["hosts"]["gpu"]:
        reading, why = reading_of(readings, "driver", host)
        found += _packages(host, plan["driver"], reading, why)
        found += _running(host, plan, reading, why)
        found += diagnostic(host, plan["tier"]["profile"]["gpu_count"], reading.get("dcgm") or {}, why)
        found += all_reduce(host, plan, *reading_of(readings, "nccl", host))
    return found


def compatibility(driver: Mapping[str, Any]) -> list[Check]:
    """The declared driver and CUDA against the matrix of the catalog."""
    matrix, sources = driver["matrix"], driver["sources"]
    branch = f"branch {driver['branch']}"
    newer = version_key(upstream(driver["version"])) >= version_key(matrix["minimum_version"])
    same_branch = upstream(driver["version"]).split(".")[0] == str(driver["branch"])
    cuda_fits = version_key(driver["cuda"])[0] <= int(matrix["max_cuda_major"])
    return [
        About(None, "site driver").equals(
            "matrix.branch", same_branch, True, f"{driver['version']} belongs to {branch}"
        ),
        About(None, str(sources["minimum_version"])).equals(
            "matrix.minimum", newer, True, f"{driver['version']} is at least {matrix['minimum_version']}"
        ),
        About(None, str(sources["max_cuda_major"])).equals(
            "matrix.cuda", cuda_fits, True, f"CUDA {driver['cuda']} runs on {branch}"
        ),
    ]


def _packages(host: str, driver: Mapping[str, Any], reading: Mapping[str, Any], why: str) -> list[Check]:
    installed = reading.get("packages") or {}
    reason = why or str(installed.get("error", ""))
    wanted = list(driver["packages"])
    packages, version = About(host, "site driver.packages"), About(host, "site driver.version")
    if reason or not installed:
        words = "Pinned packages are installed and held"
        return [unproven("packages.held", packages.source, words, host, reason or "none is installed")]
    absent = [name for name in wanted if name not in installed]
    loose = [name for name in wanted if name in installed and not installed[name]["held"]]
    words = "Pinned packages that are installed and held"
    words += f"; not installed: {', '.join(absent)}" if absent else ""
    words += f"; not held: {', '.join(loose)}" if loose else ""
    main = f"nvidia-open-{driver['branch']}"
    there = (installed.get(main) or {}).get("version")
    return [
        packages.equals("packages.held", len(wanted) - len(absent) - len(loose), len(wanted), words),
        version.equals("driver.installed", there, driver["version"], f"Package {main} is the pinned one"),
    ]


def _running(host: str, plan: Mapping[str, Any], reading: Mapping[str, Any], why: str) -> list[Check]:
    driver, tier = plan["driver"], plan["tier"]
    boards = reading.get("gpus")
    reason = why or str(reading.get("gpus_error", ""))
    persistent = len([board for board in boards if board.get("persistence") == "Enabled"]) if boards else None
    width = _smallest([board.get("pcie_width") for board in boards or []])
    count = tier["profile"]["gpu_count"]
    reboot = "" if driver["reboot_allowed"] else "; a reboot is not allowed by site driver.reboot_allowed"
    words = f"The kernel runs the installed driver{reboot}"
    wanted = upstream(driver["version"])
    board = About(host, f"catalog GPU of tier {tier['name']}", reason)
    kernel = About(host, "vendor's installation guide", why or "the kernel's module list cannot be read")
    return [
        About(host, "site driver.version", reason).equals("driver.loaded", reading.get("loaded"), wanted, words),
        board.equals("gpu.count", len(boards) if boards else None, count, "GPUs that the driver shows"),
        board.equals("gpu.persistence", persistent, count, "GPUs with persistence mode on"),
        board.at_least("gpu.pcie_width", width, tier["gpu"]["pcie_width"], "lanes", "Narrowest PCIe link of a GPU"),
        kernel.equals("nouveau.absent", reading.get("nouveau"), False, "The kernel does not run nouveau"),
    ]


def diagnostic(host: str, gpus: int, dcgm: Mapping[str, Any], why: str) -> list[Check]:
    """One check per DCGM test: passed on every GPU. A test that was skipped has proven nothing."""
    reason = why or str(dcgm.get("error", ""))
    tests = dcgm.get("tests") or {}
    if reason or not tests:
        return [unproven("dcgm", DCGM, "DCGM's diagnostic passes on every GPU", host, reason or "it was not run")]
    return [
        _dcgm_test(host, gpus if test["per_gpu"] else 1, name, test["results"]) for name, test in sorted(tests.items())
    ]


def _dcgm_test(host: str, expected: int, name: str, counts: Mapping[str, int]) -> Check:
    check, words = f"dcgm.{re.sub(r'[^a-z0-9]+', '_', name.lower())}", f"Passes of DCGM's test {name}"
    passed, others = counts.get("pass", 0), {status: count for status, count in counts.items() if status != "pass"}
    limit = max(expected, sum(counts.values()))
    if set(others) <= SKIPPED and passed < limit:
        return unproven(check, DCGM, words, host, f"{passed} passed, {sum(others.values())} were skipped", limit=limit)
    words += "".join(f"; {count} {status}" for status, count in sorted(others.items()))
    return equals(check, passed, limit, "", DCGM, words, host)


def all_reduce(host: str, plan: Mapping[str, Any], reading: Mapping[str, Any], why: str) -> list[Check]:
    """Bus bandwidth between all GPUs against the floor for exactly this count, and no wrong value."""
    gpus = plan["tier"]["profile"]["gpu_count"]
    floor = plan["gates"]["nccl_busbw_min_gb_s"].get(str(gpus))
    sources = plan["tier"]["sources"].get("gpu.busbw_floor_gb_s") or {}
    source = str(sources.get(str(gpus), f"catalog floor for {gpus} GPUs"))
    ran = number(reading.get("gpus"))
    reason = why or ("" if ran == gpus else f"it ran on {ran} GPUs, not on {gpus}")
    figure = reading.get("busbw_gb_s") if ran == gpus else None
    words = f"All-reduce over {gpus} GPUs, bus bandwidth at the largest message"
    checked = About(host, "nccl-tests, #wrong", why or "results were not checked")
    return [
        About(host, source, reason).at_least("nccl.busbw", figure, floor, "GB/s", words),
        checked.equals("nccl.wrong", reading.get("wrong"), 0, "Wrong values in the results of all sizes"),
    ]


def upstream(package_version: str) -> str:
    """`580.105.08` of `580.105.08-1` or `1:580.105.08-0ubuntu1`."""
    return package_version.rpartition(":")[2].partition("-")[0]


def version_key(version: str) -> tuple[int, ...]:
    """Compares as numbers: 580.95.05 < 580.105.08."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _smallest(values: list[Any]) -> float | None:
    known = [number(value) for value in values]
    return min((value for value in known if value is not None), default=None) if None not in known else None
