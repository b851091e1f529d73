"""What a finished run means: the exit code, and the sentences a person needs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import EXIT_DONE, EXIT_ERROR, EXIT_FAIL, EXIT_HOLD, EXIT_USAGE
from .eta import ago
from .record import Result, Run, epoch

_BY_VERDICT = {"promote": EXIT_DONE, "hold": EXIT_HOLD, "fail": EXIT_FAIL}

# What OpenSSH says, what it means, and what to do: the first match is told.
_UNREACHABLE: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("host identification has changed", "host key verification failed"),
        "its SSH host key is not the one this site knows",
        "if {host} was reinstalled on purpose, replace its line in the known_hosts file named in "
        "{site}/group_vars/all/connection.yml; if not, stop: somebody else answers at its address",
    ),
    (
        ("could not resolve", "name or service not known"),
        "its name has no address",
        "set ansible_host for {host} in {site}/hosts.yml",
    ),
    (
        ("permission denied",),
        "SSH refused the key",
        "put the site's public key into {host}'s authorized_keys (see {site}/group_vars/all/connection.yml)",
    ),
)


def exit_code(run: Run) -> int:
    """0 promote or done, 10 hold or refused, 20 fail, 2 wrong input or no such host before anything changed, else 30.

    A dry run that went through is done, whatever it predicts: nothing was judged.
    """
    result = run.result
    if result is None:
        return EXIT_ERROR
    if result.state in ("unreachable", "wrong_input"):
        return EXIT_USAGE if result.changed == 0 else EXIT_ERROR
    if result.state == "refused":
        return EXIT_HOLD
    if result.state != "done":
        return EXIT_ERROR
    if run.check or run.day is None:
        return EXIT_DONE
    return _BY_VERDICT.get(result.verdict or "", EXIT_ERROR)


def unreachable_help(host: str, message: str, site_dir: Path) -> str:
    """One sentence with the fix for a host Ansible could not talk to."""
    lower = message.lower()
    for signs, problem, fix in _UNREACHABLE:
        if any(sign in lower for sign in signs):
            return f"{host}: {problem}. Fix: {fix.format(host=host, site=site_dir)}"
    words = " ".join(message.split()).rpartition("via ssh: ")[2][-200:]
    return (
        f"{host}: cannot be reached ({words}). Fix: see that it runs and that its address in {site_dir}/hosts.yml "
        f"is right; the rehearsal's hosts start with: gpu-cutover twin up -i {site_dir}"
    )


def explain(run: Run, site_dir: Path) -> list[str]:
    """What to tell a person after a run that did not simply promote; one line each."""
    result = run.result or Result(state="interrupted")
    if result.state == "refused":
        return [f"refused: {result.message}"]
    if result.state == "unreachable":
        return [unreachable_help(host, message, site_dir) for host, message in sorted(result.unreachable.items())]
    if result.state == "interrupted":
        return [f"interrupted{_at(run)}; resume with: {_again(run)} -i {site_dir}"]
    if result.verdict:
        return []  # a verdict's checks speak for themselves
    return [_failure(failure) for failure in result.failures]


def interrupted_sentence(run: Run, now_s: float) -> str:
    """`day 4 was interrupted 3 min ago at role litellm, …; run "gpu-cutover day 4" again: it resumes`."""
    what = f"day {run.day}" if run.day else run.name
    when = ago(now_s - epoch(run.finished or run.updated))
    return f"{what} was interrupted {when} ago{_at(run)}; run `{_again(run)}` again: it resumes"


def place(run: Run) -> str:
    """Where a run is or was: "role litellm, task Start LiteLLM, host gw1"."""
    parts = [f"role {run.role}" if run.role else "", f"task {run.task}" if run.task else ""]
    parts.append(f"host {', '.join(run.hosts)}" if run.hosts else "")
    return ", ".join(part for part in parts if part)


def _at(run: Run) -> str:
    return f" at {place(run)}" if place(run) else ""


def _again(run: Run) -> str:
    return f"gpu-cutover day {run.day}" if run.day else f"gpu-cutover play {run.name}"


def _failure(failure: Mapping[str, str]) -> str:
    role = f"role {failure['role']}, " if failure["role"] else ""
    return f"{failure['host']}: {role}task {failure['task']!r} failed: {failure['message']}"
