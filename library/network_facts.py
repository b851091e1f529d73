#!/usr/bin/python
"""Ansible module: one host's ports, neighbours, names, clock and inlet air."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes.network import read_network

DOCUMENTATION = r"""
module: network_facts
short_description: One host's ports, neighbours, names, clock and inlet air
description:
  - Reads the state of the given ports (sysfs, ethtool), the switch ports they hang on (lldpd), forward and reverse
    names through the given resolver, the offset of the clock (SNTP) and, with a management controller, the inlet
    temperature.
  - Lets netplan judge a configuration in a scratch directory. Changes nothing.
author: gpu-cutover
options:
  ports:
    description: Ports that the cabling drawing names.
    type: list
    elements: str
    required: true
  names:
    description: Names to resolve and the address each must have.
    type: dict
    required: true
  resolver:
    description: Address of the site's resolver.
    type: str
    required: true
  time_servers:
    description: The site's time servers; the first that answers counts.
    type: list
    elements: str
    required: true
  netplan:
    description: The configuration to judge.
    type: str
    required: true
  lldp_wait:
    description: Seconds to wait until every port has heard its switch.
    type: float
    default: 35.0
  bmc:
    description: Address of the management controller; empty for a host without one.
    type: str
    default: ""
extends_documentation_fragment: [bmc]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Read the network as this host sees it
  network_facts:
    ports: [eth0]
    names: {gpu1.clinic.test: 10.87.0.21}
    resolver: 10.87.0.1
    time_servers: [10.87.0.1]
    netplan: "{{ lookup('ansible.builtin.template', 'netplan.yaml.j2') }}"
  register: network_reading_network
"""

RETURN = r"""
reading:
  description: Ports with speed in Gbit/s and neighbour, names, clock with its offset in s, netplan's word, inlet in °C.
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments in, one reading out."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "str", "required": True},
            "names": {"type": "dict", "required": True},
            "resolver": {"type": "str", "required": True},
            "time_servers": {"type": "list", "elements": "str", "required": True},
            "netplan": {"type": "str", "required": True},
            "lldp_wait": {"type": "float", "default": 35.0},
            "bmc": {"type": "str", "default": ""},
            "bmc_user": {"type": "str", "default": ""},
            "bmc_password": {"type": "str", "default": "", "no_log": True},
            "bmc_ca": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    access = {"user": given["bmc_user"], "password": given["bmc_password"], "ca_file": given["bmc_ca"]}
    reading = read_network(
        given["ports"],
        given["names"],
        given["resolver"],
        given["time_servers"],
        {"url": given["bmc"], **access} if given["bmc"] else {},
        0.0 if module.check_mode else given["lldp_wait"],
        given["netplan"],
    )
    module.exit_json(changed=False, reading=reading)


if __name__ == "__main__":
    main()
