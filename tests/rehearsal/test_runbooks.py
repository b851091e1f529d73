"""Every command block of every runbook is executed, as it stands, against a rehearsed site.

```sh           must exit 0
```sh derated   must exit 0, with GPU 2 de-rated by a fan failure first
```sh refused   must exit 2 or 10: it shows how the tool says no
```sh cloudless must exit 10, with a cloud that answers every request with an error
```sh lost      must exit 10, with the cable of gateway gw2 cut
```sh degraded  must exit 0, with that cable still cut
Days 6, 8 and 9 are run by the rehearsal itself and by the tests of interrupted runs; days 1 to 5 have their own test.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import ROOT, RehearsedSite
from .test_gateway_lost import wait_until_they_agree

pytestmark = [pytest.mark.twin, pytest.mark.timeout(2400)]
RUNBOOKS = sorted(path for path in (ROOT / "runbooks").glob("*.md") if path.name != "README.md")
BLOCK = re.compile(r"^```sh *(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PREPARATION = range(1, 6)
ENDS = {"refused": {2, 10}, "cloudless": {10}, "lost": {10}}  # every other kind: 0
WITHOUT_GW2 = ("lost", "degraded")
RUN_ELSEWHERE = {f"day-{number:02}.md" for number in (*PREPARATION, 6, 8, 9)}


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind or "plain", text) for kind, text in BLOCK.findall(page.read_text())]


def wait_until_the_guard_derates(site: RehearsedSite, gpu: int) -> None:
    site.load_gpu(gpu, 60)
    broken = site.run("twin", "fault", "fan-failure", str(gpu), "-i", str(site.directory))
    assert broken.returncode == 0, broken.stderr
    for _ in range(60):
        guard = site.guard()
        if guard.get("derated") == gpu and not guard.get("changing"):
            return
        time.sleep(1)
    raise AssertionError(f"the guard did not take GPU {gpu} out: {site.guard()}")


def wait_until_cool(site: RehearsedSite) -> None:
    site.run("twin", "fault", "clear", "-i", str(site.directory))
    for _ in range(90):
        if not site.guard().get("not_restorable"):
            return
        time.sleep(1)
    raise AssertionError(f"not restorable: {site.guard().get('not_restorable')}")


@contextmanager
def mended_at_the_end(site: RehearsedSite) -> Iterator[Callable[[bool], None]]:
    """Give a function that cuts gw2's cable or mends it; mended at the end, whatever happens: other pages need it."""
    state = {"cut": False}

    def cable(cut: bool) -> None:
        if cut == state["cut"]:
            return
        done = site.run("twin", "cut" if cut else "heal", "gw2", "-i", str(site.directory))
        assert done.returncode == 0, done.stderr
        state["cut"] = cut
        if not cut:
            wait_until_they_agree(site)

    try:
        yield cable
    finally:
        cable(False)


@pytest.mark.parametrize("page", [p for p in RUNBOOKS if p.name not in RUN_ELSEWHERE], ids=lambda page: page.stem)
def test_the_blocks_of_the_page_do_what_it_says(rehearsed: RehearsedSite, page: Path, tmp_path: Path) -> None:
    assert blocks(page), f"{page.name} has no command block"
    with mended_at_the_end(rehearsed) as cable:
        for kind, text in blocks(page):
            cable(kind in WITHOUT_GW2)
            prepare(rehearsed, page, kind, text)
            done = rehearsed.command_block(text.replace("report.html", str(tmp_path / "report.html")))
            if kind == "cloudless":
                rehearsed.run("twin", "fault", "clear", "-i", str(rehearsed.directory))
            told = f"{page.name}\n{text}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
            assert done.returncode in ENDS.get(kind, {0}), told


def prepare(site: RehearsedSite, page: Path, kind: str, text: str) -> None:
    """What must be so before the block is executed."""
    if kind == "derated" and "play derate" in text:
        wait_until_the_guard_derates(site, gpu=2)
    if kind == "derated" and "play restore" in text:
        wait_until_cool(site)
    if page.name == "day-10.md":
        site.bring_back_the_first_tenant()
    if kind == "cloudless":
        site.run("twin", "fault", "cloud", "error", "-i", str(site.directory))


@pytest.mark.parametrize("number", PREPARATION)
def test_the_page_of_a_day_of_preparation_does_what_it_says(rehearsed: RehearsedSite, number: int) -> None:
    done = rehearsed.second_run(number)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_page_says_how_to_undo_or_what_happens_by_itself(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert len(text.split()) > 25
