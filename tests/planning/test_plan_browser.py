"""The plan's page in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from datetime import date
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.catalog import load_catalog
from gpu_cutover.planning.plan import Question, make
from gpu_cutover.planning.plan_page import render
from gpu_cutover.site.load import load_site

ROOT = Path(__file__).parents[2]
BROWSER = Path("/usr/bin/chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# The page lies in a frame of the wanted width: the browser's own window cannot be as narrow as a phone.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><pre id="measured"></pre>
<script>addEventListener("message", e => document.getElementById("measured").textContent = e.data);</script>
<iframe src="measured.html" style="border: 0; width: %dpx; height: 2000px"></iframe>
"""

# Runs in the page after layout, everything unfolded, and tells what it measured.
MEASURE = """
addEventListener("load", () => {
  const folded = [...document.querySelectorAll("li.minor, li.note")].filter(e => e.checkVisibility()).length;
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  const wide = innerWidth;
  const svgs = [...document.querySelectorAll("svg")];
  parent.postMessage(JSON.stringify({
    width: wide,
    scrolls: document.documentElement.scrollWidth,
    folded: folded,
    beyond: [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > wide + 1)
      .map(e => e.tagName + " " + e.textContent.slice(0, 40)),
    sections: [...document.querySelectorAll("main > section")].map(s => [s.id, s.getBoundingClientRect().height]),
    pictures: svgs.map(s => [s.getAttribute("aria-label"), s.getBoundingClientRect().width]),
    outside: svgs.flatMap(s => [...s.querySelectorAll("text")].filter(t => {
      const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
      return a.right > b.right + 1 || a.left < b.left - 1 || a.bottom > b.bottom + 1 || a.top < b.top - 1;
    }).map(t => t.textContent)),
    smallest: Math.min(...[...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height)),
    crossing: svgs.flatMap(s => {
      const names = [...s.querySelectorAll("text.name")].map(t => t.getBoundingClientRect());
      return names.flatMap((a, i) => names.slice(i + 1).filter(b =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4));
    }).length,
    fetched: performance.getEntriesByType("resource").map(r => r.name),
    captions: [...document.querySelectorAll("table")].filter(t => !t.caption).length,
  }), "*");
});
"""


def measure(html: str, folder: Path, width: int) -> dict[str, Any]:
    """The page as the browser lays it out at a width, under its own policy that lets one script in."""
    digest = base64.b64encode(hashlib.sha256(MEASURE.encode()).digest()).decode()
    policy = "default-src 'none';"
    assert policy in html
    allowed = html.replace(policy, f"{policy} script-src 'sha256-{digest}';")
    (folder / "measured.html").write_text(allowed.replace("</head>", f"<script>{MEASURE}</script></head>"))
    frame = folder / "frame.html"
    frame.write_text(FRAME % width)
    shown = subprocess.run(
        [
            *(str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 600)},2100"),
            *("--virtual-time-budget=5000", "--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    found = re.search(r'<pre id="measured">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found and found[1], shown.stderr[-2000:]
    page: dict[str, Any] = json.loads(unescape(found[1]))
    return page


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["example-l40s", "example-h100"])
def test_the_page_fits_and_shows_every_placement(name: str, width: int, tmp_path: Path) -> None:
    site = load_site(ROOT / "inventory" / name, "site")
    plan = make(Question(site, site.spec.tier, {}, date(2026, 11, 22)), load_catalog())
    page = measure(render(plan), tmp_path, width)
    assert page["width"] == width
    assert page["scrolls"] <= width, page["beyond"]
    assert page["beyond"] == []
    assert page["folded"] == 0, "what is only to know is folded away at first"
    assert [section for section, _ in page["sections"]] == [
        *("findings", "targets", "changes", "placement", "lost", "power", "money", "versions", "tiers")
    ]
    assert all(height > 60 for _, height in page["sections"])
    assert len(page["pictures"]) == 5 + len(plan["tiers"])
    assert all(label and drawn > 280 for label, drawn in page["pictures"])
    assert page["outside"] == []
    assert page["crossing"] == 0
    assert page["smallest"] >= 10, "text in a picture is too small to read"
    assert page["fetched"] == []
    assert page["captions"] == 0
