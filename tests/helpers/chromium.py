"""A page as headless Chromium lays it out at a width, or prints it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

BROWSER = Path("/usr/bin/chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NO_SCRIPT = "default-src 'none';"
SCRIPT = "script-src "

# The page lies in a frame of the wanted width: the browser's own window cannot be as narrow as a phone.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><pre id="measured"></pre>
<script>addEventListener("message", e => document.getElementById("measured").textContent = e.data);</script>
<iframe src="measured.html" style="border: 0; width: %dpx; height: 2000px"></iframe>
"""

# What a page's own script measures with: `laidOut` of its pictures, whose `labels` must not lie on one another, `tell`.
TOOLS = """
const laidOut = (pictures, labels) => {
  const wide = innerWidth;
  const box = e => e.getBoundingClientRect();
  return {
    width: wide,
    scrolls: document.documentElement.scrollWidth,
    beyond: [...document.querySelectorAll("body *")].filter(e => box(e).right > wide + 1)
      .map(e => e.tagName + " " + e.textContent.slice(0, 40)),
    sections: [...document.querySelectorAll("main > section")].map(s => [s.id, box(s).height]),
    pictures: pictures.map(s => [s.getAttribute("aria-label"), s.querySelectorAll("*").length, box(s).width]),
    outside: pictures.flatMap(s => [...s.querySelectorAll("text")].filter(t => {
      const a = box(t), b = box(s);
      return a.right > b.right + 1 || a.left < b.left - 1 || a.bottom > b.bottom + 1 || a.top < b.top - 1;
    }).map(t => t.textContent)),
    heights: pictures.flatMap(s => [...s.querySelectorAll("text")].map(t => box(t).height)),
    crossing: pictures.flatMap(s => {
      const boxes = [...s.querySelectorAll(labels)].map(box);
      return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4));
    }).length,
    fetched: performance.getEntriesByType("resource").map(r => r.name),
    captions: [...document.querySelectorAll("table")].filter(t => !t.caption).length,
  };
};
const tell = page => parent.postMessage(JSON.stringify(page), "*");
"""


def measure(html: str, script: str, folder: Path, width: int) -> dict[str, Any]:
    """What a script tells of the page, under the page's own policy that lets this one script in."""
    script = TOOLS + script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    if SCRIPT in html:
        allowed = html.replace(SCRIPT, f"{SCRIPT}'sha256-{digest}' ")
    else:
        assert NO_SCRIPT in html
        allowed = html.replace(NO_SCRIPT, f"{NO_SCRIPT} {SCRIPT}'sha256-{digest}';")
    (folder / "measured.html").write_text(allowed.replace("</head>", f"<script>{script}</script></head>"))
    frame = folder / "frame.html"
    frame.write_text(FRAME % width)
    shown = _run(folder, f"--window-size={max(width, 600)},2100", "--virtual-time-budget=5000", "--dump-dom", frame)
    found = re.search(r'<pre id="measured">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found and found[1], shown.stderr[-2000:]
    page: dict[str, Any] = json.loads(unescape(found[1]))
    return page


def printed_pages(html: str, folder: Path) -> int:
    """Pages of paper that the page takes."""
    page, paper = folder / "page.html", folder / "page.pdf"
    page.write_text(html)
    shown = _run(folder, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page)
    assert paper.exists(), shown.stderr[-2000:]
    return len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))


def _run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Chromium with a profile of its own; the last word is the page."""
    *options, page = words
    return subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", *map(str, options), Path(page).as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def fits(page: dict[str, Any], width: int) -> None:
    """Nothing beyond the page, no text outside its picture or too small to read, no letters on one another."""
    assert page["width"] == width
    assert page["scrolls"] <= width, page["beyond"]
    assert page["beyond"] == []
    assert page["outside"] == []
    assert page["crossing"] == 0
    assert min(page["heights"]) >= 10, "text in a picture is too small to read"
    assert page["fetched"] == []
    assert page["captions"] == 0
