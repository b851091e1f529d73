"""Any byte changed anywhere in the ledger is found, and the file is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_cutover.evidence.audit import broken, verify
from gpu_cutover.evidence.command import _verify
from gpu_cutover.evidence.ledger import Ledger


def new_site(folder: Path, records: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(folder, clock=lambda: datetime(2026, 12, 24, tzinfo=UTC), by="t")
    for number in range(1, records + 1):
        attachments = [{"name": "curve", "content": [1, 2]}] if number == 2 else []
        ledger.append("gate", f"day{number:02d}", {"day": number, "verdict": "promote", "checks": []}, attachments)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_site(tmp_path_factory.mktemp("ledger") / "site")


@pytest.fixture
def site(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "site"))


def ledger_files(site: Path) -> list[Path]:
    return sorted(path for path in (site / "evidence").rglob("*") if path.is_file())


def test_a_whole_ledger_has_no_findings(site: Path) -> None:
    assert verify(site) == []
    assert len(ledger_files(site)) == 6


def test_every_single_changed_byte_is_found_and_named(site: Path) -> None:
    shutil.rmtree(site / ".state")  # an auditor has the evidence alone
    for path in ledger_files(site):
        original = path.read_bytes()
        for place in range(len(original)):
            changed = bytearray(original)
            changed[place] ^= 0x01
            path.write_bytes(changed)
            names = {finding.file.split("/")[-1] for finding in broken(verify(site))}
            assert path.name in names, f"byte {place} of {path.name}"
        path.write_bytes(original)
    assert verify(site) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.integers(0, 5), place=st.integers(0, 10_000), insert=st.binary(max_size=3), cut=st.integers(0, 3))
def test_any_edit_of_any_file_is_found(whole: Path, choice: int, place: int, insert: bytes, cut: int) -> None:
    path = ledger_files(whole)[choice]
    original = path.read_bytes()
    at = place % (len(original) + 1)
    edited = original[:at] + insert + original[at + cut :]
    try:
        path.write_bytes(edited)
        assert bool(broken(verify(whole))) == (edited != original)
    finally:
        path.write_bytes(original)


def swap(first: str, second: str) -> Callable[[Path], None]:
    def change(evidence: Path) -> None:
        a, b = evidence / first, evidence / second
        (evidence / "x").write_bytes(a.read_bytes())
        a.write_bytes(b.read_bytes())
        b.write_bytes((evidence / "x").read_bytes())
        (evidence / "x").unlink()

    return change


ONE, TWO, THREE = (f"00000{n}-gate-day0{n}.json" for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: (e / ONE).unlink(), TWO),
        (lambda e: (e / TWO).unlink(), THREE),
        (lambda e: (e / THREE).unlink(), "head.json"),
        (lambda e: [path.unlink() for path in e.glob("0*")], "head.json"),
        (lambda e: (e / "head.json").unlink(), "head.json"),
        (lambda e: (e / "ledger.pub").unlink(), "ledger.pub"),
        (lambda e: [path.unlink() for path in (e / "attachments").iterdir()], "attachments/"),
        (swap(ONE, TWO), ONE),
        (lambda e: (e / TWO).rename(e / "000002-gate-day09.json"), "000002-gate-day09.json"),
        (lambda e: shutil.copy(e / THREE, e / "000004-gate-day03.json"), "000004-gate-day03.json"),
        (lambda e: (e / "note.txt").write_text("hello"), "note.txt"),
        (lambda e: (e / "attachments" / "more.json").write_text("{}"), "attachments/more.json"),
        (lambda e: (e / THREE).write_bytes((e / THREE).read_bytes()[:100]), THREE),
        (lambda e: (e / "head.json").write_bytes(b""), "head.json"),
    ],
    ids=[
        "first deleted", "middle deleted", "last deleted", "all deleted", "head deleted", "key deleted",
        "attachment deleted", "reordered", "renamed", "copied", "stranger", "extra attachment",
        "truncated", "empty head",
    ],
)  # fmt: skip
def test_deleted_reordered_truncated_and_extra_files_are_found(
    site: Path, change: Callable[[Path], object], named: str
) -> None:
    shutil.rmtree(site / ".state")
    change(site / "evidence")
    assert any(finding.file.startswith(named) for finding in broken(verify(site))), verify(site)


def test_the_newest_record_removed_with_an_old_head_put_back_is_found_where_it_was_written(site: Path) -> None:
    old_head = (site / "evidence/head.json").read_bytes()
    Ledger.open(site).append("gate", "day04", {"day": 4})
    (site / "evidence/000004-gate-day04.json").unlink()
    (site / "evidence/head.json").write_bytes(old_head)
    assert [finding.message for finding in broken(verify(site))] == [
        "3 records, but this controller has written 4: some were removed"
    ]


def test_a_ledger_removed_altogether_is_found_where_it_was_written(site: Path) -> None:
    shutil.rmtree(site / "evidence")
    assert broken(verify(site))


def test_a_whole_other_ledger_in_its_place_is_found_where_the_key_is(site: Path, tmp_path: Path) -> None:
    other = new_site(tmp_path / "other")
    shutil.rmtree(site / "evidence")
    shutil.copytree(other / "evidence", site / "evidence")
    assert [finding.file for finding in broken(verify(site))] == ["ledger.pub"]


def test_exit_codes_and_words_of_the_command(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify(site, as_json=False) == 0
    assert "3 records: whole and unchanged" in capsys.readouterr().out
    (site / "evidence" / TWO).write_bytes(b"{}")
    assert _verify(site, as_json=False) == 20
    assert TWO in capsys.readouterr().out
