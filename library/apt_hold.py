#!/usr/bin/python
"""Ansible module: packages that apt may not change."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes.apt import hold, not_held

DOCUMENTATION = r"""
module: apt_hold
short_description: Packages that apt may not change
description:
  - Puts all given packages on hold in one go.
  - In check mode packages that are not installed yet are among those that would be put on hold.
author: gpu-cutover
options:
  packages:
    description: The packages.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Hold the driver
  apt_hold:
    packages: [nvidia-open-580, nvidia-persistenced]
"""

RETURN = r"""
held:
  description: Packages that were (or would be) put on hold by this task.
  type: list
  elements: str
  returned: success
"""


def main() -> None:
    """Arguments in, holds out."""
    module = AnsibleModule(
        argument_spec={"packages": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    loose, reason = not_held(module.params["packages"])
    if not reason and loose and not module.check_mode:
        reason = hold(loose)
    if reason:
        module.fail_json(msg=reason)
    diff = {"before": "", "after": "".join(f"hold {name}\n" for name in loose)}
    module.exit_json(changed=bool(loose), held=loose, diff=diff)


if __name__ == "__main__":
    main()
