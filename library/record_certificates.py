#!/usr/bin/python
"""Documentation of the action plugin of the same name (plugins/action/record_certificates.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_certificates
short_description: Record which certificates were given out and which ended
description:
  - Appends to the ledger what the register of the site's authority says and no record tells yet, by serial number.
    Nothing is appended when there is nothing new. No key and no certificate is recorded.
  - It runs on the controller, asks no host and never reports a change. In check mode nothing is recorded.
author: gpu-cutover
options:
  gateways:
    description: The gateways whose edges took it up.
    type: list
    elements: str
    required: true
  reason:
    description: Why, for the record.
    type: str
    default: ordered
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: What was given out and what ended is recorded
  record_certificates:
    gateways: "{{ ansible_play_hosts }}"
  run_once: true
"""

RETURN = r"""
file:
  description: Name of the new record; none without news.
  type: str
  returned: success
"""
