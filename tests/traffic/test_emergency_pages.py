"""The pages for emergencies, block by block, on two gateways on loopback: they end and print as the page says.

The same blocks run on a rehearsed twin in tests/rehearsal. Here `cutover` goes straight, because nothing behind these
gateways takes Ansible; that way has its own tests.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
from collections.abc import Iterator

import pytest

from gpu_cutover.cli import main
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.peers.decide import order_for
from gpu_cutover.router.orders import carry_out, read_raw
from gpu_cutover.router.table import ROUTES
from router.tables import table, tenant

from .two_gateways import ADDRESSES, ROOT, Site, SshServer

PAGES = ("tenant-rollback", "everything-back", "cloud-down", "gateway-lost")
PARTS = ("When.", "What you see.", "Do.", "What it prints", "It worked when", "Sensitive tenants", "Undo")
BLOCK = re.compile(r"^```(sh|text) *(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT = {"": {0}, "degraded": {0}, "refused": {2}, "cloudless": {10}, "lost": {10}}
EVERYWHERE = dict.fromkeys(ROUTES, "onprem")


@pytest.fixture
def rehearsed(site: Site) -> Iterator[Site]:
    """As the ten days leave it: every day promoted, everybody on-prem who may be."""
    ledger = Ledger.open(site.directory)
    for day in range(1, 11):
        ledger.append("gate", f"day{day:02}", {"day": day, "verdict": "promote", "checks": []})
    pools = {
        "hybrid": {"doc-zam": tenant(**EVERYWHERE)},
        "sealed": {"klinik-amanah": tenant("sensitive", **EVERYWHERE)},
    }
    for gateway in site.gateways.values():
        for pool, tenants in pools.items():
            raw = table(pool, onprem=gateway.engine.url, cloud=gateway.cloud.url, tenants=tenants)
            gateway.place.table(pool).write_text(json.dumps(raw))
    yield site


def lose(site: Site, name: str) -> None:
    site.servers[name].stop()


def bring_back(site: Site, name: str) -> None:
    """It answers again, and takes over what it missed, as `gpu-cutover-peers` does."""
    old = site.servers[name]
    listening = socket.create_server((ADDRESSES[name], old.port))
    site.servers[name] = SshServer(ADDRESSES[name], site.gateways[name], site.key, listening)
    site.servers[name].host_key = old.host_key
    other = next(gateway for host, gateway in site.gateways.items() if host != name)
    place = site.gateways[name].place
    for pool in ("hybrid", "sealed"):
        own, theirs = (read_raw(one.table(pool)) for one in (place, other.place))
        assert own and theirs
        order = order_for(own, theirs, "gw1", f"peer-{pool}")
        if order:
            carry_out(order, place)


def executed(site: Site, kind: str, text: str) -> tuple[int, str]:
    """The last command's exit code; every command before it must have ended well."""
    code = 0
    for line in text.strip().splitlines():
        assert code == 0, line
        words = shlex.split(line.replace("$SITE", str(site.directory)).replace("whisper-large-v3", "own-audio"))
        assert words.pop(0) == "gpu-cutover"
        try:
            code = main([*words, *(["--direct"] if words[0] == "cutover" else [])])
        except SystemExit as end:
            code = int(end.code or 0)
    return code, line


def matches(line: str, printed: str) -> bool:
    """Does the command print this line? `…` stands for anything."""
    pattern = re.escape(line.rstrip()).replace("…", ".*")
    return re.search(f"^{pattern}$", printed, re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_ends_and_prints_as_the_page_says(
    rehearsed: Site, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site, printed, lost = rehearsed, "", False
    for what, kind, text in BLOCK.findall((ROOT / "runbooks" / f"{page}.md").read_text()):
        if what == "text":
            for line in text.splitlines():
                assert matches(line, printed), f"{page}: {line!r} is not in\n{printed}"
            continue
        if (kind in ("lost", "degraded")) != lost:
            lost = not lost
            (lose if lost else bring_back)(site, "gw2")
        for gateway in site.gateways.values():
            gateway.cloud.status = 503 if kind == "cloudless" else 200
        code, line = executed(site, kind, text)
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert code in EXIT[kind], f"{page}: {line} ended with {code}\n{printed}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_for_an_emergency_has_all_its_parts(page: str) -> None:
    text = (ROOT / "runbooks" / f"{page}.md").read_text()
    found = [text.find(f"**{part}") for part in PARTS]
    assert -1 not in found, f"{page} lacks {PARTS[found.index(-1)]}"
