"""The report in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.report.command import write_report

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

# Runs in the page after layout, then follows a link to a day that is closed, and tells what it measured.
MEASURE = """
const measured = () => {
  const shown = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 0);
  const wide = innerWidth;
  const days = () => [...document.querySelectorAll("details.day")];
  return {
    width: wide,
    scrolls: document.documentElement.scrollWidth,
    beyond: [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > wide + 1)
      .map(e => e.tagName + " " + e.textContent.slice(0, 40)),
    sections: [...document.querySelectorAll("main > section")].map(s => [s.id, s.getBoundingClientRect().height]),
    plots: shown.map(s => {
      return [s.getAttribute("aria-label"), s.querySelectorAll("*").length, s.getBoundingClientRect().width];
    }),
    outside: shown.flatMap(s => [...s.querySelectorAll("text")].filter(t => {
      const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
      return a.right > b.right + 1 || a.left < b.left - 1 || a.bottom > b.bottom + 1 || a.top < b.top - 1;
    }).map(t => t.textContent)),
    small: shown.flatMap(s => [...s.querySelectorAll("text")].map(t => t.getBoundingClientRect().height)),
    marks: shown.flatMap(s => {
      const boxes = [...s.querySelectorAll("line.mark + text")].map(t => t.getBoundingClientRect());
      return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4));
    }).length,
    fetched: performance.getEntriesByType("resource").map(r => r.name),
    captions: [...document.querySelectorAll("table")].filter(t => !t.caption).length,
    open: days().filter(d => d.open).map(d => d.id),
    checks: Object.fromEntries(days().map(d => [d.id, d.querySelectorAll("tbody tr:not(.host)").length])),
    visible: Object.fromEntries(days().map(d => {
      return [d.id, [...d.querySelectorAll("tbody tr:not(.host)")].filter(r => r.checkVisibility()).length];
    })),
  };
};
addEventListener("load", () => {
  const closed = measured();
  document.querySelector('.strip a[href="#day-1"]').click();
  setTimeout(() => {
    closed.followed = document.getElementById("day-1").open;
    document.querySelectorAll("details").forEach(d => { d.open = true; });
    closed.all_open = measured();
    parent.postMessage(JSON.stringify(closed), "*");
  }, 200);
});
"""


def measure(html: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """The page as the browser lays it out at a width, under its own policy that lets one more script in."""
    digest = base64.b64encode(hashlib.sha256(MEASURE.encode()).digest()).decode()
    assert "script-src 'sha256-" in html
    allowed = html.replace("script-src ", f"script-src 'sha256-{digest}' ")
    (tmp_path / "measured.html").write_text(allowed.replace("</head>", f"<script>{MEASURE}</script></head>"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME % width)
    shown = subprocess.run(
        [
            str(BROWSER),
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 600)},2100",
            "--virtual-time-budget=5000",
            "--dump-dom",
            frame.as_uri(),
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


def fits(page: dict[str, Any], width: int) -> None:
    """Nothing beyond the column, no text outside its plot or too small to read, no letters on one another."""
    assert page["width"] == width
    assert page["scrolls"] <= width, page["beyond"]
    assert page["beyond"] == []
    assert page["outside"] == []
    assert page["marks"] == 0
    assert min(page["small"]) >= 10, "text in a plot is too small to read"
    assert page["fetched"] == []
    assert page["captions"] == 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_fits_and_shows_everything(full_site: Path, tmp_path: Path, width: int) -> None:
    page = measure(write_report(full_site, tmp_path / "report.html").read_text(), tmp_path, width)
    fits(page, width)
    fits(page["all_open"], width)
    assert len(page["sections"]) == 12
    assert all(height > 60 for _, height in page["sections"]), page["sections"]
    assert len(page["plots"]) >= 7
    assert all(label and elements > 5 and plot_width > 250 for label, elements, plot_width in page["plots"])
    assert page["open"] == []
    assert page["followed"], "a link to a closed day opens it"
    assert page["checks"] == {f"day-{day}": 4 if day == 5 else 2 for day in range(1, 11)}
    assert set(page["visible"].values()) == {0}
    assert page["all_open"]["visible"] == page["checks"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_gates_of_a_held_day_are_open(held_site: Path, tmp_path: Path, width: int) -> None:
    page = measure(write_report(held_site, tmp_path / "report.html").read_text(), tmp_path, width)
    assert page["scrolls"] <= width, page["beyond"]
    assert page["open"] == ["day-2"]
    assert (page["checks"]["day-1"], page["visible"]["day-1"]) == (1, 0)
    assert (page["checks"]["day-2"], page["visible"]["day-2"]) == (8, 8)
    assert page["all_open"]["visible"]["day-1"] == 1
