"""Which day may start: only after a gate that promotes, or a waiver that still holds."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.cli import main
from gpu_cutover.errors import InputError
from gpu_cutover.evidence.days import day_states, refusal
from gpu_cutover.evidence.ledger import Ledger, utc_now
from gpu_cutover.evidence.records import NO_RECORD, Record, read_status
from gpu_cutover.evidence.waive_command import day_of, waiver_data

TODAY = date(2026, 12, 26)


def records(*entries: tuple[str, dict[str, Any]]) -> list[Record]:
    return [
        Record(number, kind, "x", "2026-12-24T00:00:00.000Z", "t", NO_RECORD, data, (), "x.json")
        for number, (kind, data) in enumerate(entries, start=1)
    ]


def gate(day: int, verdict: str, *open_checks: str) -> tuple[str, dict[str, Any]]:
    checks = [{"id": name, "status": "fail"} for name in open_checks]
    return "gate", {"day": day, "verdict": verdict, "checks": checks}


def waiver(day: int, until: date) -> tuple[str, dict[str, Any]]:
    return "waiver", {"day": day, "by": "R. Weiss", "reason": "spare part ordered", "until": until.isoformat()}


@pytest.mark.parametrize(
    ("entries", "day", "opens"),
    [
        ([], 1, True),
        ([], 2, False),
        ([gate(1, "promote")], 2, True),
        ([gate(1, "promote")], 3, False),
        ([gate(1, "hold")], 2, False),
        ([gate(1, "fail")], 2, False),
        ([gate(1, "promote"), gate(1, "hold")], 2, False),
        ([gate(1, "hold"), gate(1, "promote")], 2, True),
        ([gate(1, "promote"), gate(2, "promote")], 2, True),
        ([gate(1, "hold"), waiver(1, TODAY)], 2, True),
        ([waiver(1, TODAY), gate(1, "fail")], 2, True),
        ([gate(1, "hold"), waiver(1, TODAY - timedelta(days=1))], 2, False),
        ([gate(1, "hold"), waiver(2, TODAY)], 2, False),
        ([gate(1, "hold"), waiver(1, TODAY), waiver(1, TODAY - timedelta(days=1))], 2, False),
    ],
)
def test_a_day_opens_only_behind_a_promoted_or_waived_one(entries: list[Any], day: int, opens: bool) -> None:
    assert (refusal(records(*entries), day, TODAY) is None) == opens


@pytest.mark.parametrize(("status", "opens"), [("fail", False), ("unproven", True)])
def test_no_waiver_covers_a_critical_difference_that_was_found(status: str, opens: bool) -> None:
    check = {"id": "mirror.chat.critical", "status": status}
    held = ("gate", {"day": 8, "verdict": "fail", "checks": [check]})
    why = refusal(records(held, waiver(8, TODAY)), 9, TODAY)
    assert (why is None) == opens
    assert opens or "cannot be waived" in str(why)


def test_a_refusal_says_which_gate_why_and_how_to_go_on() -> None:
    words = refusal(records(gate(3, "fail", "driver.loaded", "nccl.busbw")), 4, TODAY)
    assert words is not None
    for part in ("Day 4", "day 3 says fail", "driver.loaded, nccl.busbw", "gpu-cutover day 3", "gpu-cutover waive 3"):
        assert part in words


def test_an_ended_waiver_is_named() -> None:
    words = refusal(records(gate(1, "hold"), waiver(1, TODAY - timedelta(days=1))), 2, TODAY)
    assert words is not None and "the waiver by R. Weiss ended on 2026-12-25" in words


def test_day_states_hold_the_last_word() -> None:
    states = day_states(records(gate(1, "hold"), gate(1, "promote"), waiver(2, TODAY)))
    assert [states[day].verdict for day in (1, 2)] == ["promote", None]
    assert states[2].waiver is not None and states[2].waiver.by == "R. Weiss"
    assert set(states) == set(range(1, 11))


@pytest.mark.parametrize("day", ["0", "11", "-1", "x", "", "1.5", "٣", "999"])
def test_a_day_out_of_range_is_refused(day: str) -> None:
    with pytest.raises(InputError, match="no day of the plan"):
        day_of(day)


@pytest.mark.parametrize(
    ("reason", "by", "until", "named"),
    [
        ("", "A", "2027-01-01", "--reason"),
        ("  ", "A", "2027-01-01", "--reason"),
        ("r", " ", "2027-01-01", "--by"),
        ("r", "A\x1b[2J", "2027-01-01", "--by"),
        ("r", "A", "2026-12-26", "--until"),
        ("r", "A", "2026-12-25", "--until"),
        ("r", "A", "tomorrow", "--until"),
        ("r", "A", "2027-02-30", "--until"),
        ("r", "A", "20270101", "--until"),
    ],
)
def test_bad_waivers_are_refused(reason: str, by: str, until: str, named: str) -> None:
    with pytest.raises(InputError) as caught:
        waiver_data(3, reason, by, until, TODAY)
    assert caught.value.key == named


def waive(site: Path, *arguments: str) -> int:
    return main(["waive", *arguments, "-i", str(site)])


def test_a_waiver_is_recorded_signed_and_opens_the_next_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = utc_now().date()
    until = (today + timedelta(days=2)).isoformat()
    (tmp_path / "group_vars" / "all").mkdir(parents=True)
    (tmp_path / "group_vars" / "all" / "site.yml").write_text("site: {}\n")
    Ledger.open(tmp_path).append("gate", "day03", {"day": 3, "verdict": "hold", "checks": []})
    assert waive(tmp_path, "3", "--reason", "NCCL re-run on Monday", "--by", "R. Weiss", "--until", until) == 0
    assert "day 3 is waived by R. Weiss" in capsys.readouterr().out
    found = read_status(tmp_path)
    assert dict(found[-1].data) == {
        "day": 3,
        "by": "R. Weiss",
        "reason": "NCCL re-run on Monday",
        "until": until,
        "verdict": "hold",
        "gate": 1,
    }
    assert refusal(found, 4, today) is None
    assert refusal(found, 4, today + timedelta(days=3)) is not None
    assert main(["evidence", "verify", "-i", str(tmp_path)]) == 0


@pytest.mark.parametrize("arguments", [["12"], ["3", "--until", "2020-01-01"]])
def test_a_bad_waiver_exits_2_and_records_nothing(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = ["--reason", "r", "--by", "b", "--until", "2999-01-01"]
    assert waive(tmp_path, arguments[0], *defaults, *arguments[1:]) == 2
    assert "Fix:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_showing_and_verifying_an_empty_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", "show", "-i", str(tmp_path)]) == 0
    assert "nothing was recorded yet" in capsys.readouterr().out
    assert main(["evidence", "verify", "-i", str(tmp_path)]) == 10
    assert main(["evidence", "verify", "-i", str(tmp_path / "nowhere")]) == 2


def test_show_lists_every_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(
        "gate", "day01", {"day": 1, "verdict": "hold", "checks": [{"id": "a", "status": "pass"}, {"id": "b"}]}
    )
    ledger.append("rollback", "doc-zam", {"tenant": "doc-zam", "to": "cloud"})
    assert main(["evidence", "show", "-i", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "hold: 1 of 2 checks passed" in out
    assert "tenant=doc-zam to=cloud" in out
