#!/usr/bin/python
"""Ansible module: one machine with all its parts."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes.machine import read_machine

DOCUMENTATION = r"""
module: machine_facts
short_description: One machine with all its parts
description:
  - Reads the firmware (dmidecode), the driver if there is one (nvidia-smi), the drives (nvme) and the management
    controller (Redfish), all at once, each with a hard time-out. Changes nothing.
  - A source that does not answer is named in the reading's C(errors); its parts are missing then, never empty.
author: gpu-cutover
options:
  bmc:
    description: Address of the management controller, C(https://host).
    type: str
    required: true
extends_documentation_fragment: [bmc]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read the machine
  machine_facts:
    bmc: https://bmc-gpu1.clinic.test
  register: hardware_reading_machine
"""

RETURN = r"""
reading:
  description: System, processors, memory in GiB, GPUs, drives in GB, adapters in Gbit/s, supplies and power in W.
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments in, one reading out."""
    module = AnsibleModule(
        argument_spec={
            "bmc": {"type": "str", "required": True},
            "bmc_user": {"type": "str", "default": ""},
            "bmc_password": {"type": "str", "default": "", "no_log": True},
            "bmc_ca": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    reading = read_machine(given["bmc"], given["bmc_user"], given["bmc_password"], given["bmc_ca"])
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
