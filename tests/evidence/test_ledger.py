"""The ledger records whole, in order, and once; what it may not hold it refuses."""

from __future__ import annotations

import json
import math
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.errors import InputError, Refused
from gpu_cutover.evidence import ledger as ledger_module
from gpu_cutover.evidence.audit import broken, verify
from gpu_cutover.evidence.files import locked
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.evidence.records import NO_RECORD, attachment_path, read_status, sha256

NOON = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path, clock=lambda: NOON, by="tester")


def gate(day: int, verdict: str = "promote") -> dict[str, Any]:
    return {"day": day, "verdict": verdict, "checks": []}


def test_records_come_back_as_they_were_appended(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.append("gate", "day01", gate(1))
    second = ledger.append("waiver", "day02", {"day": 2}, [{"name": "curve", "content": [1, 2.5, "ü"]}])
    assert ledger.records() == [first, second] == read_status(tmp_path)
    assert [record.file for record in ledger.records()] == ["000001-gate-day01.json", "000002-waiver-day02.json"]
    assert (first.sequence, first.previous, first.time, first.by) == (
        1,
        NO_RECORD,
        "2026-12-24T12:00:00.000Z",
        "tester",
    )
    assert second.previous == sha256((tmp_path / "evidence" / first.file).read_bytes())
    assert second.attachments[0].name == "curve"
    assert json.loads(attachment_path(tmp_path, second.attachments[0].sha256).read_text()) == [1, 2.5, "ü"]
    assert verify(tmp_path) == []


def test_the_private_key_is_for_its_owner_alone(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("gate", "day01", gate(1))
    assert stat.S_IMODE((tmp_path / ".state/ledger.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".state").stat().st_mode) == 0o700


def test_a_private_key_open_to_others_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("gate", "day01", gate(1))
    (tmp_path / ".state/ledger.key").chmod(0o640)
    with pytest.raises(InputError, match="open to others"):
        ledger.append("gate", "day02", gate(2))


def test_a_lost_private_key_is_never_replaced_in_silence(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("gate", "day01", gate(1))
    (tmp_path / ".state/ledger.key").unlink()
    with pytest.raises(InputError, match="nothing can be added"):
        ledger.append("gate", "day02", gate(2))
    assert verify(tmp_path) == []


def test_nothing_is_added_to_a_damaged_ledger(ledger: Ledger, tmp_path: Path) -> None:
    record = ledger.append("gate", "day01", gate(1))
    path = tmp_path / "evidence" / record.file
    path.write_bytes(path.read_bytes().replace(b"payload", b"Payload", 1))
    with pytest.raises(Refused, match="000001-gate-day01"):
        ledger.append("gate", "day02", gate(2))


@pytest.mark.parametrize("key", ["prompt", "answer", "api_key", "transcript"])
def test_content_and_secrets_are_refused_at_any_depth(ledger: Ledger, tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match="digest"):
        ledger.append("gate", "day08", {"samples": [{"inner": {key: "x"}}]})
    assert read_status(tmp_path) == []


@pytest.mark.parametrize("data", [{"figure": math.nan}, {"figure": object()}, {"figure": {1, 2}}])
def test_what_json_cannot_say_is_refused(ledger: Ledger, data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be recorded"):
        ledger.append("gate", "day01", data)


@pytest.mark.parametrize(("kind", "name"), [("gossip", "day01"), ("gate", "../day01"), ("gate", ""), ("gate", "Day 1")])
def test_unknown_kinds_and_unfit_names_are_refused(ledger: Ledger, kind: str, name: str) -> None:
    with pytest.raises(InputError):
        ledger.append(kind, name, {})


@pytest.mark.parametrize("writes_before_the_crash", range(6))
def test_a_crash_between_any_two_writes_is_explained_and_finished(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes_before_the_crash: int
) -> None:
    """A first append writes public key, attachment, …; a later one attachment, record, head, memory."""
    first_append_crashes = writes_before_the_crash < 2
    if not first_append_crashes:
        ledger.append("gate", "day01", gate(1))
    real, calls = ledger_module.write_whole, []

    def write(path: Path, content: bytes, mode: int = 0o644) -> None:
        if len(calls) == writes_before_the_crash - (0 if first_append_crashes else 2):
            raise KeyboardInterrupt
        calls.append(path)
        real(path, content, mode)

    monkeypatch.setattr(ledger_module, "write_whole", write)
    with pytest.raises(KeyboardInterrupt):
        ledger.append("gate", "day02", gate(2), [{"name": "a", "content": [1]}])
    monkeypatch.setattr(ledger_module, "write_whole", real)
    assert broken(verify(tmp_path)) == []
    before = len(read_status(tmp_path))
    ledger.append("gate", "day03", gate(3), [{"name": "a", "content": [1]}])
    assert verify(tmp_path) == []
    assert len(read_status(tmp_path)) == before + 1


def test_a_crash_between_record_and_head_is_named(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.append("gate", "day01", gate(1))
    head = (tmp_path / "evidence/head.json").read_bytes()
    ledger.append("gate", "day02", gate(2))
    (tmp_path / "evidence/head.json").write_bytes(head)
    (tmp_path / ".state/ledger.seen").write_text("1\n")
    [finding] = verify(tmp_path)
    assert (finding.level, finding.file) == ("note", "head.json")
    assert "000002-gate-day02.json" in finding.message


def test_temporary_files_of_a_crash_are_noted_and_removed(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("gate", "day01", gate(1))
    leftover = tmp_path / "evidence/.000002-gate-day02.json.tmp"
    leftover.write_text("half")
    assert [finding.level for finding in verify(tmp_path)] == ["note"]
    ledger.append("gate", "day02", gate(2))
    assert not leftover.exists()
    assert verify(tmp_path) == []


def test_two_writers_never_take_the_same_number(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        for turn in range(5):
            Ledger.open(tmp_path, clock=lambda: NOON).append("drill", f"w{worker}-{turn}", {"turn": turn})

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [record.sequence for record in read_status(tmp_path)] == list(range(1, 16))
    assert verify(tmp_path) == []


def test_a_held_lock_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    moments = iter(range(100))
    impatient = locked(tmp_path / "lock", 3, now=lambda: next(moments), sleep=lambda _: None)
    with locked(tmp_path / "lock"), pytest.raises(Refused, match="lock"), impatient:
        pytest.fail("two holders of one lock")


def test_an_unwritable_site_is_reported_by_name(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, mode: int = 0o644) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(ledger_module, "write_whole", full)
    (tmp_path / ".state").mkdir(mode=0o700)
    with pytest.raises(InputError, match="No space left"):
        ledger.append("gate", "day01", gate(1), [{"name": "a", "content": 1}])


def test_a_missing_site_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        Ledger.open(tmp_path / "nowhere")


def test_reading_the_status_loads_no_cryptography(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("gate", "day01", gate(1))
    program = (
        "import sys; from gpu_cutover.evidence.records import read_status; from gpu_cutover.evidence import days\n"
        f"assert len(read_status({str(tmp_path)!r})) == 1\n"
        "print([m for m in sys.modules if m.startswith(('cryptography', 'securesystemslib', 'ansible', 'pydantic'))])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_file_that_is_no_record_is_named_by_status(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/000001-gate-day01.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="000001-gate-day01"):
        read_status(tmp_path)
