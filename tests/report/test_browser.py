"""The report in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

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

# Runs in the page after layout and leaves what it measured in the DOM.
MEASURE = """
<script>
addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 0);
  const wide = innerWidth;
  const out = {
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
    fetched: performance.getEntriesByType("resource").map(r => r.name),
    captions: [...document.querySelectorAll("table")].filter(t => !t.caption).length,
  };
  parent.postMessage(JSON.stringify(out), "*");
});
</script>
"""


@pytest.mark.browser
@pytest.mark.skipif(not BROWSER.exists(), reason="no Chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_fits_and_shows_everything(full_site: Path, tmp_path: Path, width: int) -> None:
    html = write_report(full_site, tmp_path / "report.html").read_text()
    measured_page = tmp_path / "measured.html"
    without_policy = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", html)
    measured_page.write_text(without_policy.replace("</head>", f"{MEASURE}</head>"))
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
    assert found, shown.stderr[-2000:]
    page = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert page["width"] == width
    assert page["scrolls"] <= width, page["beyond"]
    assert page["beyond"] == []
    assert len(page["sections"]) == 12
    assert all(height > 60 for _, height in page["sections"]), page["sections"]
    assert len(page["plots"]) >= 7
    assert all(label and elements > 5 and plot_width > 250 for label, elements, plot_width in page["plots"])
    assert page["outside"] == []
    assert min(page["small"]) >= 10, "text in a plot is too small to read"
    assert page["fetched"] == []
    assert page["captions"] == 0
