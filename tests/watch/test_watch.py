"""The watch: what it calls bad, what it forgives, and that it takes a tenant back by itself."""

from __future__ import annotations

import json
import random
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.router.orders import Place
from gpu_cutover.watch import state as states
from gpu_cutover.watch.decide import Counts, Drift, Limits, count, count_critical, decide
from gpu_cutover.watch.main import Watch
from router.tables import table, tenant

LIMITS = Limits(requests_min=10, error_rate_max=0.05, slow_s={"soap": 2.0})


def record(outcome: str = "ok", leg: str | None = "onprem", total_ms: float = 100, **more: Any) -> dict[str, Any]:
    base = {"t": 100.0, "tenant": "zam", "state": "onprem", "workload": "soap", "status": 200}
    return {**base, "outcome": outcome, "leg": leg, "total_ms": total_ms, **more}


def judged(records: list[dict[str, Any]], now: float = 200, deadline: float = 150) -> tuple[str, str]:
    counts = Counts()
    count(counts, records, "zam", 50.0, LIMITS)
    return decide(counts, LIMITS, now, deadline, deadline + 10)


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([record()] * 20, "clean"),
        ([record()] * 9, "short"),
        ([], "short"),
        ([record("error")] * 4, "bad"),
        ([record("timeout")] * 4, "bad"),
        ([record("refused", None, status=503)] * 4, "bad"),
        ([record("client_gone")] * 20, "short"),
        ([record("ok", "cloud")] * 20, "short"),
        ([record(total_ms=2500)] * 4, "bad"),
        ([record()] * 19 + [record("error")], "clean"),
        ([record()] * 15 + [record("error"), record()] * 2, "bad"),
        ([record(tenant="other")] * 20, "short"),
        ([record(t=10.0)] * 20, "short"),
    ],
)
def test_the_verdict_at_the_deadline(records: list[dict[str, Any]], verdict: str) -> None:
    assert judged(records)[0] == verdict


def test_before_the_deadline_only_proof_ends_the_watch() -> None:
    assert judged([record()] * 20, now=120)[0] == "running"
    assert judged([record("error")] * 3, now=120)[0] == "running"
    assert judged([record("error")] * 4, now=120)[0] == "bad"


def test_with_too_few_requests_it_goes_on_for_a_while() -> None:
    assert judged([record()] * 3, now=155)[0] == "running"
    assert judged([record()] * 3, now=161)[0] == "short"
    assert judged([record()] * 10, now=155)[0] == "clean"


def test_a_critical_difference_ends_it() -> None:
    counts = Counts()
    count_critical(counts, [{"t": 100, "tenant": "zam", "critical": ["a dose differs"]}], "zam", 50)
    assert decide(counts, LIMITS, 60, 150, 350)[0] == "bad"


def test_a_bad_hour_after_a_good_day_is_noticed_as_fast_as_at_the_beginning() -> None:
    drift = Drift(0.05)
    for _ in range(10_000):
        drift.add(False)
    for _ in range(4):
        drift.add(True)
    assert drift.alarm


def test_one_percent_errors_are_no_alarm_in_five_thousand_requests() -> None:
    alarms = 0
    for seed in range(20):
        source, drift = random.Random(seed), Drift(0.05)
        alarms += any((drift.add(source.random() < 0.01), drift.alarm)[1] for _ in range(5000))
    assert alarms == 0


def test_twenty_percent_errors_are_found_within_three_hundred_requests() -> None:
    for seed in range(20):
        source, drift = random.Random(seed), Drift(0.05)
        assert any((drift.add(source.random() < 0.2), drift.alarm)[1] for _ in range(300))


def test_a_watch_is_needed_when_the_routes_changed_or_the_last_one_ended_badly() -> None:
    clean = {"verdict": "clean", "started": 100.0}
    assert states.must_begin(None, None)
    assert not states.must_begin(clean, 99.0)
    assert states.must_begin(clean, 101.0)
    assert states.must_begin({"verdict": "rolled_back", "started": 100.0}, 99.0)
    assert not states.must_begin({"verdict": "running", "started": 100.0}, 99.0)


