"""`gpu-cutover plan` through the command line: exit codes, plain data, a page that is written whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpu_cutover.cli import main
from gpu_cutover.errors import InputError
from gpu_cutover.planning import plan_command

ROOT = Path(__file__).parents[2]
SITE = str(ROOT / "inventory" / "example-h100")


@pytest.fixture(autouse=True)
def as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TARGETS", raising=False)


def test_a_plan_with_an_impossible_target_exits_20_and_prints_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-i", SITE, "--json"]) == 20
    assert json.loads(capsys.readouterr().out)["verdict"] == "impossible"


def test_the_text_is_printed_and_the_page_lies_where_asked_readable_by_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "plan.html"
    page.write_text("an older one")
    assert main(["plan", "-i", SITE, "--html", str(page)]) == 20
    assert capsys.readouterr().out.startswith("example-h100 on h100-sxm-4")
    assert page.stat().st_mode & 0o777 == 0o644
    assert page.read_text().rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == [page]


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="--html"):
        plan_command.write(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_scaling_needs_no_site(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "scale", "--scenario", "chat", "--json"]) in (0, 20)
    assert "verdict" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("verdict", "code"), [("met", 0), ("at risk", 10), ("impossible", 20)])
def test_every_verdict_has_its_exit_code(verdict: str, code: int) -> None:
    assert plan_command.EXITS[verdict] == code


@pytest.mark.parametrize(
    ("words", "found"),
    [([], {}), (["soap=24"], {"soap": 24}), (["soap=24", "chat=0", "soap=6"], {"soap": 6, "chat": 0})],
)
def test_demand_on_the_command_line(words: list[str], found: dict[str, int]) -> None:
    assert plan_command.asked(words) == found


@pytest.mark.parametrize("word", ["soap", "soap=", "soap=-1", "soap=1.5", "=3x", "soap=twelve"])
def test_demand_that_is_no_number_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="soap=24"):
        plan_command.asked([word])
