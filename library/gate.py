#!/usr/bin/python
"""Documentation of the action plugin of the same name (plugins/action/gate.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Judge what a day's roles read and record the verdict
description:
  - Collects every variable C(reading_*) of every host of the groups gpu, gateway and monitor and calls the day's checks
    with the site's plan, its hosts and its records.
  - A missing reading is an unproven check. Any failed check makes the verdict fail, else any unproven one makes it
    hold.
  - The verdict is appended to the site's signed ledger. It never changes a host, so it never reports a change.
  - Anything but promote fails the task and lists the checks with their figures and limits.
  - In check mode it predicts the verdict, records nothing and does not fail.
author: gpu-cutover
options:
  day:
    description: The day to close, 1 to 10.
    type: int
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Judge what was read and record the verdict
  gate:
    day: 3
  run_once: true
"""

RETURN = r"""
gate_verdict:
  description: promote, hold or fail. Absent when the verdict could not be recorded.
  type: str
  returned: when judged
msg:
  description: The verdict and every check with its figure and limit, the failed and unproven ones first.
  type: str
  returned: always
"""
