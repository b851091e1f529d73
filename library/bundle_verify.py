#!/usr/bin/python
"""Ansible module: the offline bundle is there, read-only and unaltered."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.bundle.manifest import MANIFEST, sha256_of, verify
from ansible.module_utils.gpu_cutover.errors import InputError
from ansible.module_utils.gpu_cutover.probes.bundle import describe

DOCUMENTATION = r"""
module: bundle_verify
short_description: The offline bundle is there, read-only and unaltered
description:
  - Checks every file of the bundle against C(SHA256SUMS) and that the mount is read-only. Changes nothing.
  - Fails naming the first file that is missing, altered or not listed, before anything is installed from it.
  - In check mode a bundle that is not mounted yet is reported and does not fail.
author: gpu-cutover
options:
  path:
    description: Where the bundle is mounted.
    type: path
    default: /srv/bundle
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Verify the bundle
  bundle_verify:
  register: bundle_reading_bundle
"""

RETURN = r"""
reading:
  description: files (how many), digest (of SHA256SUMS), read_only.
  type: dict
  returned: always
apt_current:
  description: Whether apt's list of the bundle's packages is the present one.
  type: bool
  returned: when the bundle is mounted
wrong_input:
  description: True where a file is missing, altered or not listed. The run then ends with exit code 2.
  type: bool
  returned: on such a failure
"""


def main() -> None:
    """Arguments in, one reading out."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "default": "/srv/bundle"}}, supports_check_mode=True)
    root = Path(module.params["path"])
    found = describe(root)
    try:
        files = verify(root)
    except InputError as error:
        if module.check_mode and not (root / MANIFEST).exists():
            module.exit_json(changed=False, apt_current=False, reading={"error": f"not mounted yet: {error}"})
        module.fail_json(msg=str(error), wrong_input=True, reading={"error": str(error)})
    if not found["read_only"]:
        problem = f"{root} is not mounted read-only: a host could alter what others install"
        module.fail_json(msg=f"{problem}. Fix: mount it with the option ro", reading={"error": problem})
    module.exit_json(
        changed=False,
        apt_current=found["apt_current"],
        reading={"files": files, "digest": sha256_of(root / MANIFEST), "read_only": True},
    )


if __name__ == "__main__":
    main()
