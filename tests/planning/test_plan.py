"""The whole plan of a site: verdicts, what hurts, placements, both tiers; as data, as text and as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.catalog import load_catalog
from gpu_cutover.errors import InputError
from gpu_cutover.planning.finding import SEVERITIES
from gpu_cutover.planning.plan import Question, make, worst
from gpu_cutover.planning.plan_page import render, tied
from gpu_cutover.planning.plan_text import WIDTH, figure, lines
from gpu_cutover.site.load import load_site

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 22)
SITES = ("example-l40s", "example-h100", "twin")


@cache
def plan(name: str, tier: str | None = None, **asked: int) -> dict[str, Any]:
    site = load_site(ROOT / "inventory" / name, "site")
    return make(Question(site, tier or site.spec.tier, asked, TODAY), load_catalog())


def target(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["targets"] if one["name"] == name)


def ids(found: dict[str, Any]) -> list[str]:
    return [one["id"] for one in found["findings"]]


def engine(placement: dict[str, Any], model: str) -> dict[str, Any]:
    return next(placed for placed in placement["models"] if placed["model"] == model)


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SITES)
def test_the_keys_are_the_promised_ones_and_the_plan_is_plain_data(name: str) -> None:
    found = json.loads(json.dumps(plan(name), allow_nan=False))
    assert {"verdict", "targets", "findings", "placements", "power", "cost", "compat", "tiers", "changes"} <= set(found)
    for one in found["targets"]:
        assert {"name", "target", "floor", "expected", "verdict", "arithmetic"} <= set(one)
        assert ("accepted" in one) == ("accepted_verdict" in one)
    assert all(set(one) == {"id", "severity", "text", "fix", "source"} for one in found["findings"])
    for placement in found["placements"].values():
        assert {"models", "served", "degraded", "off", "capacity", "binding"} <= set(placement)
        assert all({"model", "gpus", "format", "kv_tokens", "flags"} <= set(one) for one in placement["models"])


@pytest.mark.parametrize("name", SITES)
def test_what_hurts_is_ordered_and_every_finding_says_why_what_to_do_and_where_it_comes_from(name: str) -> None:
    findings = plan(name)["findings"]
    order = [SEVERITIES.index(one["severity"]) for one in findings]
    assert order == sorted(order)
    assert len(set(ids(plan(name)))) == len(findings)
    assert all(one["text"] and one["fix"] and one["source"] for one in findings)


def test_the_budget_tier_names_the_note_the_supplies_and_the_two_models_on_one_gpu() -> None:
    found = plan("example-l40s")
    assert found["verdict"] == "impossible"
    assert {"soap-full-note-impossible", "psu-not-redundant", "qwen72-llava-one-gpu"} <= set(ids(found))
    assert ids(found)[0] == "soap-full-note-impossible"
    text = next(one["text"] for one in found["findings"] if one["id"] == "qwen72-llava-one-gpu")
    assert "38.7 + 14.1 GiB" in text and "55.8 GiB" in text and "41.4 GiB" in text


def test_the_premium_tier_serves_the_70b_as_fp8_on_two_gpus_and_meets_the_first_token() -> None:
    found = plan("example-h100")
    llama = engine(found["placements"]["healthy"], "llama-3.1-70b-instruct")
    assert (llama["format"], len(llama["gpus"])) == ("fp8", 2)
    assert target(found, "soap_p95_s")["verdict"] == "impossible"
    assert target(found, "soap_first_token_p95_s")["verdict"] == "met"


@pytest.mark.parametrize("name", SITES)
def test_an_accepted_figure_has_its_own_verdict_beside_the_plans(name: str) -> None:
    note = target(plan(name), "soap_p95_s")
    assert (note["verdict"], note["accepted_verdict"]) == ("impossible", "met")


@pytest.mark.parametrize("name", SITES)
def test_every_lost_gpu_has_a_placement_that_leaves_it_free_and_serves_no_more(name: str) -> None:
    placements = plan(name)["placements"]
    assert set(placements) == {"healthy", *(f"without-gpu{index}" for index in range(4))}
    for placement in placements.values():
        assert all(placement["lost"] not in placed["gpus"] for placed in placement["models"])
        assert set(placement["served"]) <= set(placements["healthy"]["served"])
        assert all(gpu["used_gib"] <= gpu["budget_gib"] + 0.1 for gpu in placement["memory"])


def test_the_plan_as_written_does_not_hold_in_what_the_facts_name() -> None:
    everywhere = {
        *("derate-to-three-gpus", "memory-rule-always-true", "latency-rule-never-clears", "dcgm-policy-only-notifies"),
        *("thermal-alarm-in-degrees", "calendar-weekdays", "calendar-closed-days", "lead-time"),
        *("payback-contradiction", "llama70-unquantised", "whisper-recordings-at-once"),
    }
    assert everywhere <= set(ids(plan("example-l40s"))) & set(ids(plan("example-h100")))
    assert "pair-across-sockets" in ids(plan("example-l40s"))
    assert "pair-across-sockets" not in ids(plan("example-h100"))
    assert "p2p-threshold-of-another-board" in ids(plan("example-h100"))


def test_the_published_70b_leaves_four_notes_on_the_premium_pair_and_does_not_load_on_the_other() -> None:
    texts = {tier: {one["id"]: one for one in plan(f"example-{tier}")["findings"]} for tier in ("l40s", "h100")}
    assert "4 notes of 8,192, not 12" in texts["h100"]["llama70-unquantised"]["text"]
    assert texts["l40s"]["llama70-unquantised"]["severity"] == "blocker"


def test_christmas_eve_is_a_thursday() -> None:
    text = next(one["text"] for one in plan("example-l40s")["findings"] if one["id"] == "calendar-weekdays")
    assert "Wednesday 24 December 2026 is a Thursday" in text


def test_both_tiers_are_judged_by_the_same_functions_with_the_models_that_fit_them() -> None:
    found = plan("example-l40s")
    assert set(found["tiers"]) == {"l40s-4", "h100-sxm-4"}
    formats = {
        tier: engine(side["placements"]["healthy"], "llama-3.1-70b-instruct")["format"]
        for tier, side in found["tiers"].items()
    }
    assert formats == {"l40s-4": "awq-int4", "h100-sxm-4": "fp8"}
    assert found["tiers"] == plan("example-h100")["tiers"] | {
        name: side for name, side in found["tiers"].items() if name in found["tiers"]
    }


def test_another_tier_is_judged_with_its_own_supplies_and_placement() -> None:
    found = plan("example-l40s", "h100-sxm-4")
    assert (found["tier"], found["declared_tier"]) == ("h100-sxm-4", "l40s-4")
    assert found["power"]["declared"]["supplies"]["watts"] == 3000
    assert target(found, "whisper_p95_s")["verdict"] == "met"


def test_what_does_not_fit_one_gpu_is_told_with_what_does_and_its_price() -> None:
    texts = [
        next(one["text"] for one in plan(name)["findings"] if one["id"] == "qwen72-llava-one-gpu") for name in SITES[:2]
    ]
    assert "qwen2.5-72b-instruct does fit as awq-int4 on GPUs 0+1 beside" in texts[0]
    assert "whisper-large-v3 then share a GPU with a language model, each at half speed" in texts[0]
    assert "does fit" not in texts[1]


def test_a_model_that_demand_drives_out_is_told_with_what_takes_its_place() -> None:
    tiers = plan("example-l40s")["tiers"]
    assert tiers["h100-sxm-4"]["swaps"] == []
    (swap,) = tiers["l40s-4"]["swaps"]
    assert "reason is answered by qwen2.5-32b-instruct instead of qwen2.5-72b-instruct" in swap
    assert "12 soap and 30 chat take GPUs 2+3 for llama-3.1-70b-instruct, not GPU 1" in swap
    assert swap in " ".join(" ".join(lines(plan("example-l40s"))).split())


def test_more_notes_than_a_model_has_cache_for_bring_a_smaller_one_and_say_so() -> None:
    found = plan("example-l40s", "h100-sxm-4", soap=100)
    text = next(one["text"] for one in found["findings"] if one["id"] == "chat-model-swapped")
    assert "chat is answered by qwen2.5-32b-instruct instead of llama-3.1-70b-instruct" in text
    assert "100 soap and 30 chat ask for a cache of 942,080 tokens" in text


@pytest.mark.parametrize(("share", "redundant"), [(0.95, True), (0.1, False)])
def test_supplies_are_judged_by_the_sites_own_share(share: float, redundant: bool) -> None:
    site = load_site(ROOT / "inventory" / "example-l40s", "site")
    gates = site.spec.gates.model_copy(update={"psu_load_max": share})
    site = replace(site, spec=site.spec.model_copy(update={"gates": gates}))
    found = make(Question(site, site.spec.tier, {}, TODAY), load_catalog())
    assert found["power"]["declared"]["redundant"] == redundant
    assert ("site-psu-not-redundant" in ids(found)) != redundant


def test_impossible_demand_is_told_with_what_binds() -> None:
    found = plan("example-l40s", soap=1_000_000)
    assert found["verdict"] == "impossible"
    assert target(found, "concurrent_soap")["verdict"] == "impossible"
    assert target(found, "concurrent_soap")["target"] == 1_000_000
    healthy = found["placements"]["healthy"]
    assert healthy["capacity"]["soap"] < 1_000_000
    assert "short" in healthy["binding"]
    assert any(change["target"] == "concurrent_soap" for change in found["changes"])


def test_more_notes_asked_for_take_longer() -> None:
    more, less = (target(plan("example-h100", soap=soap), "soap_p95_s")["expected"] for soap in (14, 6))
    assert more > target(plan("example-h100"), "soap_p95_s")["expected"] > less


@pytest.mark.parametrize(
    ("tier", "asked", "key", "fix"),
    [
        ("l40s-5", {}, "l40s-5", "l40s-4"),
        (None, {"foo": 3}, "foo", "soap"),
        (None, {"soap": -1}, "soap", "0 to"),
    ],
)
def test_unknown_names_and_numbers_are_told_with_the_known_ones(
    tier: str | None, asked: dict[str, int], key: str, fix: str
) -> None:
    with pytest.raises(InputError) as told:
        plan("example-l40s", tier, **asked)
    assert key in str(told.value) and fix in told.value.fix


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["met", "at risk", "impossible"], "impossible"),
        (["met", "at risk"], "at risk"),
        (["met", "measured"], "met"),
        ([], "met"),
    ],
)
def test_the_worst_verdict_is_the_plans(verdicts: list[str], word: str) -> None:
    assert worst(verdicts) == word


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SITES)
def test_the_text_fits_a_terminal_and_begins_with_the_verdict(name: str) -> None:
    text = list(lines(plan(name)))
    assert text[0].endswith(": IMPOSSIBLE")
    assert "SOAP note of 400 tokens" in "\n".join(text[1:5])
    assert [line for line in text if len(line) > WIDTH] == []
    told = "\n".join(text)
    assert all(f"[{one}]" in told for one in ids(plan(name)))


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "s", "-"),
        (0.0218, "s", "21.8 ms"),
        (44.27, "s", "44.3 s"),
        (240.0, "s", "4.0 min"),
        (18_000.0, "s", "5.0 h"),
        (0.999, "ratio", "99.9 %"),
        (0.99999999, "ratio", "> 99.999 %"),
        (1.0, "ratio", "100 %"),
        (1_000_000.0, "sessions", "1,000,000"),
    ],
)
def test_figures_as_a_person_says_them(value: float | None, unit: str, words: str) -> None:
    assert figure(value, unit) == words


# --- page ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [given[key] or "" for key in ("href", "src") if key in given]
        if tag == "svg":
            self.labels.append(given.get("aria-label") or "")


@pytest.mark.parametrize("name", SITES)
def test_the_page_asks_nobody_and_draws_every_placement(name: str) -> None:
    html = render(plan(name))
    page = Page()
    page.feed(html)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "script" not in page.tags
    assert len(page.labels) == 5 + len(plan(name)["tiers"])
    assert any("GPU 2 lost" in label for label in page.labels)
    assert all(one in html for one in ids(plan(name)))


def test_a_name_with_markup_is_shown_as_text() -> None:
    found = {**plan("twin"), "name": "<b>x</b>"}
    assert "<b>x</b>" not in render(found)


def test_a_figure_stays_with_its_unit() -> None:
    assert tied("in 2 s, 99.9 % of 12 sessions") == "in 2\u00a0s, 99.9\u00a0% of 12 sessions"
    assert not re.search(r"\u00a0sessions", tied("12 sessions"))
