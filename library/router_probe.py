#!/usr/bin/python
"""Ansible module: what the routers of a gateway say of themselves, and whether the seal holds."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.router import probing, seal

DOCUMENTATION = r"""
module: router_probe
short_description: Health of a gateway's routers, and whether the seal holds
description:
  - Reads C(/health) of each router.
  - Tries, as each sealed user, to reach an address that is not allowed and sees that the kernel refused and counted it.
author: gpu-cutover
options:
  ports:
    description: C({pool: {metrics: port}}).
    type: dict
    required: true
  sealed_users:
    description: Users that must not get out.
    type: list
    elements: str
    default: [router-sealed]
  seal_target:
    description: A routable address that the sealed users may not reach.
    type: str
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Health of both routers, and the seal
  router_probe:
    ports: {hybrid: {metrics: 9402}, sealed: {metrics: 9403}}
    seal_target: 10.87.0.1
  register: reading_router
"""

RETURN = r"""
reading:
  description: C(pools) with each router's health or C(error); C(seal) with C(loaded) and C(refused) by user.
  type: dict
  returned: always
"""


def _health(port: int) -> dict[str, Any]:
    try:
        return dict(probing.get_json(f"http://127.0.0.1:{port}/health"))
    except (OSError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Arguments, two questions, one reading."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "dict", "required": True},
            "sealed_users": {"type": "list", "elements": "str", "default": ["router-sealed"]},
            "seal_target": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    pools = {pool: _health(int(ports["metrics"])) for pool, ports in params["ports"].items()}
    sealed = {user: seal.reading(user, params["seal_target"]) for user in params["sealed_users"]}
    module.exit_json(changed=False, reading={"pools": pools, "seal": sealed})


if __name__ == "__main__":
    main()
