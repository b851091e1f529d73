#!/usr/bin/python
"""Documentation of the action plugin of the same name (plugins/action/open_day.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: open_day
short_description: Refuse a day whose day before is neither promoted nor waived
description:
  - Reads the site's ledger on the controller. A day may start when the latest gate of the day before says promote, or
    when a waiver for it still holds. Day 1 may always start, and a promoted day may run again.
  - A refused day fails here, before any host is touched, with the reason and the two ways on.
  - In check mode it warns instead of refusing.
author: gpu-cutover
options:
  day:
    description: The day that is about to start, 1 to 10.
    type: int
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Ask the ledger
  open_day:
    day: 3
  register: day_opened
"""

RETURN = r"""
started:
  description: When the day was opened, UTC in ISO 8601. The gate records it.
  type: str
  returned: always
refused:
  description: True when the day may not start.
  type: bool
  returned: when refused
wrong_input:
  description: True when the ledger cannot be read. The run then ends with exit code 2.
  type: bool
  returned: on failure
"""
