"""Gives every host of a site directory `site` (validated) and `site_plan` (derived)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.vars import BaseVarsPlugin

from gpu_cutover.errors import InputError

DOCUMENTATION = """
name: site
short_description: The validated site and everything it implies
version_added: "0.1.0"
author: gpu-cutover
description:
  - For an inventory that is a site directory (it has C(group_vars/all/site.yml)), gives the group C(all) two variables.
    C(site) is what is declared there, validated, with defaults filled in; C(site_plan) is what follows from it.
  - Reads the site once per run. Other inventories are left alone.
  - A wrong site stops Ansible with the same message as C(gpu-cutover site check).
  - With E(TARGETS=plan) restated targets are ignored, so that gates judge the plan as written.
requirements:
  - enabled in configuration (C(vars_plugins_enabled = host_group_vars,site)), after C(host_group_vars)
  - the package gpu_cutover with its controller requirements
options:
  stage:
    ini:
      - key: stage
        section: vars_site
    env:
      - name: ANSIBLE_VARS_PLUGIN_STAGE
extends_documentation_fragment:
  - vars_plugin_staging
"""

SITE_FILE = Path("group_vars/all/site.yml")


@cache
def variables(directory: Path) -> dict[str, Any]:
    """`site` and `site_plan` of a directory, nothing for a directory that is not a site. Raises InputError."""
    if not (directory / SITE_FILE).is_file():
        return {}
    from gpu_cutover.planning.derive import derive
    from gpu_cutover.site import load_site

    site = load_site(directory)
    return {"site": site.declared(), "site_plan": derive(site)}


class VarsModule(BaseVarsPlugin):
    """Ansible asks once per inventory source and per play directory, for each group and host."""

    REQUIRES_ENABLED = True
    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:
        """Variables for the group `all`; nothing for any other group or host."""
        super().get_vars(loader, path, entities)
        asked = entities if isinstance(entities, list) else [entities]
        if not any(getattr(entity, "name", None) == "all" for entity in asked):
            return {}
        try:
            return variables(Path(path).resolve())
        except InputError as error:
            raise AnsibleParserError(f"the site is wrong: {error}") from None
