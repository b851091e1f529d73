"""Who went where, what that proves, and an export that checks itself without us."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.audit import command, query, store
from gpu_cutover.audit.export import export
from gpu_cutover.errors import EXIT_DONE, EXIT_FAIL, InputError, Refused

from .conftest import AuditedSite
from .logs import Clock, record, rewritten

T0 = 1795300000.0


def recorded(site: AuditedSite, host: str = "gw1", count: int = 10) -> None:
    """Doc Zam on-prem with two fallbacks to the cloud, and a sensitive tenant that was refused once."""
    clock = Clock(T0)
    log = site.log(host, clock=clock)  # type: ignore[arg-type]
    log.flush()
    for number in range(count):
        clock.now = T0 + number
        cloud = {"leg": "cloud", "why": "fallback", "model": "gpt-4o"} if number in (3, 7) else {}
        log.add(record(number, **cloud))
        refused: dict[str, Any] = {"leg": None, "why": "refused", "outcome": "refused", "model": None}
        log.add(record(number, request_id=f"s{number}", tenant="hospital", **(refused if number == 5 else {})))
    clock.now = T0 + 60
    log.close()
    site.keep(host)
    site.bring(host)


def run(site: AuditedSite, *words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*words, "-i", str(site.directory)]))


@pytest.fixture
def both(site: AuditedSite) -> AuditedSite:
    recorded(site, "gw1")
    recorded(site, "gw2")
    return site


def test_zero_cloud_requests_of_a_tenant_between_two_times_is_proven_with_its_limits(
    both: AuditedSite, capsys: pytest.CaptureFixture[str]
) -> None:
    span = ("--since", "2026-11-21T22:26:40Z", "--until", "2026-11-21T22:27:40Z")
    assert run(both, "query", "--tenant", "hospital", *span, "--show", "0") == EXIT_DONE
    said = capsys.readouterr().out
    assert "20 attempts" in said
    assert "hospital: 0 cloud, 18 onprem, 2 none attempts between 2026-11-21T22:26:40Z and 2026-11-21T22:27:40Z" in said
    assert "Proven: chain, signatures and the controller's checkpoints agree" in said
    assert "never passed a router" in said
    assert run(both, "query", "--tenant", "hospital") == EXIT_DONE
    assert "nothing before 2026-11-21T22:26:40Z" in capsys.readouterr().out


def test_filters_find_one_request_and_what_happened_to_it(
    both: AuditedSite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(both, "query", "--request-id", "r3", "--json") == EXIT_DONE
    told = json.loads(capsys.readouterr().out)
    assert [(one["host"], one["leg"], one["why"], one["model"]) for one in told["records"]] == [
        ("gw1", "cloud", "fallback", "gpt-4o"),
        ("gw2", "cloud", "fallback", "gpt-4o"),
    ]
    for words, found in (
        (["--leg", "cloud"], 4),
        (["--leg", "none"], 2),
        (["--why", "fallback", "--tenant", "doc-zam"], 4),
        (["--outcome", "refused"], 2),
        (["--model", "gpt-4o", "--route", "chat"], 4),
        (["--route", "audio"], 0),
        (["--since", "2026-11-21T22:26:48Z"], 8),
    ):
        run(both, "query", *words, "--json")
        assert json.loads(capsys.readouterr().out)["found"] == found, words


def test_the_limits_name_lost_records_and_missing_gateways(site: AuditedSite) -> None:
    recorded(site)
    answer = query.ask(site.directory, query.Filter(tenant="hospital"), site.prove(), ["gw1", "gw2"])
    assert "gw2: no request log was collected" in answer.limits
    assert not answer.proven


def test_an_answer_from_a_changed_log_is_not_proven(both: AuditedSite, capsys: pytest.CaptureFixture[str]) -> None:
    log = store.logs(both.directory)[0]
    copy = store.copies(both.directory, log)[0]
    copy.write_bytes(copy.read_bytes().replace(b'"leg":"cloud"', b'"leg":"plant"'))
    assert run(both, "query", "--tenant", "doc-zam") == EXIT_FAIL
    assert "NOT PROVEN" in capsys.readouterr().out
    assert run(both, "verify") == EXIT_FAIL
    assert "was changed" in capsys.readouterr().out


def test_wrong_times_and_nothing_collected(site: AuditedSite) -> None:
    with pytest.raises(Refused, match="no log was collected yet"):
        run(site, "verify")
    recorded(site)
    with pytest.raises(InputError, match="--since"):
        run(site, "query", "--since", "yesterday")


# --- export -------------------------------------------------------------------------------------------------------


def unpacked(site: AuditedSite, folder: Path) -> Path:
    target = export(site.directory, folder / "audit.zip", site.prove(("gw1", "gw2")))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder / "export")
    return folder / "export"


def judged(folder: Path) -> tuple[int, str]:
    """The auditor's own run: an isolated interpreter, nothing of ours on its path."""
    done = subprocess.run(
        [sys.executable, "-I", "verify_audit.py", "."], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_export_is_proven_by_its_own_script(both: AuditedSite, tmp_path: Path) -> None:
    folder = unpacked(both, tmp_path)
    lines = both.prove().lines
    assert judged(folder) == (0, f"whole: {lines} lines of 2 logs\n")
    sums = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, check=False
    )
    assert sums.returncode == 0, sums.stdout
    assert "python verify_audit.py ." in (folder / "README.md").read_text()
    imported = {line.split()[1].partition(".")[0] for line in script_lines() if line.startswith(("import ", "from "))}
    assert imported <= {"base64", "hashlib", "json", "sys", "pathlib", "typing", "cryptography"}


