"""Run one command inside a control group: `enter.py CGROUP COMMAND…`.

Stand-alone on purpose (run as a file with `python -I -S`): it is the first thing of every process that belongs to a
lab, so that whatever happens afterwards, the process is found and ended by the name of its control group.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Join the control group (writing 0 moves the writer) and become the command."""
    cgroup, *command = arguments
    Path(cgroup, "cgroup.procs").write_text("0")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
