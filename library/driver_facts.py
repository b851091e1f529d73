#!/usr/bin/python
"""Ansible module: which driver is installed, which one runs, and what DCGM says."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes.driver import read_driver

DOCUMENTATION = r"""
module: driver_facts
short_description: Which driver is installed, which one runs, and what DCGM says
description:
  - Reads the packages' versions and holds (dpkg), the running driver and its GPUs (nvidia-smi), nouveau, and, with a
    level, the DCGM diagnostic. Each tool has a hard time-out. Changes nothing.
author: gpu-cutover
options:
  packages:
    description: Packages to look for.
    type: list
    elements: str
    required: true
  dcgm_level:
    description: Level of the DCGM diagnostic, 1 to 4; 0 runs none.
    type: int
    default: 0
  dcgm_timeout:
    description: Seconds after which the diagnostic is given up.
    type: int
    default: 600
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read the driver and let DCGM judge the boards
  driver_facts:
    packages: [nvidia-open-580, nvidia-persistenced]
    dcgm_level: 2
  register: nvidia_driver_reading_driver
"""

RETURN = r"""
reading:
  description: Packages with version and hold, loaded (the running version), gpus, nouveau, dcgm.
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments in, one reading out."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "dcgm_level": {"type": "int", "default": 0},
            "dcgm_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    given = module.params
    reading = read_driver(given["packages"], given["dcgm_level"], given["dcgm_timeout"])
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
