"""Ties a process to its parent's life: a killed controller leaves no Ansible behind that goes on changing hosts."""

from __future__ import annotations

import ctypes
import os
import signal

PARENT_VARIABLE = "GPU_CUTOVER_CONTROLLER_PID"
_PR_SET_PDEATHSIG = 1


def die_with_parent(expected_parent: int) -> bool:
    """Ask the kernel for SIGTERM when the parent dies. False when it is dead already (the caller must stop itself)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == expected_parent


def tie_to_controller() -> bool:
    """Tie to the controller named in the environment, if any, and later forks to this process. False: it is dead."""
    expected = os.environ.get(PARENT_VARIABLE, "")
    if expected.isdecimal() and not die_with_parent(int(expected)):
        return False
    own = os.getpid()
    os.register_at_fork(after_in_child=lambda: _tie_child(own))
    return True


def _tie_child(parent: int) -> None:
    if not die_with_parent(parent):
        os._exit(1)
