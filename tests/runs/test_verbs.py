"""What a verb may be told, and what it may not."""

from __future__ import annotations

import re

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.runs.play_command import known_of, parse_variables
from gpu_cutover.runs.verbs import VARIABLES, WORDS_MAX, Known, check_variables
from gpu_cutover.site import load_site

from .conftest import ROOT

KNOWN = known_of(load_site(ROOT / "inventory" / "twin"))


def told(verb: str, *pairs: str, known: Known = KNOWN) -> InputError:
    with pytest.raises(InputError) as caught:
        check_variables(verb, parse_variables(list(pairs)), known)
    return caught.value


def test_what_the_site_declares() -> None:
    assert KNOWN.gpu_count == 4
    assert KNOWN.policies["klinik-amanah"] == "sensitive"
    assert {"whisper-large-v3", "llama-3.1-70b-instruct"} <= KNOWN.models


@pytest.mark.parametrize(
    ("verb", "pairs"),
    [
        ("derate", []),
        ("derate", ["gpu=0"]),
        ("derate", ["gpu=3", "cause=fan replaced = 2 h"]),
        ("restore", []),
        ("rollback", ["tenant=doc-zam", "reason=wrong dose in a note"]),
        ("rollback", ["tenant=klinik-harmoni"]),
        ("rollback", ["tenant=klinik-amanah", "accept_off=true"]),
        ("rollback", ["model=whisper-large-v3", "clear=true"]),
        ("rollback", ["model=whisper-large-v3", "all=false"]),
        ("rollback", ["all=true", "accept_off=true"]),
    ],
)
def test_what_a_verb_may_be_told(verb: str, pairs: list[str]) -> None:
    check_variables(verb, parse_variables(pairs), KNOWN)


@pytest.mark.parametrize(
    ("verb", "pairs", "key", "words"),
    [
        ("derate", ["gpus=1"], "-e gpus", "did you mean gpu?"),
        ("derate", ["gpu_guard_gpu=1"], "-e gpu_guard_gpu", "use one of cause, gpu"),
        ("derate", ["tenant=doc-zam"], "-e tenant", "use one of cause, gpu"),
        ("restore", ["gpu=1"], "-e gpu", "leave it out"),
        ("derate", ["gpu=4"], "-e gpu", "0 to 3"),
        ("derate", ["gpu=-1"], "-e gpu", "0 to 3"),
        ("derate", ["gpu=two"], "-e gpu", "0 to 3"),
        ("derate", ["gpu=²"], "-e gpu", "0 to 3"),
        ("derate", ["gpu=" + "1" * 5000], "-e gpu", "0 to 3"),
        ("derate", ["cause={{ 7 * 7 }}"], "-e cause", "plain words"),
        ("rollback", ["all=true", "reason=two\nlines"], "-e reason", "one line"),
        ("rollback", ["all=true", "reason=" + "x" * (WORDS_MAX + 1)], "-e reason", "shorter"),
        ("rollback", ["all=yes"], "-e all", "write all=true"),
        ("rollback", ["all=false"], "-e", "does not say what goes back"),
        ("rollback", ["clear=true"], "-e", "does not say what goes back"),
        ("rollback", ["tenant=doc-zam", "model=bge-m3"], "-e", "tenant and model at once"),
        ("rollback", ["tenant=doc-zam", "clear=true"], "-e clear", "add -e model=NAME"),
        ("rollback", ["tenant=Doc Zam"], "-e tenant", "did you mean doc-zam?"),
        ("rollback", ["model=qwen2.5-72b-instruct"], "-e model", "did you mean qwen2.5-32b-instruct?"),
        ("rollback", ["tenant=klinik-amanah"], "-e tenant", "accept_off=true"),
    ],
)
def test_what_it_may_not(verb: str, pairs: list[str], key: str, words: str) -> None:
    error = told(verb, *pairs)
    assert (error.file, error.key) == ("command line", key)
    assert words in f"{error.problem}. {error.fix}"


@pytest.mark.parametrize("verb", ["derate", "restore", "rollback"])
def test_a_verb_takes_the_variables_that_its_playbook_reads(verb: str) -> None:
    wiring = (ROOT / "playbooks" / "group_vars" / "all" / "gpu_guard.yml").read_text() if verb == "derate" else ""
    text = (ROOT / "playbooks" / f"{verb}.yml").read_text() + wiring
    assert set(re.findall(r"{{ (\w+) \| default\(", text)) == set(VARIABLES[verb])
