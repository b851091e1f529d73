"""`gpu-cutover twin …`: the lab's switch-board."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import EXIT_DONE, EXIT_ERROR, InputError
from . import access, base, cgroups, hosts, network, services
from .lab import Host, Lab, load_lab

Say = Callable[[str], None]
DEFAULT_SITE = Path("inventory/twin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of the lab."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str, host: bool = False) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        added.add_argument("-i", "--inventory", type=Path, default=DEFAULT_SITE, metavar="SITE")
        if host:
            added.add_argument("host", metavar="HOST")
        return added

    up = verb("up", "boot the hosts that are not running; says what it does")
    up.add_argument(
        "--suite", default=os.environ.get("TWIN_SUITE"), help=f"of new hosts (default {base.DEFAULT_SUITE})"
    )
    verb("down", "switch everything off and remove every trace of the lab")
    verb("status", "what runs").add_argument("--json", action="store_true")
    shell = verb("shell", "a root shell in a host, or one command, without ssh", host=True)
    shell.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    verb("cut", "pull a host's network cable", host=True)
    verb("heal", "plug a host's network cable in again", host=True)
    verb("crash", "cut a host's power; its disk stays", host=True)
    verb("start", "switch a host on again with its disk", host=True)
    verb("clinics", "before day 8: give the clinics their certificates, so that they begin to send")
    # no prefix character: every word, options too, goes to the faults' own parser, which is imported only then
    fault = verbs.add_parser("fault", help="inject a fault", add_help=False, prefix_chars="\0")
    fault.add_argument("rest", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    """Dispatch; raises InputError for what a person gave us."""
    if args.verb == "fault":
        return _fault(args.rest)
    os.umask(0o022)  # the hosts' disks are made here: their files have the modes of a system, not of a secret
    base.check_machine()
    lab = load_lab(args.inventory)
    if args.verb == "status":
        return _status(lab, args.json)
    if args.verb == "shell":
        return _shell(lab, lab.host(args.host), args.argv)
    if args.verb == "up":
        return _up_from_terminal(lab, _suite(lab, args.suite))
    if args.verb == "clinics":
        return _connect_clinics(lab)
    with locked(lab):
        if args.verb == "down":
            down(lab, say)
        else:
            _on_host(args.verb, lab, lab.host(args.host))
    return EXIT_DONE


def _fault(rest: Sequence[str]) -> int:
    faults = importlib.import_module("gpu_cutover.twin.faults")
    parser = argparse.ArgumentParser(prog="gpu-cutover twin fault")
    faults.add_arguments(parser)
    return int(faults.run(parser.parse_args(rest)))


def say(line: str) -> None:
    """One line of progress for a person."""
    print(line, flush=True)


@contextlib.contextmanager
def locked(lab: Lab) -> Iterator[None]:
    """One command at a time changes a lab; the lock is gone with the process that held it."""
    path = lab.run_directory / "lock"
    while True:
        lab.run_directory.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting: another command is changing lab {lab.name}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            # `down` removes the file it holds: who waited for that one must ask for the new one
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                _check_owner(lab)
                yield
                return


def _check_owner(lab: Lab) -> None:
    """Raise InputError when a lab of this name belongs to another site."""
    owner = _described(lab).get("site")
    if owner and owner != str(lab.site_dir) and cgroups.populated(cgroups.of_lab(lab.name)):
        raise InputError("environment", "TWIN_LAB", f"lab {lab.name} belongs to {owner}", "choose another name")


@contextlib.contextmanager
def interrupt_sets(cancelled: threading.Event) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM only set the event; KeyboardInterrupt follows at the end.

    Raised while a thread is being started, KeyboardInterrupt would lose that thread, and it would boot its host later.
    """
    interrupted: list[int] = []

    def remember(number: int, _frame: object) -> None:
        interrupted.append(number)
        cancelled.set()

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if interrupted:
            raise KeyboardInterrupt


def up(lab: Lab, suite: str, say: Say) -> None:
    """Everything that is not there yet: base system, network, services, hosts in parallel.

    Raises InputError, BootError, KeyboardInterrupt; what was started by then is still there.
    """
    began = time.monotonic()
    if raised := base.allow_inotify_instances():
        say(raised)
    tree = base.ensure_tree(suite)
    lab.directory.mkdir(parents=True, exist_ok=True)
    access.control_sockets(lab).mkdir(parents=True, exist_ok=True, mode=0o700)
    access.ensure_access(lab)
    _describe(lab, suite)
    network.bring_up(lab)
    started = services.start_missing(lab)
    if started:
        say(f"network {lab.gateway}/24, services {', '.join(started)}")
    cancelled = threading.Event()
    with interrupt_sets(cancelled), ThreadPoolExecutor(max_workers=len(lab.hosts)) as pool:
        booting = [pool.submit(_bring_up, lab, host, suite, tree, cancelled) for host in lab.hosts.values()]
        try:
            for future in booting:
                say(future.result())
        finally:
            cancelled.set()  # one that failed: the others need not wait
    say(f"lab {lab.name} is up in {time.monotonic() - began:.1f} s")


