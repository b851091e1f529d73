"""The report in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import fits, measure

from gpu_cutover.report.command import write_report

# Runs in the page after layout, then follows a link to a day that is closed, and tells what it measured.
MEASURE = """
const measured = () => {
  const days = [...document.querySelectorAll("details.day")];
  const rows = d => [...d.querySelectorAll("tbody tr:not(.host)")];
  const shown = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 0);
  return {
    ...laidOut(shown, "line.mark + text"),
    open: days.filter(d => d.open).map(d => d.id),
    checks: Object.fromEntries(days.map(d => [d.id, rows(d).length])),
    visible: Object.fromEntries(days.map(d => [d.id, rows(d).filter(r => r.checkVisibility()).length])),
  };
};
addEventListener("load", () => {
  const closed = measured();
  document.querySelector('.strip a[href="#day-1"]').click();
  setTimeout(() => {
    closed.followed = document.getElementById("day-1").open;
    document.querySelectorAll("details").forEach(d => { d.open = true; });
    closed.all_open = measured();
    tell(closed);
  }, 200);
});
"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_fits_and_shows_everything(full_site: Path, tmp_path: Path, width: int) -> None:
    page = measure(write_report(full_site, tmp_path / "report.html").read_text(), MEASURE, tmp_path, width)
    fits(page, width)
    fits(page["all_open"], width)
    assert len(page["sections"]) == 12
    assert all(height > 60 for _, height in page["sections"]), page["sections"]
    assert len(page["pictures"]) >= 7
    assert all(label and elements > 5 and drawn > 250 for label, elements, drawn in page["pictures"])
    assert page["open"] == []
    assert page["followed"], "a link to a closed day opens it"
    assert page["checks"] == {f"day-{day}": 4 if day == 5 else 2 for day in range(1, 11)}
    assert set(page["visible"].values()) == {0}
    assert page["all_open"]["visible"] == page["checks"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_gates_of_a_held_day_are_open(held_site: Path, tmp_path: Path, width: int) -> None:
    page = measure(write_report(held_site, tmp_path / "report.html").read_text(), MEASURE, tmp_path, width)
    assert page["scrolls"] <= width, page["beyond"]
    assert page["open"] == ["day-2"]
    assert (page["checks"]["day-1"], page["visible"]["day-1"]) == (1, 0)
    assert (page["checks"]["day-2"], page["visible"]["day-2"]) == (8, 8)
    assert page["all_open"]["visible"]["day-1"] == 1
