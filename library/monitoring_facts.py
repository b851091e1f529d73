#!/usr/bin/python
"""Ansible module: is everything scraped that should be, and are the rules loaded?"""

from __future__ import annotations

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_cutover.probes import monitoring

DOCUMENTATION = r"""
module: monitoring_facts
short_description: Is everything scraped that should be, and are the rules loaded?
description:
  - Asks Prometheus for its targets, rules and Alertmanagers; waits at most O(wait) seconds until all is as expected.
author: gpu-cutover
options:
  url:
    description: Prometheus.
    type: str
    default: http://127.0.0.1:9090
  expected:
    description: Targets as C("job instance").
    type: list
    elements: str
    required: true
  rules:
    description: Names of the alerting rules that were shipped.
    type: list
    elements: str
    required: true
  rules_sha256:
    description: Digest of the rule file that was shipped.
    type: str
    required: true
  wait:
    description: Seconds to wait; a target that was just added needs a scrape or two.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Everything is scraped
  monitoring_facts:
    expected: ["guard 10.0.0.1:9401"]
    rules: [TargetDown]
    rules_sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  register: reading_monitoring
"""

RETURN = r"""
reading:
  description: >-
    C(expected, up, down, unknown, rules, rules_missing, rules_foreign, rules_broken, rules_shipped, rules_taken_up,
    alertmanagers, certificate_days), or C(error).
  type: dict
  returned: always
"""


def main() -> None:
    """Arguments, one reading."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:9090"},
            "expected": {"type": "list", "elements": "str", "required": True},
            "rules": {"type": "list", "elements": "str", "required": True},
            "rules_sha256": {"type": "str", "required": True},
            "wait": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    deadline = time.monotonic() + (0.0 if module.check_mode else params["wait"])
    while True:
        reading = monitoring.reading(params["url"], params["expected"], params["rules"], params["rules_sha256"])
        if monitoring.complete(reading) or time.monotonic() >= deadline:
            module.exit_json(changed=False, reading=reading)
            return
        time.sleep(0.5)


if __name__ == "__main__":
    main()
