#!/usr/bin/python
"""Ansible module: collective bandwidth between the GPUs."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes.nccl import read_all_reduce

DOCUMENTATION = r"""
module: nccl_check
short_description: Collective bandwidth between the GPUs
description:
  - Runs NVIDIA's all_reduce_perf over the given number of GPUs and reads its JSON report. Changes nothing.
  - In check mode nothing is run, because the test loads every GPU, and the reading says so.
author: gpu-cutover
options:
  binary:
    description: The test's program.
    type: str
    default: all_reduce_perf
  gpus:
    description: How many GPUs take part.
    type: int
    required: true
  largest:
    description: Largest message, as the tool takes it.
    type: str
    default: 8G
  iterations:
    description: Measured rounds per size.
    type: int
    default: 20
  timeout:
    description: Seconds after which the test is given up.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Measure the all-reduce over all GPUs
  nccl_check:
    gpus: 4
  register: nccl_check_reading_nccl
"""

RETURN = r"""
reading:
  description: gpus, bytes of the largest message, busbw_gb_s at it, wrong values over all sizes.
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments in, one reading out."""
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "str", "default": "all_reduce_perf"},
            "gpus": {"type": "int", "required": True},
            "largest": {"type": "str", "default": "8G"},
            "iterations": {"type": "int", "default": 20},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False, reading={"error": "not run in a dry run: it loads every GPU"})
    reading = read_all_reduce(given["binary"], given["gpus"], given["largest"], given["iterations"], given["timeout"])
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
