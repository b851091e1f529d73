"""The plan's page in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from chromium import fits, measure

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


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["example-l40s", "example-h100"])
def test_the_page_fits_and_shows_every_placement(name: str, width: int, tmp_path: Path) -> None:
    site = load_site(ROOT / "inventory" / name, "site")
    plan = make(Question(site, site.spec.tier, {}, date(2026, 11, 22)), load_catalog())
    page = measure(render(plan), MEASURE, tmp_path, width)
    fits(page, width)
    assert page["folded"] == 0, "what is only to know is folded away at first"
    assert [section for section, _ in page["sections"]] == [
        *("findings", "targets", "changes", "placement", "lost", "power", "money", "versions", "tiers")
    ]
    assert all(height > 60 for _, height in page["sections"])
    assert len(page["pictures"]) == 5 + len(plan["tiers"])
    assert all(label and drawn > 280 for label, _, drawn in page["pictures"])
