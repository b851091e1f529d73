"""Documentation shared by the modules that ask a management controller."""

from __future__ import annotations


class ModuleDocFragment:
    """Who asks, and whom to trust; the address itself is each module's own."""

    DOCUMENTATION = r"""
options:
  bmc_user:
    description: User of the management controller; empty for none.
    type: str
    default: ""
  bmc_password:
    description: That user's password.
    type: str
    default: ""
  bmc_ca:
    description: File with the authority that signed the controller's certificate; empty for the system's authorities.
    type: str
    default: ""
"""
