"""The rehearsal's own decisions; the whole of it runs in tests/rehearsal, on real hosts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpu_cutover.errors import EXIT_FAIL, EXIT_HOLD, EXIT_USAGE, InputError, Refused
from gpu_cutover.evidence import audit
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.twin.meter import MemoryMeter, available_mib
from gpu_cutover.twin.rehearsal import Rehearsal, Step, StepError, count_cloud

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site_dir(tmp_path: Path) -> Path:
    path = tmp_path / "twin"
    shutil.copytree(ROOT / "inventory" / "twin", path, ignore=shutil.ignore_patterns(".state", "evidence"))
    return path


def rehearsal(site_dir: Path, resume: bool = False) -> Rehearsal:
    return Rehearsal(site_dir, site_dir / "report.html", keep=True, resume=resume)


def promote(site_dir: Path, *days: int) -> None:
    for day in days:
        Ledger.open(site_dir).append("gate", f"day{day:02d}", {"day": day, "verdict": "promote", "checks": []})


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


def test_a_rehearsal_is_ten_days_and_what_comes_after_them(site_dir: Path) -> None:
    steps = names(rehearsal(site_dir)._steps())
    assert steps[:5] == ["prerequisites", "old evidence", "bundle", "twin down first", "twin up"]
    assert steps.pop(12) == "clinics use the edge"
    assert [name.split(",")[0] for name in steps[5:15]] == [f"day {n}" for n in range(1, 11)]
    assert steps[15:] == [
        "thermal alarm, GPU 2",
        "record the de-rate",
        "cool down",
        "restore",
        "roll back doc-zam",
        f"roll back {rehearsal(site_dir)._site.spec.routes['audio'].model}",
        "what the cloud saw",
        "evidence verify",
    ]


def test_resuming_keeps_what_is_promoted_without_a_gap(site_dir: Path) -> None:
    promote(site_dir, 1, 2, 4)
    steps = names(rehearsal(site_dir, resume=True)._steps())
    assert steps[:4] == ["prerequisites", "bundle", "twin up", "day 3, OS and driver"]


def test_old_evidence_is_put_aside_whole_and_the_new_ledger_starts_at_one(site_dir: Path) -> None:
    promote(site_dir, 1, 2)
    rehearsal(site_dir)._archive()
    assert audit.verify(site_dir) == []
    assert not (site_dir / "evidence").exists()
    (aside,) = (site_dir / ".state" / "archive").iterdir()
    assert audit.verify(aside) == []
    promote(site_dir, 1)
    assert [record.sequence for record in Ledger.open(site_dir).records()] == [1]


def test_a_production_site_is_never_rehearsed(tmp_path: Path) -> None:
    path = tmp_path / "site"
    shutil.copytree(ROOT / "inventory" / "example-l40s", path)
    with pytest.raises(InputError, match="stage is production"):
        Rehearsal(path, tmp_path / "r.html", keep=False, resume=False).run()
    assert not (path / ".state").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StepError(EXIT_FAIL, "day 5 says fail"), EXIT_FAIL),
        (Refused("busy"), EXIT_HOLD),
        (InputError("a", "b", "c", "d"), EXIT_USAGE),
        (OSError("no"), 30),
    ],
)
def test_the_first_step_that_fails_ends_it_with_its_code(site_dir: Path, error: Exception, code: int) -> None:
    taken = []

    def fails() -> str:
        raise error

    def works() -> str:
        taken.append(1)
        return "ok"

    assert rehearsal(site_dir)._take([Step("a", works), Step("b", fails), Step("c", works)]) == code
    assert taken == [1]


def test_the_cloud_log_is_counted_by_tenant() -> None:
    entries = [
        {"event": "connection", "client": "10.87.0.11"},
        {"event": "request", "tenant": "doc-zam"},
        {"event": "request", "tenant": "doc-zam"},
        {"event": "request", "tenant": None},
    ]
    log = "\n".join(json.dumps(entry) for entry in entries) + '\n{"event": "requ'
    assert count_cloud(log) == {"connections": 1, "requests": 3, "by_tenant": {"doc-zam": 2, "unnamed": 1}}
    assert count_cloud("") == {"connections": 0, "requests": 0, "by_tenant": {}}


def test_memory_is_read_from_the_kernels_own_figure() -> None:
    assert available_mib("MemTotal: 4 kB\nMemAvailable:   2048 kB\n") == 2.0
    with pytest.raises(ValueError, match="MemAvailable"):
        available_mib("MemTotal: 4 kB\n")


def test_a_drop_of_memory_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 1048576 kB\n")
    monkeypatch.setattr("gpu_cutover.twin.meter.MEMINFO", meminfo)
    meter = MemoryMeter(interval_s=0.01)
    with meter:
        less = tmp_path / "less"
        less.write_text("MemAvailable: 524288 kB\n")
        less.replace(meminfo)  # never half written
        for _ in range(200):
            if meter.peak_mib:
                break
            meter._stop.wait(0.01)
    assert meter.peak_mib == 512.0
