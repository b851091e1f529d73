#!/usr/bin/python
"""Documentation of the action plugin of the same name (plugins/action/record_changes.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_changes
short_description: Record route changes that the gateways' journals tell
description:
  - Appends to the ledger every change of routes that a gateway's journal tells and the ledger does not yet, whoever
    made it. One change on several gateways is one record.
  - It runs on the controller, asks no host and never reports a change. In check mode nothing is recorded.
author: gpu-cutover
options:
  changes:
    description: C({gateway: changes}) as the module C(route_table) returned them.
    type: dict
    required: true
  refused:
    description: What could not be done, as sentences. When there are any, the run ends as refused after recording.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: The changes are recorded
  record_changes:
    changes: "{{ {inventory_hostname: cutover_back.changes} }}"
  run_once: true
"""

RETURN = r"""
files:
  description: Names of the new records.
  type: list
  returned: success
recorded:
  description: Of O(changes), the names of those that the ledger tells now, for the module C(route_table).
  type: list
  returned: success
"""
