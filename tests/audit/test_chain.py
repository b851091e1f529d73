"""Whatever is done to a log's bytes or lines shows; and what only the controller's checkpoints can show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_cutover.router import log_key
from gpu_cutover.router.chain import Finding, Walk

from .logs import checkpoints, damage, new_log, public, record, rewritten, walk

LINES = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("log")
    log = new_log(folder)
    for number in range(LINES):
        log.add(record(number))
        log.flush()
    log.close()
    return log.path, log.path.read_bytes()


def with_bytes(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return damage(path)


def test_a_whole_log_is_whole_and_signed_to_its_last_line(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    path.write_bytes(content)
    found = walk(path)
    assert found.findings == []
    assert found.lines == content.count(b"\n") == found.signed + 1  # the last line is the checkpoint itself


def test_no_byte_can_be_changed(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    lines = content.splitlines(keepends=True)
    unseen = []
    for index in (0, 1, 2, 3, len(lines) - 3, len(lines) - 2, len(lines) - 1):  # every kind of line, all of its bytes
        for position in range(len(lines[index])):
            changed = bytearray(lines[index])
            changed[position] ^= 1
            if not broken_in_memory(path, b"".join([*lines[:index], changed, *lines[index + 1 :]])):
                unseen.append((index, position))
    assert unseen == []


def broken_in_memory(path: Path, content: bytes) -> list[Finding]:
    found = Walk(log_key.verifies, frozenset([public(path.parent)]))
    found.follow(path.name, io.BytesIO(content))
    return [finding for finding in found.findings if finding.level == "broken"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_can_be_set_removed_or_added(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    position = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.binary(min_size=0, max_size=3))
    length = data.draw(st.integers(0, 3))
    changed = content[:position] + value + content[position + length :]
    assert bool(with_bytes(path, changed)) == (changed != content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_line_can_be_dropped_moved_or_doubled(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    lines = content.splitlines(keepends=True)
    kept = _kept(whole)
    order = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=len(lines) + 2))
    if order == list(range(len(lines))):
        return
    path.write_bytes(b"".join(lines[index] for index in order))
    assert damage(path, kept) or _lacks_the_end(path, kept)


def _kept(whole: tuple[Path, bytes]) -> dict[int, str]:
    path, content = whole
    path.write_bytes(content)
    return checkpoints(path)


def _lacks_the_end(path: Path, kept: dict[int, str]) -> bool:
    """A log that is only shorter: `audit verify` sees that a kept checkpoint was not reached (test_verify)."""
    found = walk(path, kept)
    return found.at is not None and found.at.n < max(kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:9] + lines[10:], "lines were removed, added or moved"),
        (lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]], "lines were removed, added or moved"),
        (lambda lines: [*lines[:9], b'{"t":1,"tenant":"x"}\n', *lines[9:]], "changed or added"),
        (lambda lines: [*lines[:9], lines[9].replace(b"onprem", b"cloud "), *lines[10:]], "was changed"),
        (lambda lines: [*lines[:-1], lines[-1][:-5]], "cut off"),
        (lambda lines: lines[3:], "not the first line of a file"),
    ],
    ids=["dropped", "swapped", "added", "changed", "torn", "head removed"],
)
def test_the_finding_names_the_line_and_the_reason(whole: tuple[Path, bytes], change: Any, words: str) -> None:
    path, content = whole
    found = with_bytes(path, b"".join(change(content.splitlines(keepends=True))))
    assert words in found[0]
    assert "requests-hybrid.jsonl:" in found[0]


def test_a_log_rewritten_and_signed_again_shows_only_against_the_kept_checkpoints(whole: tuple[Path, bytes]) -> None:
    path, content = whole
    path.write_bytes(content)
    kept = checkpoints(path)

    def hide(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**line, "leg": "onprem"} if line.get("request_id") == "r7" else line for line in lines]

    def reveal(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**line, "leg": "cloud"} if line.get("request_id") == "r7" else line for line in lines]

    rewritten(path, hide)
    assert damage(path, kept) == []  # nothing was changed: the forger's tool reproduces the log exactly
    rewritten(path, reveal)
    assert damage(path) == []  # the gateway's own key signs whatever its holder wants …
    assert "not the one that the controller's checkpoint speaks of" in damage(path, kept)[0]  # … the controller knows


def test_a_checkpoint_of_another_key_is_no_signature(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    path, content = whole
    (tmp_path / path.name).write_bytes(content)
    new_log(tmp_path)  # another key
    assert "which this log does not have" in damage(tmp_path / path.name)[0]
