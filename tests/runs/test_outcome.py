"""Exit codes and the sentences around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.runs.days import checkout_of, day_playbook, subject_of, verb_playbook
from gpu_cutover.runs.outcome import exit_code, explain, interrupted_sentence, unreachable_help
from gpu_cutover.runs.play_command import parse_variables
from gpu_cutover.runs.record import Result, Run, epoch

SITE = Path("inventory/lab")


def a_run(result: Result | None, day: int | None = 4, check: bool = False) -> Run:
    at = "2026-12-24T10:00:00.000Z"
    return Run(
        "r", "day04_inference_stack", day, check, "ana", 7, at, at, "", "litellm", "Start it", ["gw1"], result=result
    )


@pytest.mark.parametrize(
    ("result", "day", "check", "code"),
    [
        (Result("done", "promote"), 4, False, 0),
        (Result("done", "hold"), 4, False, 10),
        (Result("done", "fail"), 4, False, 20),
        (Result("done", None), 4, False, 30),
        (Result("done", "nonsense"), 4, False, 30),
        (Result("done", "hold"), 4, True, 0),
        (Result("done"), None, False, 0),
        (Result("refused"), 4, False, 10),
        (Result("failed"), 4, False, 30),
        (Result("failed"), 4, True, 30),
        (Result("interrupted"), 4, False, 30),
        (Result("unreachable", changed=0), 4, False, 2),
        (Result("unreachable", changed=1), 4, False, 30),
        (Result("wrong_input", changed=0), 4, False, 2),
        (Result("wrong_input", changed=1), 4, False, 30),
        (None, 4, False, 30),
    ],
)
def test_exit_codes(result: Result | None, day: int | None, check: bool, code: int) -> None:
    assert exit_code(a_run(result, day, check)) == code


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@", "its SSH host key is not the one this site knows"),
        ("No ED25519 host key is known for gw1. Host key verification failed.", "its SSH host key is not the one"),
        ("ssh: Could not resolve hostname gw1: Name or service not known", "its name has no address"),
        ("root@10.0.0.1: Permission denied (publickey).", "SSH refused the key"),
        ("ssh: connect to host 10.0.0.1 port 22: No route to host", "cannot be reached (ssh: connect to host"),
        ("Task failed: Failed to connect to the host via ssh: timed out", "cannot be reached (timed out)"),
    ],
)
def test_an_unreachable_host_is_told_with_its_fix(words: str, told: str) -> None:
    sentence = unreachable_help("gw1", words, SITE)
    assert sentence.startswith("gw1: ")
    assert told in sentence
    assert "Fix: " in sentence


def test_an_interruption_says_where_and_how_to_go_on() -> None:
    run = a_run(None)
    assert interrupted_sentence(run, epoch(run.updated) + 180) == (
        "day 4 was interrupted 3 min ago at role litellm, task Start it, host gw1; "
        "run `gpu-cutover day 4` again: it resumes"
    )
    assert explain(run, SITE) == [
        "interrupted at role litellm, task Start it, host gw1; resume with: gpu-cutover day 4 -i inventory/lab"
    ]


def test_a_failure_names_host_role_and_task() -> None:
    failure = {"host": "gw1", "role": "litellm", "task": "Start it", "message": "no such unit"}
    run = a_run(Result("failed", failures=[failure, {**failure, "role": "", "host": "gw2"}]))
    assert explain(run, SITE) == [
        "gw1: role litellm, task 'Start it' failed: no such unit",
        "gw2: task 'Start it' failed: no such unit",
    ]


@pytest.mark.parametrize(
    "name", ["day00_x.yml", "day11_x.yml", "day3_x.yml", "open_day.yml", "converge.yml", "rollback.txt"]
)
def test_what_is_no_day_and_no_verb(name: str) -> None:
    assert subject_of(Path("playbooks") / name) is None


def test_days_are_found_by_number_and_verbs_by_name(tmp_path: Path) -> None:
    playbooks = tmp_path / "playbooks"
    playbooks.mkdir()
    (tmp_path / "ansible.cfg").touch()
    for name in ("day06_burn_in", "day07_a", "day07_b", "rollback"):
        (playbooks / f"{name}.yml").touch()
    assert checkout_of(tmp_path / "inventory" / "lab") == tmp_path
    assert day_playbook(tmp_path, 6).name == "day06_burn_in.yml"
    assert verb_playbook(tmp_path, "rollback").name == "rollback.yml"
    for wrong in (0, 11, -1, 7, 8):
        with pytest.raises(InputError):
            day_playbook(tmp_path, wrong)
    for name in ("derate", "day06_burn_in", "../rollback"):
        with pytest.raises(InputError):
            verb_playbook(tmp_path, name)


def test_variables_are_key_equals_value() -> None:
    assert parse_variables(["tenant=doc-zam", "reason=a=b c"]) == {"tenant": "doc-zam", "reason": "a=b c"}
    for wrong in (["tenant"], ["=x"], ["tenant="], ["Tenant=x"], ["a=1", "a=2"]):
        with pytest.raises(InputError):
            parse_variables(wrong)


def test_a_verdict_is_explained_by_its_checks_alone() -> None:
    failure = {"host": "gw1", "role": "", "task": "Judge", "message": "says fail"}
    assert explain(a_run(Result("done", "fail", failures=[failure])), SITE) == []
