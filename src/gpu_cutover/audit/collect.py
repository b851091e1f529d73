"""`audit collect`: copies of the logs, over Ansible's own SSH; the newest checkpoints go to the ledger first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import Refused
from ..runs.days import checkout_of
from . import store

PLAYBOOK = Path("playbooks/parts/collect_logs.yml")
TIMEOUT_S = 3600


def collect(site_dir: Path) -> list[str]:
    """Fetch what is new and take it in. Returns what is wrong with what came. Raises Refused with Ansible's words.

    Needs no run of its own: the site's lock stays free, so an auditor can collect while a day is watching a tenant.
    """
    checkout = checkout_of(site_dir)
    incoming = site_dir / store.FOLDER / store.INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(mode=0o700, parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as variables:
        json.dump({"audit_have": store.digests(site_dir), "audit_incoming": str(incoming.resolve())}, variables)
        variables.flush()
        done = subprocess.run(
            [_ansible_playbook(), "-i", str(site_dir), "-e", f"@{variables.name}", str(checkout / PLAYBOOK)],
            cwd=checkout,
            env=_environment(checkout),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Refused(f"the logs could not be collected; what was collected before is as it was\n{said}")
    wrong = [store.take_in(site_dir, host, name, path) for host, name, path in [*store.incoming(site_dir)]]
    shutil.rmtree(incoming)
    return [words for words in wrong if words]


def _ansible_playbook() -> str:
    return str(Path(sys.executable).with_name("ansible-playbook"))


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"), "ANSIBLE_NOCOLOR": "True"}