def test_a_tail_reads_each_line_once_waits_for_half_lines_and_follows_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "r.jsonl"
    log.write_text('{"n": 1}\n{"n": 2')
    tail = states.Tail(log, None)
    assert [one["n"] for one in tail.lines()] == [1]
    with log.open("a") as handle:
        handle.write("}\n")
    again = states.Tail(log, tail.position)
    assert [one["n"] for one in again.lines()] == [2]
    with log.open("a") as handle:
        handle.write('{"n": 3}\n')
    log.rename(tmp_path / "r.jsonl.1")
    log.write_text('{"n": 4}\nnot json\n')
    assert [one["n"] for one in again.lines()] == [3, 4]
    assert again.lines() == []


SETTINGS = {
    "duration_s": 100,
    "requests_min": 10,
    "error_rate_max": 0.05,
    "slow_s": {},
    "observe_only": False,
}


def staged(directory: Path, cloud: str, policy: str = "standard", **settings: Any) -> Watch:
    pool = "sealed" if policy == "sensitive" else "hybrid"
    data = table(pool, cloud=cloud, tenants={"zam": tenant(policy, chat="onprem", audio="onprem")})
    (directory / f"{pool}.json").write_text(json.dumps(data))
    with (directory / f"requests-{pool}.jsonl").open("w") as handle:
        handle.writelines(json.dumps(record("error")) + "\n" for _ in range(5))
    return Watch(states.fresh("zam", 50.0, {**SETTINGS, **settings}), place_in(directory))


def place_in(directory: Path) -> Place:
    return Place(directory, directory / "changes.jsonl", directory)


def chat_state(directory: Path, pool: str = "hybrid") -> str:
    return str(json.loads((directory / f"{pool}.json").read_text())["tenants"]["zam"]["routes"]["chat"])


@pytest.fixture
def cloud() -> Any:
    """Something that answers HTTP, as LiteLLM does when it is asked whether it is ready."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_it_takes_the_tenant_back_by_itself(tmp_path: Path, cloud: str) -> None:
    watch = staged(tmp_path, cloud)
    watch.tick(101.0)
    assert watch.state["verdict"] == "rolled_back"
    assert chat_state(tmp_path) == "cloud"
    assert watch.state["rollback"]["before"]["zam"]["chat"] == "onprem"
    assert watch.state["rollback"]["took_s"] < 1


def test_observe_only_tells_and_changes_nothing(tmp_path: Path, cloud: str) -> None:
    watch = staged(tmp_path, cloud, observe_only=True)
    watch.tick(101.0)
    assert watch.state["verdict"] == "bad"
    assert chat_state(tmp_path) == "onprem"


def test_a_sensitive_tenant_is_never_sent_to_the_cloud(tmp_path: Path, cloud: str) -> None:
    watch = staged(tmp_path, cloud, policy="sensitive")
    watch.tick(101.0)
    assert watch.state["verdict"] == "bad"
    assert "stays onprem" in watch.state["reason"]
    assert chat_state(tmp_path, "sealed") == "onprem"


def test_without_a_target_that_listens_nobody_moves(tmp_path: Path) -> None:
    watch = staged(tmp_path, "http://127.0.0.1:9")
    watch.tick(101.0)
    assert watch.state["verdict"] == "bad"
    assert chat_state(tmp_path) == "onprem"


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path, cloud: str) -> None:
    watch = staged(tmp_path, cloud)
    log = tmp_path / "requests-hybrid.jsonl"
    log.write_text("".join(json.dumps(record()) + "\n" for _ in range(7)))
    watch.tick(101.0)
    path = tmp_path / "state.json"
    states.write(path, watch.state)
    again = Watch(states.read(path) or {}, place_in(tmp_path))
    again.tick(102.0)
    assert again.counts.requests == 7
    assert again.state["deadline"] == 150.0