def script_lines() -> list[str]:
    return (Path(command.__file__).with_name("verify_audit.py")).read_text().splitlines()


def damaged(folder: Path, what: str) -> None:
    """Do to an export what somebody with something to hide would do."""
    log = sorted(folder.glob("logs/gw1/*/*/*.jsonl"))[0]
    statement = sorted((folder / "evidence").glob("000001-*"))[0]
    lines = log.read_bytes().splitlines(keepends=True)
    match what:
        case "a changed record":
            log.write_bytes(log.read_bytes().replace(b'"leg":"cloud"', b'"leg":"plant"', 1))
        case "a dropped line":
            log.write_bytes(b"".join(lines[:5] + lines[6:]))
        case "a swapped line":
            log.write_bytes(b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]))
        case "a cut end":
            log.write_bytes(b"".join(lines[:-3]))
        case "a log left out":
            shutil.rmtree(folder / "logs" / "gw2")
        case "a changed statement":
            statement.write_bytes(statement.read_bytes().replace(b'"payload": "e', b'"payload": "f'))
        case "a statement left out":
            statement.unlink()


@pytest.mark.parametrize(
    "what",
    (
        "a changed record",
        "a dropped line",
        "a swapped line",
        "a cut end",
        "a log left out",
        "a changed statement",
        "a statement left out",
    ),
)
def test_the_script_finds(both: AuditedSite, tmp_path: Path, what: str) -> None:
    folder = unpacked(both, tmp_path)
    damaged(folder, what)
    code, said = judged(folder)
    assert code == 1, said


def test_the_script_finds_a_log_that_was_rewritten_and_signed_again(both: AuditedSite, tmp_path: Path) -> None:
    path = both.folder("gw1") / "requests-hybrid.jsonl"
    rewritten(path, lambda lines: [{**line, "leg": "onprem"} if "leg" in line else line for line in lines])
    folder = unpacked(both, tmp_path)
    shutil.copy(path, sorted(folder.glob("logs/gw1/*/*/*.jsonl"))[0])
    code, said = judged(folder)
    assert code == 1
    assert "not the line that the ledger's checkpoint speaks of" in said
    assert "signature" not in said  # the gateway's own key signed it well