def _bring_up(lab: Lab, host: Host, suite: str, tree: Path, cancelled: threading.Event) -> str:
    where = f"{host.name:<8} {host.address:<15}"
    if hosts.is_running(lab, host):
        if hosts.boot_is_current(lab, host):
            hosts.wait_until_ready(lab, host, cancelled)
            return f"{where} already up"
        hosts.stop(lab, host)
        why = "restarted with what changed (bundle, mounts)"
    else:
        why = "booted with its disk" if lab.disk(host.name).exists() else "booted"
    hosts.prepare(lab, host, suite, tree)
    hosts.start(lab, host)
    took_s = hosts.wait_until_ready(lab, host, cancelled)
    return f"{where} {why}, ssh answers after {took_s:.1f} s"


def _describe(lab: Lab, suite: str) -> None:
    bundle = hosts.bundle_of(lab)
    description = {
        "lab": lab.name,
        "site": str(lab.site_dir),
        "suite": suite,
        "domain": lab.domain,
        "gateway": lab.gateway,
        "bundle": str(bundle) if bundle else None,
        "hosts": {host.name: {"address": host.address} for host in lab.hosts.values()},
    }
    for directory in (lab.directory, lab.state_directory):
        (directory / "lab.json").write_text(json.dumps(description, indent=1))


def down(lab: Lab, say: Say) -> None:
    """End and remove everything of the lab by its name, however it came to be; keys in the site's state stay."""
    began = time.monotonic()
    access.close_connections(lab)
    cgroups.kill(cgroups.of_lab(lab.name))
    network.take_down(lab)
    for directory in (lab.directory, lab.run_directory):
        if directory.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=True)
    if _described(lab, lab.state_directory).get("lab") == lab.name:
        (lab.state_directory / "lab.json").unlink()
    say(f"lab {lab.name} is down in {time.monotonic() - began:.1f} s")


def _up_from_terminal(lab: Lab, suite: str) -> int:
    """`up`, taken back when it fails or is interrupted: all of it, or only what this call started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with locked(lab):
        before = {host.name for host in lab.hosts.values() if hosts.is_running(lab, host)}
        try:
            up(lab, suite, say)
        except BaseException as error:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            _take_back(lab, before)
            if not isinstance(error, (KeyboardInterrupt, hosts.BootError, subprocess.CalledProcessError, OSError)):
                raise
            print(f"gpu-cutover: twin up: {str(error) or 'interrupted'}", file=sys.stderr)
            return EXIT_ERROR
    return EXIT_DONE


def _take_back(lab: Lab, before: set[str]) -> None:
    if not before:
        down(lab, say)
        return
    for host in lab.hosts.values():
        if host.name not in before:
            hosts.crash(lab, host)
    say(f"switched off again: {', '.join(sorted(set(lab.hosts) - before)) or 'nothing'}")


def _on_host(verb: str, lab: Lab, host: Host) -> None:
    if not lab.disk(host.name).exists():
        raise InputError(f"lab {lab.name}", host.name, "the lab is not up", "gpu-cutover twin up")
    if verb == "start":
        if not hosts.is_running(lab, host):
            hosts.start(lab, host)
        took_s = hosts.wait_until_ready(lab, host, threading.Event())
        say(f"{host.name} answers after {took_s:.1f} s")
        return
    {"cut": network.cut, "heal": network.heal, "crash": hosts.crash}[verb](lab, host)
    say(f"{host.name}: {verb}")


def _connect_clinics(lab: Lab) -> int:
    """Each clinic gets its certificate and begins to send to the edge."""
    from .standins import deliver_client_certificates  # late: it brings the libraries that make certificates

    say(f"the clinics send: {', '.join(deliver_client_certificates(lab.name, lab.site_dir))}")
    return EXIT_DONE


def _shell(lab: Lab, host: Host, argv: Sequence[str]) -> int:
    command = list(argv[1:] if argv[:1] == ["--"] else argv) or ["/bin/bash", "--login"]
    environment = network.ENVIRONMENT | {"TERM": os.environ.get("TERM", "dumb")}
    return subprocess.run([*network.inside(lab.name, host.name), *command], env=environment, check=False).returncode


def _status(lab: Lab, as_json: bool) -> int:
    states = [hosts.status(lab, host) for host in lab.hosts.values()]
    bundle = hosts.bundle_of(lab)
    suite = _described(lab).get("suite")
    if as_json:
        data = {
            "lab": lab.name,
            "site": str(lab.site_dir),
            "suite": suite,
            "bundle": str(bundle) if bundle else None,
            "hosts": {state.name: dataclasses.asdict(state) for state in states},
        }
        json.dump(data, sys.stdout, indent=1)
        print()
        return EXIT_DONE
    say(f"lab {lab.name} ({suite or 'not up'}), bundle {bundle or 'none yet'}")
    for state in states:
        power = f"up {state.uptime_s:.0f} s" if state.running else "off"
        say(f"{state.name:<8} {state.address:<15} {power}{', cable cut' if state.cut else ''}")
    return EXIT_DONE


def _described(lab: Lab, directory: Path | None = None) -> dict[str, Any]:
    """The lab.json that the last `up` wrote, empty before it."""
    try:
        data: dict[str, Any] = json.loads(((directory or lab.directory) / "lab.json").read_text())
    except (OSError, ValueError):
        return {}
    return data


def _suite(lab: Lab, asked: str | None) -> str:
    """The suite asked for, or the one the lab has; raises InputError when these differ."""
    present = _described(lab).get("suite")
    if asked and present and asked != present:
        raise InputError("--suite", asked, f"lab {lab.name} was made of {present}", "gpu-cutover twin down first")
    return str(asked or present or base.DEFAULT_SUITE)
