"""What the report says, and that it never says nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from gpu_cutover.errors import InputError
from gpu_cutover.evidence.ledger import Ledger
from gpu_cutover.report.command import write_report
from gpu_cutover.report.content import build
from gpu_cutover.report.figures import figure, measured, seconds, thinned
from gpu_cutover.report.gather import gather
from gpu_cutover.report.plots import Segment, nice_range, time_step
from gpu_cutover.report.routing import together

from .conftest import START, check, derate, gate, telemetry, ticking

# In the page's order: what a reader with one minute needs comes first.
SECTIONS = (
    *("targets", "routing", "thermal", "derate", "latency", "comparison"),
    *("rollbacks", "drills", "days", "waivers", "evidence", "standins"),
)


def page(site_dir: Path, tmp_path: Path) -> str:
    return write_report(site_dir, tmp_path / "report.html").read_text()


def days(html: str) -> dict[int, tuple[bool, str]]:
    """{day: (open, what is in it)}."""
    found = re.findall(
        r'<details class="day \w+" id="day-(\d+)"( open)?>(.*?)(?=<details class="day|</section>)', html, re.S
    )
    return {int(number): (bool(is_open), body) for number, is_open, body in found}


def section(html: str, name: str) -> str:
    found = re.search(
        rf'<section id="{name}">(.*?)(?=<section id="(?:{"|".join(SECTIONS)})">|</main>)', html, re.DOTALL
    )
    assert found, name
    return found[1]


def test_a_whole_site_fills_every_section(full_site: Path, tmp_path: Path) -> None:
    html = page(full_site, tmp_path)
    assert re.findall(r'<section id="(\w+)">', html) == list(SECTIONS)
    for name in SECTIONS:
        body = section(html, name)
        assert "<h2>" in body
        if name not in ("waivers", "standins", "evidence", "derate"):
            assert "No data" not in body, name
    for name in ("targets", "thermal", "routing", "comparison", "derate"):
        assert section(html, name).count("<svg") >= 2, name
    assert "All ten days are behind this site." in html
    assert "chained, signed and unchanged" in section(html, "evidence")
    assert "fan failure: 92 °C" in section(html, "derate")
    assert "0.620 s" in section(html, "rollbacks")
    assert "simulated libnvidia-ml" in section(html, "standins")


def test_an_empty_site_says_no_data_everywhere(bare_site: Path, tmp_path: Path) -> None:
    html = page(bare_site, tmp_path)
    for name in ("thermal", "latency", "routing", "comparison", "derate", "rollbacks", "drills", "evidence"):
        assert "No data:" in section(html, name), name
    assert html.count("this day has no gate yet") == 10
    assert "next is day 1" in html


def test_a_site_that_cannot_be_read_still_gets_its_report(full_site: Path, tmp_path: Path) -> None:
    (full_site / "group_vars" / "all" / "site.yml").write_text("site: {name: 7}\n")
    html = page(full_site, tmp_path)
    assert "The declared site cannot be read as it is now" in html
    assert "Stage unknown" in html
    assert "Day 10: cut over all tenants – promote" in html


def test_a_held_day_is_the_headline(bare_site: Path, tmp_path: Path) -> None:
    ledger = Ledger.open(bare_site, ticking())
    ledger.append("gate", "day01", gate(1, [check("a")]))
    open_check = {**check("fan", "unproven", None), "sentence": "Nobody heard the fan of gpu1"}
    ledger.append("gate", "day02", gate(2, [open_check], "hold"))
    html = page(bare_site, tmp_path)
    assert "Day 2, cable and network, says hold. Nobody heard the fan of gpu1: no figure, at most 1." in html
    assert "no figure" in section(html, "days")


def test_a_waived_day_counts_as_behind_and_is_named(bare_site: Path) -> None:
    ledger = Ledger.open(bare_site, ticking())
    for day in range(1, 11):
        ledger.append("gate", f"day{day:02d}", gate(day, [check("a")], "hold" if day == 2 else "promote"))
    ledger.append("waiver", "day02", {"day": 2, "by": "Eng Lead", "reason": "LLDP on Friday", "until": "2027-01-08"})
    headline = build(gather(bare_site, "2026-12-24T12:00:00Z"))["headline"]
    assert headline["kind"] == "hold"
    assert headline["sentence"] == "All ten days are behind this site, but day 2 only by waiver."


def test_a_changed_record_is_the_headline(full_site: Path, tmp_path: Path) -> None:
    attachment = sorted((full_site / "evidence" / "attachments").iterdir())[0]
    attachment.write_bytes(attachment.read_bytes() + b" ")
    html = page(full_site, tmp_path)
    assert "Not trustworthy" in html
    assert attachment.name in section(html, "evidence")


def test_restated_targets_show_plan_accepted_and_measured(full_site: Path) -> None:
    rows = build(gather(full_site, "2026-12-24T12:00:00Z"))["targets"]["rows"]
    soap = next(row for row in rows if row["title"].startswith("SOAP note of 400"))
    assert (soap["plan"], soap["measured"], soap["status"]) == ("2 s", ["14.2 s (day 5)"], "pass")
    assert soap["of_plan"] == "plan missed"
    assert soap["restated"] and soap["by"]
    assert ["no data"] in [row["measured"] for row in rows]


def test_nothing_in_the_ledger_becomes_markup(bare_site: Path, tmp_path: Path) -> None:
    bad = {**check("<img src=x>"), "sentence": "</td><script>alert(1)</script>"}
    Ledger.open(bare_site, ticking()).append("gate", "day01", gate(1, [bad]))
    html = page(bare_site, tmp_path)
    assert html.count("<script") == 1
    assert "alert(1)</script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<img" not in html


def test_nothing_is_fetched_from_anywhere(full_site: Path, tmp_path: Path) -> None:
    html = page(full_site, tmp_path)
    addresses = re.findall(r'\b(?:src|href|action|poster|srcset)="([^"]*)"', html)
    assert addresses
    assert [a for a in addresses if not a.startswith(("#", "data:,"))] == []
    assert "@import" not in html and "url(" not in html and '<link rel="stylesheet' not in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in html, "the policy lets the page's own script run and no other"


def test_it_is_readable_by_its_owner_alone_and_a_bad_path_is_told(full_site: Path, tmp_path: Path) -> None:
    path = write_report(full_site, tmp_path / "new" / "report.html")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="-o"):
        write_report(full_site, path / "below-a-file.html")


@pytest.mark.parametrize(
    "data",
    [
        {"day": 1},
        {"day": 1, "verdict": "promote", "checks": None},
        {"day": 1, "verdict": "promote", "checks": [{}]},
        {"day": "one"},
    ],
)
def test_an_odd_gate_record_does_not_stop_the_report(bare_site: Path, tmp_path: Path, data: dict) -> None:
    if data.get("checks") is None and "checks" in data:
        data = {**data, "checks": []}
    Ledger.open(bare_site, ticking()).append("gate", "day01", data)
    Ledger.open(bare_site, ticking()).append("derate", "x", {"timeline": [{"t": "soon"}, 4]})
    Ledger.open(bare_site, ticking()).append("rollback", "y", {"after": {"t": 4}})
    attachments = [{"name": "odd", "content": {"t": [1, None], "gpus": {"0": {"temperature_celsius": "hot"}}}}]
    Ledger.open(bare_site, ticking()).append("drill", "z", {}, attachments)
    assert "</html>" in page(bare_site, tmp_path)


def test_thinning_keeps_every_peak() -> None:
    times = [float(i) for i in range(86_400)]
    values: list[float | None] = [50.0] * 86_400
    values[40_000], values[50_000], values[60_000] = 91.0, 12.0, None
    points = thinned(times, values)
    assert len(points) <= 400
    assert (40_000.0, 91.0) in points and (50_000.0, 12.0) in points
    assert points == sorted(points)


def test_figures_and_durations() -> None:
    assert [figure(v, "s") for v in (None, True, 332.5, 3)] == ["no figure", "yes", "332.5 s", "3 s"]
    told = [measured(v, "s") for v in (12.345678, 0.091234, 0.000001, 0.0, 12599.7, True)]
    assert told == ["12.3 s", "91.2 ms", "1 µs", "0 s", "12600 s", "yes"]
    assert [measured(v, "", 0.95) for v in (0.94996, 0.95, 0.9935483)] == ["0.94996", "0.95", "0.994"]
    assert [seconds(v) for v in (None, 0.421, 31.52, 250, 83000)] == [
        "no data",
        "0.421 s",
        "31.5 s",
        "4 min 10 s",
        "23 h 3 min",
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 0), (45, 77), (-3, 0.001), (300, 303), (0, 1e6), (5, 5)])
def test_an_axis_encloses_its_figures_with_few_ticks(low: float, high: float) -> None:
    bottom, top, step = nice_range(low, high)
    assert bottom <= low and top >= high
    assert 1 <= round((top - bottom) / step) <= 9


def test_single_timed_requests_become_rows_per_kind_of_work(bare_site: Path) -> None:
    samples = [
        {"route": "chat", "workload": "soap", "first_s": 0.1 * n, "total_s": float(n), "error": ""}
        for n in range(1, 21)
    ]
    samples += [{"route": "embed", "workload": "embed", "first_s": None, "total_s": 0.05, "error": ""}]
    samples += [{"route": "embed", "workload": "embed", "first_s": None, "total_s": None, "error": "503"}]
    attachment = {"name": "smoke-samples", "content": {"alone": samples, "floor_s": 2}}
    Ledger.open(bare_site, ticking()).append("gate", "day05", gate(5, [check("a")]), [attachment])
    assert build(gather(bare_site, "2026-12-24T12:00:00Z"))["latency"] == [
        {"from": "day05, alone", "route": "chat soap", "cells": [20, "10.0 s", "19.0 s", "20.0 s", "1.90 s"]},
        {"from": "day05, alone", "route": "embed", "cells": [1, "50 ms", "50 ms", "50 ms", "no data"]},
    ]


def test_a_route_change_says_what_moved_and_whether_it_was_read_back(bare_site: Path) -> None:
    before, after = {"a": {"chat": "onprem", "audio": "cloud"}}, {"a": {"chat": "cloud", "audio": "cloud"}}
    data = {"model": "llama", "to": "cloud", "took_s": 0.0172, "before": before, "after": after}
    ledger = Ledger.open(bare_site, ticking())
    ledger.append("rollback", "llama", {**data, "readback": {"gw1": after, "gw2": before}})
    (row,) = build(gather(bare_site, "2026-12-24T12:00:00Z"))["rollbacks"]
    assert (row["what"], row["routes"], row["change"], row["took"]) == (
        "model llama",
        "chat",
        "onprem → cloud",
        "17.2 ms",
    )
    assert row["readback"].startswith("gw1: as ordered, gw2: a: ")


def test_a_later_day_without_a_figure_does_not_hide_an_earlier_one(full_site: Path) -> None:
    unproven = check("mirror.soap_p95_s", "unproven", None, 20.0, "s")
    Ledger.open(full_site, ticking()).append("gate", "day08", gate(8, [unproven], "hold"))
    rows = build(gather(full_site, "2026-12-24T12:00:00Z"))["targets"]["rows"]
    assert ["14.2 s (day 5)"] in [row["measured"] for row in rows]


def test_every_derate_keeps_its_own_curve_and_a_repeated_day_only_the_last(full_site: Path) -> None:
    curve = [{"name": "telemetry-gpu1", "content": telemetry("gpu1", 30)}]
    ledger = Ledger.open(full_site, ticking())
    ledger.append("gate", "day06", gate(6, [check("a")]), curve)
    for _ in range(2):
        ledger.append("derate", "gpu2", derate(), curve)
    titles = [part["title"] for part in build(gather(full_site, "2026-12-24T12:00:00Z"))["thermal"]]
    assert titles == [f"Burn-in, gpu1 (record {number})" for number in (21, 22, 23)]


def test_promoted_days_are_closed_and_held_ones_open(held_site: Path, tmp_path: Path) -> None:
    found = days(page(held_site, tmp_path))
    assert {number for number, (is_open, _) in found.items() if is_open} == {2}
    assert sorted(found) == list(range(1, 11))
    assert "1 of 1 checks passed" in found[1][1] and "The figure of a against its limit" in found[1][1]
    assert "Earlier: hold" in found[2][1] and "(record 2)" in found[2][1]


def test_checks_stand_under_their_hosts_and_open_ones_first(held_site: Path, tmp_path: Path) -> None:
    html = page(held_site, tmp_path)
    assert "The figure of seal against its limit: 2, at most 1." in html
    _, body = days(html)[2]
    hosts = re.findall(r'scope="rowgroup">([^<]+) <span>(\d+ of \d+) passed', body)
    assert hosts == [("whole site", "0 of 1"), ("gw1", "2 of 3"), ("gpu1", "2 of 2"), ("mon1", "2 of 2")]
    assert body.index("The figure of seal") < body.index("The figure of clock") < body.index("The figure of link.up")


def test_the_worst_day_judges_a_target_and_every_day_is_told(full_site: Path) -> None:
    light = check("mirror.soap_p95_s", figure=1.9357, limit=60.0, unit="s")
    Ledger.open(full_site, ticking()).append("gate", "day08", gate(8, [light]))
    built = build(gather(full_site, "2026-12-24T12:00:00Z"))["targets"]
    soap = next(row for row in built["rows"] if row["title"].startswith("SOAP note of 400"))
    assert soap["measured"] == ["14.2 s (day 5)", "1.94 s (day 8)"]
    assert soap["of_plan"] == "plan missed"
    assert "14.2 s of 60 s accepted, plan 2 s" in built["plot"]


def test_the_head_says_where_tenants_are_answered_now(full_site: Path) -> None:
    now = dict(build(gather(full_site, "2026-12-24T12:00:00Z"))["now"])
    assert (now["doc-zam"], now["second"], now["third"]) == ("cloud", "cloud", "on-prem")


def test_a_restore_draws_the_derate_before_it_once(bare_site: Path) -> None:
    t0 = START.timestamp()
    long, short = telemetry("gpu1", 60), telemetry("gpu1", 30)
    steps = [{"t": t0 + 10, "event": "derate GPU 2: margin -1 °C"}, {"t": t0 + 11, "event": "engine x is down"}]
    steps += [{"t": t0 + 12, "event": "placement without-gpu2 complete"}]
    end = [{"t": t0 + 50, "event": "restore GPU 2"}, {"t": t0 + 59.5, "event": "placement healthy complete"}]
    ledger = Ledger.open(bare_site, ticking())
    derated = {**short, "what": "derate", "marks": steps}
    ledger.append("derate", "gpu2", {"gpu": 2, "timeline": steps}, [{"name": "telemetry", "content": derated}])
    restored = {**long, "what": "restore", "marks": end}
    data = {"gpu": 2, "started": t0 + 50, "finished": t0 + 59.5, "timeline": [*steps, *end]}
    ledger.append("restore", "gpu2", data, [{"name": "telemetry", "content": restored}])
    built = build(gather(bare_site, "2026-12-24T12:00:00Z"))
    (curve,) = built["thermal"]
    assert curve["title"] == "De-rate and restore, gpu1 (record 2)"
    assert [words.split(":")[0] for words in curve["key"]] == ["D 10 s", "C 12 s", "R 50 s", "C 59 s"]
    assert "3 °C: guard acts" in curve["plots"][0]["svg"]
    assert [event["event"] for event in built["derates"][1]["events"]] == [entry["event"] for entry in end]


def test_routes_with_one_history_share_a_lane() -> None:
    early, late = [Segment(0, 9, "cloud")], [Segment(0, 5, "cloud"), Segment(5, 9, "onprem")]
    assert together([("audio", early), ("chat", early)]) == [("all 2", early)]
    assert together([("audio", late), ("chat", early), ("embed", early)]) == [("audio", late), ("other 2", early)]
    assert together([("audio", late), ("chat", early)]) == [("chat", early), ("audio", late)]


@pytest.mark.parametrize("span", [0.4, 14, 152, 900, 86_400, 9 * 86_400, 400 * 86_400])
def test_a_time_axis_has_few_round_ticks(span: float) -> None:
    step = time_step(span, 8)
    assert 1 <= span / step <= 8
