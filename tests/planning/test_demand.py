"""What must run at once: from the site's targets, from choices.yml, or as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_cutover.catalog import load_catalog
from gpu_cutover.catalog.choices import load_choices
from gpu_cutover.errors import InputError
from gpu_cutover.planning import targets
from gpu_cutover.planning.demand import Demand, demands
from gpu_cutover.site import Site, load_site
from gpu_cutover.site.model import Restated

CATALOG = load_catalog()
INVENTORY = Path(__file__).parents[2] / "inventory"


@pytest.fixture(scope="module")
def site() -> Site:
    return load_site(INVENTORY / "example-l40s")


def named(found: tuple[Demand, ...]) -> dict[str, Demand]:
    return {demand.name: demand for demand in found}


def test_the_plans_demand_in_tokens(site: Site) -> None:
    """12 notes of 8k and 30 chats of 4k: 98,304 + 122,880 tokens."""
    found = named(demands(site, CATALOG))
    assert found["soap"] == Demand("soap", "chat", 12, 8192)
    assert found["chat"] == Demand("chat", "chat", 30, 4096)
    assert (found["soap"].total, found["chat"].total) == (98_304, 122_880)
    assert found["audio"].tokens == 20  # 10 minutes in windows of 30 s


def test_the_tokens_are_those_that_the_targets_are_judged_by() -> None:
    asked = load_choices().demand
    assert (asked["soap"].tokens, asked["chat"].tokens) == (targets.SOAP_TOKENS, targets.CHAT_TOKENS)


def test_the_most_important_comes_first_and_notes_before_chats(site: Site) -> None:
    weights = load_choices().weights
    found = demands(site, CATALOG)
    assert [demand.name for demand in found[:2]] == ["soap", "chat"]
    assert [weights[d.route] for d in found] == sorted((weights[d.route] for d in found), reverse=True)


def test_a_restated_target_is_what_must_fit(site: Site) -> None:
    plan = site.spec.targets["concurrent_soap"]
    restated = plan.model_copy(
        update={"restated": Restated(accepted=7.0, reason="a smaller site, agreed upon", by="x")}
    )
    spec = site.spec.model_copy(update={"targets": {**site.spec.targets, "concurrent_soap": restated}})
    assert named(demands(Site(**{**site.__dict__, "spec": spec}), CATALOG))["soap"].sessions == 7


def test_what_is_asked_for_wins(site: Site) -> None:
    found = named(demands(site, CATALOG, {"soap": 24, "vision": 0}))
    assert (found["soap"].sessions, found["vision"].sessions, found["chat"].sessions) == (24, 0, 30)


def test_a_route_that_the_site_does_not_have_asks_for_nothing(site: Site) -> None:
    routes = {name: route for name, route in site.spec.routes.items() if name != "vision"}
    spec = site.spec.model_copy(update={"routes": routes})
    assert "vision" not in named(demands(Site(**{**site.__dict__, "spec": spec}), CATALOG))


@pytest.mark.parametrize(
    ("name", "sessions", "words"), [("sopa", 3, "soap"), ("", 3, "use one of"), ("soap", -1, "use 0 to")]
)
def test_what_is_no_demand_is_told_with_a_remedy(site: Site, name: str, sessions: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        demands(site, CATALOG, {name: sessions})
    assert caught.value.file == "--demand"
    assert words in caught.value.fix
