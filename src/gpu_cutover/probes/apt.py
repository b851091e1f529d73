"""Which packages apt may not change: `apt-mark hold`."""

from __future__ import annotations

from collections.abc import Sequence

from .driver import read_packages
from .tools import run_tool

TIMEOUT_S = 30.0


def not_held(packages: Sequence[str]) -> tuple[list[str], str]:
    """Those of `packages` that are not on hold (one that is not installed cannot be), or [] and the reason."""
    found = read_packages(packages)
    if "error" in found:
        return [], str(found["error"])
    return [name for name in packages if name not in found or not found[name]["held"]], ""


def hold(packages: Sequence[str]) -> str:
    """Hold them; "" or the reason why not."""
    return run_tool(["apt-mark", "hold", *packages], TIMEOUT_S).error
