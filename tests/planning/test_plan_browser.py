"""The plan's page in a real browser, on a wide screen, on a phone and on paper."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from chromium import fits, measure, printed_pages

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning.plan import Question, make
from gpu_cutover.planning.plan_page import render
from gpu_cutover.site.load import load_site

ROOT = Path(__file__).parents[2]

# Runs in the page after layout and tells what it measured with everything unfolded.
MEASURE = """
addEventListener("load", () => {
  const folded = [...document.querySelectorAll("li.minor, li.note")].filter(e => e.checkVisibility()).length;
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  tell({...laidOut([...document.querySelectorAll("svg")], "text.name"), folded: folded});
});
"""


def page_of(name: str) -> tuple[dict[str, Any], str]:
    site = load_site(ROOT / "inventory" / name, "site")
    plan = make(Question(site, site.spec.tier, {}, date(2026, 11, 22)), load_catalog())
    return plan, render(plan)


@pytest.mark.browser
def test_on_paper_tables_stay_tables(tmp_path: Path) -> None:
    """Nine pages; twenty where paper is taken for a phone and every row becomes a card."""
    assert 1 < printed_pages(page_of("example-l40s")[1], tmp_path) <= 12


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["example-l40s", "example-h100"])
def test_the_page_fits_and_shows_every_placement(name: str, width: int, tmp_path: Path) -> None:
    plan, html = page_of(name)
    page = measure(html, MEASURE, tmp_path, width)
    fits(page, width)
    assert page["folded"] == 0, "what is only to know is folded away at first"
    assert [section for section, _ in page["sections"]] == [
        *("findings", "targets", "changes", "placement", "lost", "power", "money", "versions", "tiers")
    ]
    assert all(height > 60 for _, height in page["sections"])
    assert len(page["pictures"]) == 5 + len(plan["tiers"])
    assert all(label and drawn > 280 for label, _, drawn in page["pictures"])
