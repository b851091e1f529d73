"""The site's certificates, made on the controller. Documented in library/site_pki.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from gpu_cutover.errors import InputError
from gpu_cutover.evidence.ledger import utc_now
from gpu_cutover.evidence.playbook import plain, site_dir_of
from gpu_cutover.pki.authority import Leaf, Wishes, ensure

ARGUMENTS = {
    "site": {"type": "str", "required": True},
    "server": {"type": "str", "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "tenants": {"type": "dict", "required": True},
    "gateways": {"type": "dict", "default": {}},
    "rotate": {"type": "list", "elements": "str", "default": []},
    "retire": {"type": "list", "elements": "str", "default": []},
    "revoke": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """Controller only: no key travels except the ones that the role copies."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(ARGUMENTS)
        given = plain(arguments)
        try:
            directory = site_dir_of(task_vars or {}) / ".state" / "pki"
            server = Leaf(given["server"], tuple(given["names"]))
            wishes = Wishes(*(tuple(given[name]) for name in ("rotate", "retire", "revoke")))
            write = not self._task.check_mode
            made = ensure(
                directory, given["site"], server, given["tenants"], utc_now(), write, given["gateways"], wishes
            )
        except InputError as error:
            result.update(failed=True, msg=str(error))
            return result
        result.update(changed=bool(made.written), written=made.written, ends=made.ends, directory=str(directory))
        return result
