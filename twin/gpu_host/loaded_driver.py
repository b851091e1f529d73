#!/usr/bin/python3
"""At boot, "load" the installed driver: note its version for the simulated NVML. Only a reboot changes what is loaded.

Does NOT imitate: a kernel module, DKMS builds, Secure Boot, nouveau.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOADED = Path("/var/lib/twin/driver.loaded")


def main() -> int:
    """Write the upstream version of the installed open-module package, or the factory's."""
    branch = os.environ.get("TWIN_DRIVER_BRANCH", "580")
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", f"nvidia-open-{branch}"]
    result = subprocess.run(query, capture_output=True, text=True, check=False)
    status, _, version = result.stdout.partition(" ")
    loaded = version.partition("-")[0] if status == "installed" else os.environ.get("TWIN_FACTORY_DRIVER", "570.195.03")
    LOADED.parent.mkdir(parents=True, exist_ok=True)
    LOADED.write_text(loaded + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
