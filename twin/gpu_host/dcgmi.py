#!/usr/bin/python3
"""A stand-in for DCGM's command line over the simulated GPUs.

Imitates: `discovery -l`, `--version`, `diag -r 1..4 -j` with DCGM 4's JSON layout (test names of each level,
results per
GPU). A lost GPU, an uncorrectable error, a pending remap or a thermal slowdown fails its test.
Does NOT imitate: the tests' work and duration (it answers at once), policies, health watches, groups, the host engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path[:0] = ["/usr/local/lib/twin", str(Path(__file__).resolve().parent.parent / "shared")]
import state  # noqa: E402

VERSION = "4.4.1"
LEVELS = {
    1: ["software"],
    2: ["software", "memory", "pcie"],
    3: [
        "software",
        "memory",
        "pcie",
        "diagnostic",
        "nvbandwidth",
        "nccl_tests",
        "memory_bandwidth",
        "targeted_stress",
        "targeted_power",
    ],
    4: [
        "software",
        "memory",
        "pcie",
        "diagnostic",
        "nvbandwidth",
        "nccl_tests",
        "memory_bandwidth",
        "targeted_stress",
        "targeted_power",
        "memtest",
        "pulse_test",
    ],
}


def problem(everything: dict[str, str], index: int, test: str) -> str | None:
    """Why a test fails on a GPU, or None."""
    if state.is_lost(everything, index):
        return "GPU is lost"
    if test in ("software", "memory") and int(state.of_gpu(everything, index, "ecc.dbe.vol")):
        return "uncorrectable memory error"
    if test == "software" and int(state.of_gpu(everything, index, "remap.pending")):
        return "a row remap is pending"
    if (
        test in ("diagnostic", "targeted_stress", "targeted_power")
        and int(state.of_gpu(everything, index, "reasons"), 0) & 0x68
    ):
        return "thermal violation"
    return None


def diagnose(everything: dict[str, str], level: int) -> tuple[dict[str, object], bool]:
    """The report of one level and whether all passed."""
    tests, good = [], True
    for name in LEVELS[level]:
        results = []
        for index in range(state.count(everything)):
            trouble = problem(everything, index, name)
            good = good and trouble is None
            result: dict[str, object] = {
                "entity_group": "GPU",
                "entity_group_id": 1,
                "entity_id": index,
                "status": "Fail" if trouble else "Pass",
            }
            if trouble:
                result["warnings"] = [{"error_id": 1, "warning": trouble}]
            results.append(result)
        status = "Fail" if any(result["status"] == "Fail" for result in results) else "Pass"
        tests.append({"name": name, "results": results, "test_summary": {"status": status}})
    category = {"category": "Deployment" if level == 1 else "Hardware", "tests": tests}
    entities = [
        {
            "entity_id": index,
            "device_id": state.of_gpu(everything, index, "pci_device"),
            "serial_num": state.of_gpu(everything, index, "serial"),
        }
        for index in range(state.count(everything))
    ]
    report = {
        "DCGM Diagnostic": {"test_categories": [category]},
        "entity_groups": [{"entity_group": "GPU", "entity_group_id": 1, "entities": entities}],
        "metadata": {"DCGM Version": VERSION, "Driver Version Detected": everything.get("driver", "")},
    }
    return report, good


def main() -> int:
    """Parse and answer."""
    parser = argparse.ArgumentParser(prog="dcgmi", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="version", version=f"dcgmi  version: {VERSION}")
    actions = parser.add_subparsers(dest="action", required=True)
    discovery = actions.add_parser("discovery")
    discovery.add_argument("-l", "--list", action="store_true")
    diag = actions.add_parser("diag")
    diag.add_argument("-r", "--run", type=int, choices=LEVELS, required=True)
    diag.add_argument("-j", "--json", action="store_true")
    options = parser.parse_args()
    everything = state.read()
    if not everything:
        print("Error: unable to establish a connection to the specified host: localhost", file=sys.stderr)
        return 1
    if options.action == "discovery":
        print(f"{state.count(everything)} GPUs found.")
        for index in range(state.count(everything)):
            print(
                f"| {index} | Name: {state.of_gpu(everything, index, 'name')} "
                f"| UUID: {state.of_gpu(everything, index, 'uuid')} |"
            )
        return 0
    report, good = diagnose(everything, options.run)
    print(json.dumps(report, indent=2))
    return 0 if good else 226


if __name__ == "__main__":
    sys.exit(main())
