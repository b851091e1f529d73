"""`audit verify`: everything that can be done to a gateway's logs, seen from the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.audit import store
from gpu_cutover.evidence.ledger import Ledger

from .conftest import AuditedSite
from .logs import record, rewritten


def written(site: AuditedSite, count: int = 20, start: int = 0, host: str = "gw1", **settings: int) -> Path:
    """A log with so many more records, properly closed."""
    log = site.log(host, **settings)
    for number in range(start, start + count):
        log.add(record(number))
        log.flush()
    log.close()
    return log.path


def test_a_log_is_whole_and_held_against_the_ledger(site: AuditedSite) -> None:
    written(site)
    site.keep()
    assert site.bring() == []
    (one,) = site.prove().logs
    assert site.broken() == site.notes() == []
    assert (one.first, one.lines, one.anchored, one.compared) == (1, one.last, one.last - 1, 1)


def test_it_grows_and_its_copy_grows_with_it(site: AuditedSite) -> None:
    for start in (0, 20, 40):
        written(site, start=start, max_bytes=12_000)
        site.keep()
        assert site.bring() == []
    (one,) = site.prove().logs
    assert site.broken() == []
    assert one.compared == 3
    assert len(store.copies(site.directory, one.log)) > 2


def test_a_log_rewritten_and_signed_again_with_the_gateways_own_key(site: AuditedSite) -> None:
    path = written(site)
    site.keep()

    def to_the_cloud(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**line, "leg": "cloud"} if line.get("request_id") == "r3" else line for line in lines]

    rewritten(path, to_the_cloud)
    assert site.bring() == []  # the first copy that is collected: nothing to compare it with …
    assert any("not the one that the controller's checkpoint speaks of" in words for words in site.broken())


def test_without_a_kept_checkpoint_the_rewritten_log_is_only_told_to_be_unproven(site: AuditedSite) -> None:
    path = written(site)
    rewritten(path, lambda lines: [line for line in lines if line.get("request_id") != "r3"])
    site.bring()
    assert site.broken() == []
    assert any("the controller keeps no checkpoint of it" in words for words in site.notes())


def test_a_log_rewritten_after_it_was_collected_contradicts_its_copy(site: AuditedSite) -> None:
    path = written(site)
    site.keep()
    site.bring()
    rewritten(path, lambda lines: [line for line in lines if line.get("request_id") != "r3"])
    assert "no longer says what it said" in site.bring()[0]
    assert any("contradicts the copy" in words for words in site.broken())


def test_a_cut_end_is_missed_by_its_length(site: AuditedSite) -> None:
    path = written(site)
    site.keep()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10]))
    site.bring()
    assert any("ends at line 10" in words and "lines are missing" in words for words in site.broken())


def test_a_removed_beginning_is_explained_by_retention_or_by_nothing(site: AuditedSite) -> None:
    path = written(site, 60, max_bytes=6_000, keep=3)
    site.keep()
    site.bring()
    assert site.broken() == []
    assert any("by the declared retention" in words for words in site.notes())
    (log,) = store.logs(site.directory)
    store.copies(site.directory, log)[0].unlink()
    assert any("does not explain" in words for words in site.broken())
    assert path.exists()


def test_a_log_that_is_gone_shows_until_a_named_person_accepts_it(site: AuditedSite) -> None:
    path = written(site)
    site.keep()
    (known,) = known_logs(site)
    path.unlink()
    written(site)  # a new disk: a new log of the same name
    site.keep()
    site.bring()
    assert any("no copy, and the controller keeps a checkpoint" in words for words in site.broken())
    accepted = {**known, "by": "Dr Lee", "reason": "disk lost"}
    Ledger.open(site.directory).append("checkpoint", "accepted", {"accepted": accepted})
    assert site.broken() == []
    assert any("accepted by Dr Lee: disk lost" in words for words in site.notes())


def known_logs(site: AuditedSite) -> list[dict[str, Any]]:
    kept = [one.data["gw1"]["requests-hybrid"] for one in Ledger.open(site.directory).records()]
    return [{"host": "gw1", "name": "requests-hybrid", "log": one["log"], "covers": one["covers"]} for one in kept]


def test_another_key_or_another_pools_log_is_no_proof(site: AuditedSite) -> None:
    written(site)
    site.keep()
    for file in (site.folder("gw1") / "keys").iterdir():
        file.unlink()
    written(site, start=20)  # somebody made a new key and the log went on
    site.keep()
    site.bring()
    words = site.broken()
    assert any("shows another key than the first time" in one for one in words)
    assert any("which this log does not have" in one for one in words)


def test_a_gateway_of_which_nothing_was_collected_is_named(site: AuditedSite) -> None:
    written(site)
    site.keep()
    site.bring()
    words = [str(finding) for finding in site.prove(("gw1", "gw2")).broken]
    assert words == ["broken: gw2: is a gateway of this site and nothing of it was collected"]


def test_a_damaged_ledger_proves_nothing(site: AuditedSite) -> None:
    written(site)
    site.keep()
    site.bring()
    (statement,) = (site.directory / "evidence").glob("000001-*")
    statement.write_bytes(statement.read_bytes().replace(b"a", b"b", 1))
    assert any("evidence/000001-checkpoint" in words for words in site.broken())


def test_a_killed_writer_and_a_torn_end_are_notes_with_their_time(site: AuditedSite) -> None:
    log = site.log()
    log.add(record(1))
    log.flush()  # and never closed
    with log.path.open("ab") as handle:
        handle.write(b'{"t":17')
    written(site, start=5)
    site.keep()
    site.bring()
    assert site.broken() == []
    notes = site.notes()
    assert any("ended without a word" in words for words in notes)
    assert any("a torn end of 7 bytes was set aside" in words for words in notes)
    assert [hole.lost for hole in site.prove().logs[0].holes] == [None]


def test_a_copy_of_a_growing_file_that_ends_within_a_line_is_cut_to_whole_lines(site: AuditedSite) -> None:
    path = written(site)
    site.keep()
    path.write_bytes(path.read_bytes() + b'{"t":1795300000.0,"requ')
    assert site.bring() == []
    assert site.broken() == []


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"t":1}\n' * 5], ids=["empty", "zeros", "another file"])
def test_what_is_no_log_is_kept_aside_and_told(site: AuditedSite, content: bytes) -> None:
    path = written(site)
    site.keep()
    path.write_bytes(content)
    assert "has no first line of a log" in site.bring()[0]
    assert site.broken()


def test_the_statement_in_the_ledger_holds_no_content(site: AuditedSite) -> None:
    written(site)
    site.keep()
    (statement,) = Ledger.open(site.directory).records()
    checkpoint = statement.data["gw1"]["requests-hybrid"]
    assert set(checkpoint) >= {"log", "name", "t", "covers", "head", "key", "sig", "public"}
    assert "doc-zam" not in json.dumps(dict(statement.data))
