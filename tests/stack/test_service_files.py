"""A daemon's files and units: written whole, checked first; a restart that an interrupted run owes is not forgotten."""

from __future__ import annotations

import grp
import importlib
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from module_lab import PACKAGE, FailedModuleError, run_module

from gpu_cutover.stack import service

USER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
show) printf 'Id=x.service\\nActiveState=%s\\nUnitFileState=%s\\nNeedDaemonReload=no\\n' $(cat {state}) ;;
list-units) printf 'engine@a.service loaded active running\\n' ;;
start|restart|reload) [ ! -e {root}/broken ] || exit 1; echo active enabled > {state} ;;
esac
"""


class Host:
    """A host with a systemd that remembers what it was asked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log, state = root, root / "log", root / "state"
        state.write_text("inactive disabled\n")
        (root / "bin").mkdir()
        tool = root / "bin" / "systemctl"
        tool.write_text(SYSTEMCTL.format(log=self.log, state=state, root=root))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
        self.file = root / "etc" / "daemon.conf"

    def run(self, content: str, *, check: bool = False, validate: str | None = None, **unit: Any) -> dict[str, Any]:
        self.log.write_text("")
        file = {"path": str(self.file), "content": content, "owner": USER, "group": GROUP, "validate": validate}
        wanted = {"name": "x.service", "depends_on": [str(self.file)], **unit}
        return run_module("service_files", check=check, files=[file], units=[wanted])

    def asked(self) -> list[str]:
        return [
            line.split()[0]
            for line in self.log.read_text().splitlines()
            if line.split()[0] not in ("show", "list-units")
        ]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, monkeypatch)
    monkeypatch.setattr(importlib.import_module(f"{PACKAGE}.stack.service"), "STAMPS", tmp_path / "applied")
    return made


def test_predicted_then_done_then_left_alone(host: Host) -> None:
    predicted = host.run("a", check=True)
    assert (predicted["changed"], predicted["units"]) == (True, {"x.service": "enable and start"})
    assert (host.file.exists(), host.asked()) == (False, [])
    done = host.run("a")
    assert (done["units"], host.asked()) == (predicted["units"], ["enable", "reset-failed", "start"])
    again = host.run("a")
    assert (again["changed"], host.asked()) == (False, [])


def test_a_change_restarts_or_reloads(host: Host) -> None:
    host.run("a")
    assert host.run("b", check=True)["units"] == {"x.service": "restart"}
    assert host.run("b")["units"] == {"x.service": "restart"}
    assert host.run("c", on_change="reload")["units"] == {"x.service": "reload"}


def test_a_restart_that_an_interrupted_run_owes_is_made_up_for(host: Host) -> None:
    host.run("a")
    host.file.write_text("b")  # written, and then the controller was lost
    assert host.run("b")["units"] == {"x.service": "restart"}


def test_a_failed_restart_is_tried_again(host: Host) -> None:
    host.run("a")
    (host.root / "broken").touch()
    with pytest.raises(FailedModuleError, match=r"restart of x\.service"):
        host.run("b")
    (host.root / "broken").unlink()
    assert host.run("b")["units"] == {"x.service": "restart"}


def test_a_file_that_its_checker_refuses_never_replaces_the_old_one(host: Host) -> None:
    host.run("good", validate="grep -q good %s")
    with pytest.raises(FailedModuleError, match="was left as it is; the new one is wrong"):
        host.run("bad", validate="grep -q good %s")
    assert host.file.read_text() == "good"
    assert [entry.name for entry in host.file.parent.iterdir()] == ["daemon.conf"]


def test_a_secret_is_in_no_part_of_the_result(host: Host) -> None:
    secret = {"path": str(host.file), "secret_content": "sk-very-secret", "owner": USER, "group": GROUP, "mode": "0600"}
    result = run_module("service_files", files=[secret])
    assert host.file.read_text() == "sk-very-secret"
    assert host.file.stat().st_mode & 0o777 == 0o600
    assert "sk-very-secret" not in str(result)


def test_a_link_is_replaced_and_not_written_through(host: Host) -> None:
    target = host.root / "elsewhere"
    target.write_text("keep")
    host.file.parent.mkdir()
    host.file.symlink_to(target)
    host.run("a")
    assert (target.read_text(), host.file.is_symlink(), host.file.read_text()) == ("keep", False, "a")


def test_running_instances_are_renewed_and_none_is_started(host: Host) -> None:
    host.run("a", name="engine@*.service")
    host.run("b", name="engine@*.service")
    assert host.asked() == ["reset-failed", "restart"]
    assert host.run("b", name="engine@*.service")["changed"] is False


def test_a_directory_is_copied_whole(host: Host) -> None:
    source, copy = host.root / "bundle", host.root / "srv"
    source.mkdir()
    (source / "a").write_text("1")
    wanted = [{"source": str(source), "path": str(copy)}]
    assert run_module("service_files", check=True, copies=wanted)["changed"] is True
    assert run_module("service_files", copies=wanted)["changed"] is True
    assert run_module("service_files", copies=wanted)["changed"] is False
    (source / "a").rename(source / "b")
    assert run_module("service_files", copies=wanted)["changed"] is True
    assert [entry.name for entry in copy.iterdir()] == ["b"]


def test_a_package_that_is_installed_is_left_alone_and_a_missing_one_predicted() -> None:
    assert run_module("service_files", check=True, packages=["dpkg"])["changed"] is False
    assert run_module("service_files", check=True, packages=["dpkg", "no-such-package-x"])["written"] == [
        "no-such-package-x"
    ]


@pytest.mark.parametrize(
    ("active", "same", "action"),
    [(False, True, "start"), (False, False, "start"), (True, False, "restart"), (True, True, None)],
)
def test_what_a_unit_needs(active: bool, same: bool, action: str | None) -> None:
    assert service.action_for(active, "a", "a" if same else "b", "restart") == action
