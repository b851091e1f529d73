"""Xid codes: what NVIDIA's catalogue asks for, and which of them speak of hardware.

Source: NVIDIA, "Analyzing Xid errors: Xid catalog" (docs.nvidia.com/deploy/xid-errors), immediate action per code.
"""

from __future__ import annotations

# Immediate action by code. A code that is not here is treated as a hardware error: unknown is not harmless.
ACTION = {
    13: "RESTART_APP",
    31: "RESTART_APP",
    32: "RESTART_APP",
    38: "IGNORE",
    43: "IGNORE",
    44: "IGNORE",
    45: "FOLLOW_OTHER",
    46: "RESET_GPU",
    48: "WORKFLOW_XID_48",
    54: "CHECK_MECHANICALS",
    62: "RESET_GPU",
    63: "IGNORE",
    64: "RESET_GPU",
    69: "RESTART_APP",
    74: "WORKFLOW_NVLINK_ERR",
    79: "RESTART_BM",
    92: "IGNORE",
    94: "RESTART_APP",
    95: "RESET_GPU",
    109: "RESET_GPU",
    110: "RESET_GPU",
    119: "RESET_GPU",
    120: "RESET_GPU",
    136: "RESET_GPU",
    137: "IGNORE",
    140: "RESET_GPU",
    143: "RESET_GPU",
    154: "XID_154",
    156: "RESET_GPU",
    157: "IGNORE",
    158: "RESET_GPU",
    171: "WORKFLOW_XID_48",
    172: "WORKFLOW_XID_48",
}

CONTAINED = 94  # contained memory error
RECOVERY_CHANGED = 154  # NVML's recovery action says to what

# Caused by an application or only informational: the GPU itself may go on. 154 is judged by the
# recovery action that NVML reports.
_SOFT_ACTIONS = frozenset({"RESTART_APP", "IGNORE", "FOLLOW_OTHER", "XID_154"})
# A remapped row, a high rate of corrected errors and a contained error do not stop a GPU in service, but a machine that
# shows them in its burn-in is not accepted.
_ACCEPTANCE_ONLY = frozenset({63, 92, 94, 157})


# What the catalogue answers with IGNORE and yet "contact support", or with a restart of the application and a reset
# at convenience: service goes on, a person is told.
_TOLD = frozenset({63, 92, 94, 157})


def is_hardware(code: int, contained_errors: bool = True) -> bool:
    """True when a GPU with this Xid must leave service.

    `contained_errors`: whether the board confines an uncorrectable error to the application that met it (GA100 and
    GH100 do, AD10x does not); where it does not, 94 is no different from 95.
    """
    if code == CONTAINED and not contained_errors:
        return True
    return ACTION.get(code, "UNKNOWN") not in _SOFT_ACTIONS


def needs_a_person(code: int) -> bool:
    """True when the GPU may go on and somebody should know."""
    return code in _TOLD


def fails_acceptance(code: int) -> bool:
    """True when a burn-in with this Xid is not passed."""
    return is_hardware(code) or code in _ACCEPTANCE_ONLY
