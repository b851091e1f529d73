"""A small checkout with a site whose hosts are this machine: real Ansible, the real callback, no SSH."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# An action that returns what it is given: stands where the project's `gate` and `open_day` stand.
ANSWER = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return dict(self._task.args)
"""


@dataclass(frozen=True)
class Lab:
    """A checkout, and the site in it."""

    checkout: Path
    site_dir: Path

    def playbook(self, name: str, text: str) -> Path:
        """Write a playbook and return its path."""
        path = self.checkout / "playbooks" / f"{name}.yml"
        path.write_text(textwrap.dedent(text))
        return path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    checkout = tmp_path / "checkout"
    site_dir = checkout / "inventory" / "lab"
    for folder in ("playbooks", "plugins/action", "inventory/lab/group_vars/all"):
        (checkout / folder).mkdir(parents=True)
    (checkout / "plugins" / "callback").symlink_to(ROOT / "plugins" / "callback")
    (checkout / "plugins" / "action" / "answer.py").write_text(ANSWER)
    settings = (ROOT / "ansible.cfg").read_text().replace("host_group_vars,site", "host_group_vars")
    (checkout / "ansible.cfg").write_text(settings)
    (site_dir / "group_vars" / "all" / "site.yml").write_text("site: {name: lab}\n")
    (site_dir / "hosts.yml").write_text(
        textwrap.dedent(
            """
            all:
              vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
              children:
                gpu: {hosts: {gpu1: }}
                gateway: {hosts: {gw1: }}
                monitor: {hosts: {mon1: }}
            """
        )
    )
    return Lab(checkout, site_dir)
