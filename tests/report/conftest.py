"""Sites with ledgers written through the real Ledger, and a browser."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.evidence.ledger import Ledger

ROOT = Path(__file__).parents[2]
START = datetime(2026, 12, 24, 9, 0, tzinfo=UTC)
ROUTES = ("audio", "chat", "reason", "embed", "rerank", "vision")
TENANTS = ("doc-zam", "second", "third")


def ticking() -> Callable[[], datetime]:
    """A clock that moves 20 s at every look."""
    looks = count()
    return lambda: START + timedelta(seconds=20 * next(looks))


def check(
    id: str, status: str = "pass", figure: Any = 1, limit: Any = 1, unit: str = "", host: str | None = None
) -> dict:
    return {
        "id": id,
        "status": status,
        "figure": figure,
        "unit": unit,
        "limit": limit,
        "source": "tier profile",
        "sentence": f"The figure of {id} against its limit",
        "host": host,
        "relation": "at most",
    }


def gate(day: int, checks: list[dict], verdict: str = "promote") -> dict:
    begun = START + timedelta(minutes=day)
    return {
        "day": day,
        "verdict": verdict,
        "checks": checks,
        "started": begun.isoformat(),
        "finished": (begun + timedelta(seconds=31.5)).isoformat(),
        "site_digest": "0" * 64,
        "run": f"run-{day}",
    }


def telemetry(host: str, samples: int) -> dict:
    """Four GPUs warming up; the second lacks a sample in the middle."""
    gpus = {}
    for gpu in range(4):
        celsius: list[float | None] = [
            45 + 30 * (1 - math.exp(-i / 60)) + 2 * math.sin(i / 9 + gpu) for i in range(samples)
        ]
        if gpu == 1:
            celsius[samples // 2] = None
        gpus[str(gpu)] = {
            "temperature_celsius": celsius,
            "margin_celsius": [None if c is None else 88 - c for c in celsius],
            "power_w": [300 + gpu for _ in range(samples)],
        }
    marks = [{"t": START.timestamp() + samples / 2, "event": "telemetry breaks off"}]
    return {
        "host": host,
        "what": "burn-in",
        "marks": marks,
        "margin_floor_celsius": 5,
        "t": [START.timestamp() + i for i in range(samples)],
        "gpus": gpus,
    }


def states(state: str, tenants: tuple[str, ...] = TENANTS) -> dict[str, dict[str, str]]:
    return {tenant: dict.fromkeys(ROUTES, state) for tenant in tenants}


def change(before: str, after: str, tenants: tuple[str, ...], at_s: float, lasted_s: float, **what: Any) -> dict:
    finished = START + timedelta(seconds=at_s + lasted_s)
    return {
        **what,
        "routes": list(ROUTES),
        "from": before,
        "to": after,
        "started": (START + timedelta(seconds=at_s)).isoformat(),
        "finished": finished.isoformat(),
        "readback": {"gw1": "version 8"},
        "before": states(before, tenants),
        "after": states(after, tenants),
    }


@pytest.fixture
def bare_site(tmp_path: Path) -> Path:
    """The twin's declaration in a checkout of its own, nothing recorded yet."""
    checkout = tmp_path / "checkout"
    site_dir = checkout / "inventory" / "twin"
    shutil.copytree(ROOT / "inventory" / "twin", site_dir, ignore=shutil.ignore_patterns(".state", "evidence"))
    shutil.copy(ROOT / "ansible.cfg", checkout)
    (checkout / "playbooks").mkdir()
    for day in range(1, 11):
        (checkout / "playbooks" / f"day{day:02}_x.yml").touch()
    return site_dir


@pytest.fixture
def full_site(bare_site: Path) -> Path:
    """Ten promoted days, cutovers, a de-rate, a restore and two rollbacks."""
    ledger = Ledger.open(bare_site, ticking(), by="ana")
    for day in range(1, 11):
        ledger.append("gate", f"day{day:02d}", gate(day, checks_of(day)), attachments_of(day))
        if day == 6:
            ledger.append(
                "waiver", "day06", {"day": 6, "by": "Eng Lead", "reason": "fan on order", "until": "2027-01-31"}
            )
        if day == 8:
            ledger.append("cutover", "mirror", change("cloud", "mirror", TENANTS, 200, 0.4, all=True))
    for number, tenant in enumerate(TENANTS):
        data = change("mirror", "onprem", (tenant,), 260 + 40 * number, 0.3, tenant=tenant)
        ledger.append("cutover", tenant, data)
    ledger.append("drill", "rollback-synthetic", {"tenant": "drill", "started": START.isoformat(), "duration_s": 0.41})
    ledger.append("derate", "gpu2", derate())
    ledger.append("restore", "healthy", {"gpu": 2, "placement": "healthy", "cause": "operator", "timeline": []})
    ledger.append("rollback", "doc-zam", change("onprem", "cloud", ("doc-zam",), 420, 0.62, tenant="doc-zam"))
    ledger.append("rollback", "chat", change("onprem", "cloud", ("second",), 440, 0.7, model="llama-3.1-70b-instruct"))
    return bare_site


@pytest.fixture
def held_site(bare_site: Path) -> Path:
    """Day 1 promoted; day 2 held, then failed: three hosts, a check open on gw1, one failed on the whole site."""
    ledger = Ledger.open(bare_site, ticking(), by="ana")
    ledger.append("gate", "day01", gate(1, [check("a", host="gpu1")]))
    ledger.append("gate", "day02", gate(2, [check("link.up", "unproven", None, host="gw1")], "hold"))
    same = [check(name, host=host) for host in ("gpu1", "gw1", "mon1") for name in ("link.up", "dns")]
    open_check = check("clock", "unproven", None, host="gw1")
    ledger.append("gate", "day02", gate(2, [*same, open_check, check("seal", "fail", 2)], "fail"))
    return bare_site


def checks_of(day: int) -> list[dict]:
    common = [check(f"day{day}.one", host="gpu1"), check(f"day{day}.two", figure=12.345678, limit=20.0, unit="s")]
    if day == 5:
        common += [
            check("smoke.soap_p95_s", figure=14.2, limit=20.0, unit="s"),
            check("smoke.whisper_p95_s", figure=2.1, limit=2.5, unit="s"),
        ]
    return common


def attachments_of(day: int) -> list[dict[str, Any]]:
    if day == 6:
        return [{"name": "telemetry-gpu1", "content": telemetry("gpu1", 1200)}]
    if day == 5:
        row = {"n": 40, "p50_s": 0.8, "p95_s": 1.4, "p99_s": 2.0, "first_byte_p95_s": 0.4}
        return [{"name": "latency-gw1", "content": {"routes": dict.fromkeys(ROUTES, row)}}]
    if day == 8:
        row = {"n": 120, "score": 0.93, "bound": -0.012, "margin": 0.05, "critical": 0, "verdict": "not worse"}
        return [{"name": "comparison", "content": {"routes": dict.fromkeys(ROUTES, row)}}]
    return []


def derate() -> dict:
    begin = START.timestamp() + 380
    steps = ("temperature over the limit", "decided", "placement switched", "engines stopped", "engines ready")
    timeline = [{"t": begin + 0.7 * i, "event": event} for i, event in enumerate(steps)]
    return {
        "gpu": 2,
        "placement": "without-gpu2",
        "cause": "fan failure: 92 °C",
        "timeline": timeline,
        "displaced": {"chat": "smaller context"},
        "off": ["vision"],
    }


@pytest.fixture(scope="session")
def browser_profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("chromium")
