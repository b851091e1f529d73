#!/usr/bin/python
"""Documentation of the action plugin of the same name (plugins/action/record.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Append one record to the site's ledger
description:
  - Writes one signed statement on the controller. It never changes a host, so it never reports a change.
  - Refuses content and secrets (keys such as prompt, answer, transcript, password); only digests of them may be
    recorded.
  - In check mode nothing is recorded.
author: gpu-cutover
options:
  kind:
    description: What happened.
    type: str
    required: true
    choices: [gate, waiver, cutover, rollback, derate, restore, drill, watch, hold, checkpoint, certificates]
  name:
    description: Names the record's file. Small letters, digits, dots, underscores and hyphens.
    type: str
    required: true
  data:
    description: What is recorded, plain JSON data without content of requests or answers.
    type: dict
    required: true
  attachments:
    description: Larger data that the record speaks for, each with C(name) and C(content), stored by digest.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Record the rollback
  record:
    kind: rollback
    name: doc-zam
    data: {tenant: doc-zam, to: cloud, started: "2026-12-30T10:00:00Z", finished: "2026-12-30T10:00:01Z"}
  run_once: true
"""

RETURN = r"""
sequence:
  description: The record's number; null in check mode.
  type: int
  returned: success
file:
  description: The record's file name in the site's evidence directory; null in check mode.
  type: str
  returned: success
"""
