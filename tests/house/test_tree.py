"""What may not stand anywhere in the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INDEX_ADDRESS = re.compile(
    r"(extra-)?index-url[ =]+\S*//|registry *= *.?https?:|\"resolved\": \"https?:|files\.python" r"hosted|pypi\.o" r"rg"
)
SILENCED = re.compile(r"ignore_errors: *(true|yes)|# *noqa: *$|pytest\.mark\.skip\b")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [INDEX_ADDRESS, SILENCED], ids=["package index address", "silenced check"])
def test_the_tree_is_free_of(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}" for m in pattern.finditer(text)]
    assert found == []


def test_every_playbook_starts_with_a_sentence_that_says_what_it_does() -> None:
    playbooks = sorted((ROOT / "playbooks").glob("*.yml"))
    assert playbooks
    assert [p.name for p in playbooks if not p.read_text().startswith("# ")] == []
