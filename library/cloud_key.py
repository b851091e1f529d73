"""Documentation of the action plugin cloud_key (plugins/action/cloud_key.py)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_key
short_description: The cloud providers' keys are on the controller
description:
  - Checks C(SITE/.state/cloud_api_key) on the controller, mode 0600, one C(NAME=value) line per provider.
  - A rehearsal that has none gets stand-in keys, which only the stand-in cloud accepts. A production site without keys
    is refused, with what to do.
  - Returns where the file is, never what is in it.
author: gpu-cutover
options:
  variables:
    description: Names of the keys.
    type: list
    elements: str
    required: true
  stage:
    description: Stage of the site, V(twin) or V(production).
    type: str
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: The cloud's keys
  cloud_key:
    variables: [OPENAI_API_KEY]
    stage: "{{ site_plan.stage }}"
"""

RETURN = r"""
path:
  description: The file on the controller.
  type: str
  returned: always
"""
