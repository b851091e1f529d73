"""Flips, faults and restarts in any order on two gateways: what never bends holds after every step.

A sensitive or unknown tenant reaches no cloud; a rollback is legal in every state and counts from the next request on;
who answered is told truly; a stream that was cut is never called complete; nothing is left behind.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gpu_cutover.errors import InputError
from gpu_cutover.peers import decide
from gpu_cutover.router import change
from gpu_cutover.router.files import read_table

from ..matrix.client import Got, ask
from ..matrix.faulty import text_of
from .model import FOREIGN, LOST, ROUTE, SENSITIVE, TENANTS, Model, models_of, tables
from .records import Asked, check_records
from .rig import POOLS, Gateway, Rig, RouterProcess, wait_for

GATEWAYS = st.sampled_from(("gw1", "gw2"))
TENANT = st.sampled_from(("std", "std", "two", "two", "sec", "far"))
ROUTES = st.sampled_from(("chat", "embed", "audio"))
KINDS = st.sampled_from(tuple(ROUTE))
STATES = st.sampled_from(("cloud", "mirror", "onprem", "off"))
FAULTS = st.sampled_from(("", "", "500", "500", "cut", "cut", "refuse", "silent"))
POOL = st.sampled_from(POOLS)
QUESTIONS = st.lists(st.tuples(GATEWAYS, TENANT, KINDS), min_size=1, max_size=4)
DEAD = ("500", "refuse")  # a fault that the readiness check sees


class Held:
    """A stream that is half answered."""

    def __init__(self, asked: Asked, answer: Any) -> None:
        self.asked, self.answer, self.disturbed = asked, answer, False


class Machine(RuleBasedStateMachine):
    """One site; `rig` is shared by all examples of a run, tables, models and journal are each example's own."""

    rig: Rig

    def __init__(self) -> None:
        super().__init__()
        self.rig.examples += 1
        self.example = self.rig.examples
        self.model = Model(self.example, tuple(self.rig.gateways))
        self.asked: list[Asked] = []
        self.held: list[Held] = []
        self.numbers = 0
        self._all_well()
        for gateway in self.rig.gateways.values():
            gateway.install(self.example, tables(self.example, self.rig))
        for router in self.rig.routers():
            if not router.serves():
                router.start()
            wait_for(lambda r=router: r.health()["table_version"] == 1, "the example's table is in force")  # type: ignore[misc]
        for name in self.rig.gateways:  # so that nobody takes the example before for this one's experience
            for kind in ("chat", "embed", "audio"):
                self._ask(name, "hybrid", "far", kind)
        self._quiet()
        self.descriptors = {router: router.descriptors() for router in self.rig.routers()}

    def _all_well(self) -> None:
        self.rig.do(self.rig.engine.become(""))
        self.rig.do(self.rig.cloud.become(""))
        self.rig.guard.placement = "healthy"

    # --- asking -----------------------------------------------------------------------------------------------------

    def _question(self, gateway: str, pool: str, tenant: str, kind: str, more: str = "") -> Asked:
        self.numbers += 1
        return Asked(f"{tenant}.{self.example}.{self.numbers}{more}", gateway, pool, tenant, kind)

    def _ask(self, gateway: str, pool: str, tenant: str, kind: str) -> str:
        """Put one question; who answered."""
        return self._ask_all([(gateway, pool, tenant, kind)])[0]

    def _ask_all(self, questions: list[tuple[str, str, str, str]]) -> list[str]:
        """Put questions at once and check each answer against what the model permits."""
        waiting = []
        for question in questions:
            asked = self._question(*question)
            router = self._router(asked.gateway, asked.pool)
            permitted = self.model.outcomes(asked, self.rig, self._open_breakers(router))
            answer = self.rig.begin(ask(router.url, asked.tenant, asked.request_id, asked.kind))
            waiting.append((asked, permitted, answer))
        for asked, permitted, answer in waiting:
            got = answer.result(60)
            assert got
            asked.outcome = judged(got, asked, self.rig)
            assert asked.outcome in permitted, (asked, permitted, got)
        self.asked += [asked for asked, _, _ in waiting]
        return [asked.outcome for asked, _, _ in waiting]

    def _router(self, gateway: str, pool: str) -> RouterProcess:
        return self.rig.gateways[gateway].routers[pool]

    @staticmethod
    def _open_breakers(router: RouterProcess) -> list[str]:
        return list(router.health()["breakers_open"])

    def _quiet(self) -> None:
        """Until no copy is under way any more: then nobody dials but who is asked."""
        for gateway in self.rig.gateways:
            router = self._router(gateway, "hybrid")
            wait_for(lambda r=router: not r.health()["mirror_pending"], "no copy is under way")  # type: ignore[misc]

    @rule(questions=QUESTIONS)
    def tenants_ask(self, questions: list[tuple[str, str, str]]) -> None:
        self._ask_all([(gateway, TENANTS[tenant][1], tenant, kind) for gateway, tenant, kind in questions])

    @rule(gateway=GATEWAYS, pool=POOL, tenant=st.sampled_from(FOREIGN), kind=KINDS)
    def somebody_asks_who_may_not_reach_the_cloud(self, gateway: str, pool: str, tenant: str, kind: str) -> None:
        self._quiet()
        before = self.rig.cloud.accepted
        self._ask(gateway, pool, tenant, kind)
        self._quiet()
        assert self.rig.cloud.accepted == before

    # --- streams that last ------------------------------------------------------------------------------------------

    @rule(gateway=GATEWAYS, tenant=TENANT)
    def a_stream_begins(self, gateway: str, tenant: str) -> None:
        if len(self.held) > 2 or self.rig.engine.fault or self.rig.cloud.fault:
            return
        pool = TENANTS[tenant][1]
        asked = self._question(gateway, pool, tenant, "chat_stream", ".held")
        router = self._router(gateway, pool)
        permitted = self.model.outcomes(asked, self.rig, self._open_breakers(router))
        answer = self.rig.begin(ask(router.url, tenant, asked.request_id, "chat_stream"))
        legs = (self.rig.engine, self.rig.cloud)
        wait_for(lambda: answer.done() or any(leg.asked[asked.request_id] for leg in legs), "a stream begins")
        if answer.done() or "refused" in permitted:
            got = answer.result(20)
            assert got
            asked.outcome = judged(got, asked, self.rig)
            assert asked.outcome in permitted
            self.asked.append(asked)
        else:
            self.held.append(Held(asked, answer))

    @rule()
    def a_stream_goes_on_to_its_end(self) -> None:
        if not self.held:
            return
        held = self.held.pop(0)
        for leg in (self.rig.engine, self.rig.cloud):
            self.rig.call(lambda stand_in=leg: stand_in.release(held.asked.request_id))  # type: ignore[misc]
        if held.disturbed:
            with contextlib.suppress(IndexError):  # the head of the answer may not have come, either
                cut = held.answer.result(30)
                assert not cut.clean and b"[DONE]" not in cut.body
            return
        held.asked.outcome = judged(held.answer.result(30), held.asked, self.rig)
        assert held.asked.outcome in ("onprem", "cloud")
        self.asked.append(held.asked)

    def _disturb(self, **of: str) -> None:
        """What is about to happen cuts these streams."""
        for held in self.held:
            if all(getattr(held.asked, key) == value for key, value in of.items()):
                held.disturbed = True

    # --- orders -----------------------------------------------------------------------------------------------------

    @rule(gateways=st.sampled_from((("gw1", "gw2"), ("gw1",), ("gw2",))), tenant=TENANT, route=ROUTES, state=STATES)
    def a_route_is_set(self, gateways: tuple[str, ...], tenant: str, route: str, state: str) -> None:
        policy, pool = TENANTS[tenant]
        for name in gateways:
            gateway, before = self.rig.gateways[name], self._bytes(name)
            legal = state in change.legal_states(policy, pool)
            try:
                told = gateway.order("set", states={tenant: {route: state}})
            except InputError:
                assert not legal or self.model.bad[name]
                assert self._bytes(name) == before
                continue
            assert legal or not told["changed"]
            assert told["outcome"] == "done"
            self.model.states[name][tenant][route] = state
            self._ask(name, pool, tenant, "embed" if route == "embed" else "audio" if route == "audio" else "chat")

    def _bytes(self, gateway: str) -> dict[str, bytes]:
        return {pool: self.rig.gateways[gateway].place.table(pool).read_bytes() for pool in POOLS}

    @rule(
        gateways=st.sampled_from((("gw1", "gw2"), ("gw1",), ("gw2",))),
        tenant=st.none() | TENANT,
        route=st.none() | ROUTES,
        accept_off=st.booleans(),
    )
    def a_rollback(self, gateways: tuple[str, ...], tenant: str | None, route: str | None, accept_off: bool) -> None:
        for name in gateways:
            leaving = self.model.onprem(name, tenant, route, "hybrid")
            told = self.rig.gateways[name].order(
                "roll_back", tenant=tenant, route=route, accept_off=accept_off, check="fast"
            )
            assert told["outcome"] == "done"
            no_cloud = self._silent(told, "cloud", leaving)
            moved, waiting = self.model.rolled_back(name, tenant, route, accept_off, no_cloud)
            assert told["after"] == moved
            assert {one.partition(" ")[0] for one in told["waiting"]} == waiting
            nowhere = self._silent(told, "onprem", leaving)
            assert set(told["neither"]) == {one for one in waiting if one.partition("/")[2] in nowhere}
            self._healed(name)
            for who, routes in moved.items():
                one = sorted(routes)[0]
                outcome = self._ask(name, TENANTS[who][1], who, one)
                assert outcome != "onprem"

    def _silent(self, told: dict[str, Any], side: str, looked_at: set[str]) -> set[str]:
        """The routes whose leg was found not to answer, once that is seen to be so: a dead one is found out, a sound
        one is blamed only for what it was seen to do. One that says nothing may have answered others just now.
        """
        found: dict[str, str] = told["silent"][side]
        fault = (self.rig.cloud if side == "cloud" else self.rig.engine).fault
        if fault in DEAD:
            lost = set(LOST[self.model.placement]) if side == "onprem" else set()
            assert looked_at - lost <= set(found), (side, fault, looked_at, told)
        elif fault != "silent":
            assert all("all failed" in why or "breaker" in why for why in found.values()), (side, fault, found)
        return set(found)

    def _healed(self, name: str) -> None:
        """A rollback writes a whole table where a bad one was, if it had to change it."""
        gateway = self.rig.gateways[name]
        self.model.bad[name] = {pool for pool in self.model.bad[name] if not sound(gateway, pool)}

    @rule(gateways=st.sampled_from((("gw1", "gw2"), ("gw2",))), route=ROUTES, out=st.booleans(), both=st.booleans())
    def a_model_goes_out_or_comes_back(self, gateways: tuple[str, ...], route: str, out: bool, both: bool) -> None:
        pools = list(POOLS) if both or not out else ["hybrid"]
        for name in gateways:
            try:
                told = self.rig.gateways[name].order(
                    "model", model=models_of(self.example)[route], out=out, pools=pools, check="fast"
                )
            except InputError:
                assert not out and self.model.bad[name]
                continue
            moving = self.model.onprem(name, None, route, *(["hybrid"] if out else POOLS))
            assert bool(told["held"]) == (route in self._silent(told, "cloud" if out else "onprem", moving) & moving)
            if not told["held"]:
                self.model.set_out(name, route, out, pools)
                self._healed(name)

    @rule(gateways=st.sampled_from((("gw1", "gw2"), ("gw1",))), route=ROUTES, word=st.sampled_from(change.OVERRIDES))
    def a_breaker_is_held(self, gateways: tuple[str, ...], route: str, word: str) -> None:
        for name in gateways:
            try:
                self.rig.gateways[name].order("breaker", model=models_of(self.example)[route], override=word)
            except InputError:
                assert self.model.bad[name]
                continue
            self.model.overrides[name][route] = word

    @rule(name=GATEWAYS, pool=POOL)
    def a_gateway_catches_up_with_the_other(self, name: str, pool: str) -> None:
        if any(self.model.bad.values()):
            return
        other = "gw2" if name == "gw1" else "gw1"
        own, theirs = self.rig.gateways[name], self.rig.gateways[other]
        order = decide.order_for(own.table(pool), decide.shared_part(theirs.table(pool)), other, f"peer-{self.numbers}")
        if order is None:
            return
        told = own.carry_out(order)
        assert told["outcome"] == "done"
        self.model.adopted(name, other, pool, own.table(pool))

    # --- faults -----------------------------------------------------------------------------------------------------

    @rule(fault=FAULTS, questions=QUESTIONS)
    def the_engine_changes(self, fault: str, questions: list[tuple[str, str, str]]) -> None:
        if fault == "refuse" != self.rig.engine.fault:
            self._disturb_leg("onprem")
        self.rig.do(self.rig.engine.become(fault))
        self.tenants_ask(questions)

    @rule(fault=FAULTS, questions=QUESTIONS)
    def the_cloud_changes(self, fault: str, questions: list[tuple[str, str, str]]) -> None:
        if fault == "refuse" != self.rig.cloud.fault:
            self._disturb_leg("cloud")
        self.rig.do(self.rig.cloud.become(fault))
        self.tenants_ask(questions)

    def _disturb_leg(self, leg: str) -> None:
        stand_in = self.rig.engine if leg == "onprem" else self.rig.cloud
        for held in self.held:
            held.disturbed |= stand_in.asked[held.asked.request_id] > 0

    @rule(placement=st.sampled_from(("healthy", "without-gpu0")), questions=QUESTIONS)
    def a_gpu_is_lost_or_back(self, placement: str, questions: list[tuple[str, str, str]]) -> None:
        self.rig.guard.placement = self.model.placement = placement
        self._heard()
        self.tenants_ask(questions)

    def _heard(self) -> None:
        for router in self.rig.routers():
            wait_for(lambda r=router: r.health()["placement"] == self.model.placement, "the placement is heard of")  # type: ignore[misc]

    @rule(name=GATEWAYS, pool=POOL)
    def a_router_is_replaced(self, name: str, pool: str) -> None:
        router = self._router(name, pool)
        self._quiet()
        router.start()
        if not self._streams_on(router):
            wait_for(router.drained, "who handed over ends")
        self._heard()
        self.descriptors[router] = max(self.descriptors[router], router.descriptors())

    @rule(name=GATEWAYS, pool=POOL)
    def a_router_is_killed(self, name: str, pool: str) -> None:
        self._disturb(gateway=name, pool=pool)
        router = self._router(name, pool)
        router.kill()
        for asked in self.asked:
            asked.told_in_log &= (asked.gateway, asked.pool) != (name, pool) or time.monotonic() - asked.at > 1.0
        router.start()
        self._heard()
        self.descriptors[router] = router.descriptors()

    @rule(name=GATEWAYS, pool=POOL, how=st.sampled_from(("torn", "illegal")))
    def a_table_is_spoilt(self, name: str, pool: str, how: str) -> None:
        gateway = self.rig.gateways[name]
        if pool in self.model.bad[name]:
            return
        content = gateway.place.table(pool).read_bytes()
        tenant = "sec" if pool == "sealed" else "far"
        raw = gateway.table(pool)
        raw["tenants"][tenant]["routes"]["chat"] = "mirror"
        raw["version"] += 1
        gateway.spoil(pool, content[: len(content) // 2] if how == "torn" else raw)
        self.model.bad[name].add(pool)
        router = self._router(name, pool)
        self._ask(name, pool, tenant, "chat")
        assert router.health()["problems"]

    @rule()
    def the_tables_are_repaired(self) -> None:
        for name, pools in self.model.bad.items():
            for pool in pools:
                self.rig.gateways[name].repair(pool)
            self.model.bad[name] = set()

    # --- what never bends ---------------------------------------------------------------------------------------------

    @invariant()
    def the_cloud_has_heard_of_nobody_who_may_not_reach_it(self) -> None:
        assert not [one for one in self.rig.cloud.asked if one.partition(".")[0] in (*FOREIGN, *SENSITIVE)]

    @invariant()
    def our_machine_has_heard_of_nobody_who_stays_on_the_cloud(self) -> None:
        assert not [one for one in self.rig.engine.asked if one.partition(".")[0] in ("far", "nobody")]

    def _streams_on(self, router: RouterProcess) -> bool:
        return any(self._router(held.asked.gateway, held.asked.pool) is router for held in self.held)

    def teardown(self) -> None:
        """Nothing is left behind, and the records say what happened."""
        self._all_well()
        while self.held:
            self.a_stream_goes_on_to_its_end()
        self._quiet()
        for router in self.rig.routers():
            wait_for(router.drained, "who handed over ends")
            wait_for(lambda r=router: not r.health()["in_flight"], "no request is left")  # type: ignore[misc]
            enough = self.descriptors[router]
            wait_for(lambda r=router, n=enough: r.descriptors() <= n, "no descriptor is left")  # type: ignore[misc]
        check_records(self.rig, self.asked)


def sound(gateway: Gateway, pool: str) -> bool:
    """Is the table on the disk one that a router would take?"""
    try:
        read_table(gateway.place.table(pool))
    except InputError:
        return False
    return True


def judged(got: Got, asked: Asked, rig: Rig) -> str:
    """`onprem`, `cloud`, `broken`, `failed` or `refused`: what came, once it was seen to be consistent in itself."""
    counts = {leg.name: leg.asked[asked.request_id] for leg in (rig.engine, rig.cloud)}
    assert max(counts.values()) <= 1, "asked twice"
    if got.status != 200:
        assert got.status in (503, 504) and got.clean and "x-served-by" not in got.headers
        assert "retry-after" in got.headers
        return "failed" if any(counts.values()) or b"did not answer" in got.body else "refused"
    leg = got.headers["x-served-by"]
    assert counts[leg] == 1
    if got.clean:
        assert got.text() == text_of(leg, "")
        assert asked.kind != "chat_stream" or got.body.endswith(b"data: [DONE]\n\n")
        return leg
    good, error, _ = got.body.partition(b"event: error\n")
    assert asked.kind == "chat_stream" and error and b"[DONE]" not in got.body
    assert text_of(leg, "").startswith(Got(200, got.headers, good, False).text())
    return "broken"


@pytest.mark.timeout(500)  # 20 s a run where little else runs
@pytest.mark.parametrize("run", ["one", "another"])
def test_no_order_of_flips_faults_and_restarts_bends_what_never_bends(tmp_path: Path, run: str) -> None:
    rig = Rig(tmp_path)
    with rig.running():
        machine = type(f"Machine_{run}", (Machine,), {"rig": rig})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=8,
                stateful_step_count=25,
                derandomize=False,
                print_blob=True,
                phases=(Phase.reuse, Phase.generate),  # real processes: shrinking would take minutes
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        assert [router.end() for router in rig.routers()] == [0, 0, 0, 0]
