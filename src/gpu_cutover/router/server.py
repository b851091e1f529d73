"""The router's HTTP side: take in, decide, ask, stream, record. Decisions are in `decide`, the asking in `upstream`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import body
from .admission import Admission, Refusal
from .answers import EVENT_STREAM
from .body import BadBodyError
from .breaker import Breakers
from .comparing import Comparer
from .decide import Decision, Live, decide
from .files import TableFile
from .inbound import Caller, Request
from .machine import Machine
from .metrics import Metrics, Told
from .mirror import Copy, Mirror
from .outbound import Resolve, Take, addresses
from .placement import POLL_S, PlacementFollower
from .record import RecordLog
from .table import ROUTES, Leg, Table
from .upstream import JSON, Answer, Asker, Budgets, LegFailedError, Question, new_asker

MAX_BODY_BYTES = 64 * 1024 * 1024  # the edge enforces the site's limit per route; this only bounds memory
MAX_COPY_BYTES = 8 * 1024 * 1024
HASH_ASIDE_BYTES = 1024 * 1024  # larger bodies are digested in a thread (0.5 ms a MiB)
RETRY_AFTER_S = 15
RETRY_WHEN_FULL_S = 2
FLUSH_S = 0.2
BREAK_OFF_S = 1.0  # for a caller to take the last words of a broken stream
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be under way at once in this process."""

    requests: int = 512
    body_bytes: int = 256 * 1024 * 1024


@dataclass(slots=True)
class Call:
    """One request on its way: what is needed for its records."""

    tenant: str
    workload: str
    state: str
    question: Question
    sha256: str
    started: float  # perf_counter


@dataclass(slots=True)
class Kept:
    """An answer on its way, kept for a shadow; of one that is too large nothing is kept."""

    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, piece: bytes) -> None:
        """A further piece."""
        self.size += len(piece)
        if self.size > MAX_COPY_BYTES:
            self.pieces.clear()
        else:
            self.pieces.append(piece)

    def before(self, write: Take) -> Take:
        """Keep each piece, then write it."""

        def both(piece: bytes) -> bool:
            self.add(piece)
            return write(piece)

        return both


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt that may be made, in order."""

    leg_name: str
    leg: Leg
    why: str
    last: bool
    attempt: int = 0


class Router:
    """State of one router process and its handlers."""

    def __init__(
        self,
        table: TableFile,
        log_dir: Path,
        log_key: Path | None = None,
        *,
        budgets: Budgets | None = None,
        limits: Limits | None = None,
        chance: Callable[[], float] = random.random,
        resolve: Resolve = addresses,
        comparer: Comparer | None = None,
    ) -> None:
        self.table = table
        self.pool = table.get().pool
        self.budgets, self._limits = budgets or Budgets(), limits or Limits()
        self._chance, self._resolve, self._comparer = chance, resolve, comparer
        self.metrics = Metrics(self.pool)
        self.requests = RecordLog(log_dir / f"requests-{self.pool}.jsonl", key=log_key)
        self.comparisons = RecordLog(log_dir / f"comparisons-{self.pool}.jsonl", key=log_key)
        self.reverse = RecordLog(log_dir / f"reverse-{self.pool}.jsonl", key=log_key)
        self.placement = PlacementFollower()
        self.breakers = Breakers()
        self.admission = Admission(self._limits.requests, self._limits.body_bytes)
        self.draining = False
        self.asker: Asker
        self.mirror: Mirror

    # --- life -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """`handle` and `look_in` may be called inside."""
        self.asker = new_asker(self.budgets, self._resolve)
        comparer = self._comparer or Comparer()
        self.mirror = Mirror(self.asker, comparer, self.metrics, self._shadowed, self._compared)
        tasks = [asyncio.create_task(self._follow_placement()), asyncio.create_task(self._flush())]
        try:
            yield
        finally:
            await self.mirror.stop()
            if comparer is not self._comparer:
                await comparer.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.asker.close()
            for log in self._logs:
                log.close()

    def drain(self) -> None:
        """Serve what comes on open connections, and ask each caller to come back on a new one."""
        self.draining = True

    @property
    def _logs(self) -> tuple[RecordLog, ...]:
        return (self.requests, self.comparisons, self.reverse)

    async def _follow_placement(self) -> None:
        while True:
            source = self.table.get().placement_source
            if source:
                await self.placement.follow(self.asker.client, source)
            else:
                await asyncio.sleep(POLL_S)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            for log in self._logs:
                log.flush()

    # --- a request --------------------------------------------------------------------------------------------

    async def handle(self, request: Request, caller: Caller) -> None:
        """The data plane: `POST /<route>`, and `GET /health`."""
        route = request.path[1:].partition("/")[0]
        if route in ROUTES and request.method == "POST":
            await self._serve(request, caller, route)
        elif request.path == "/health":
            self._say(caller, *self.health())
        else:
            self._problem(caller, request, 405 if route in ROUTES else 404, "there is no such route")

    async def _serve(self, request: Request, caller: Caller, route: str) -> None:
        """Serve one request of one tenant."""
        started = time.perf_counter()
        tenant, size = request.header(b"x-tenant"), request.length
        if request.version != "1.1":  # a broken answer could not be told from a whole one
            return self._problem(caller, request, 505, "HTTP/1.1 is required")
        if size is None or b"content-length" not in request.headers:
            return self._problem(caller, request, 411, "content-length is required")
        if size > MAX_BODY_BYTES:
            return self._problem(caller, request, 413, "the body is too large")
        refusal = self.admission.enter(tenant, size)
        if refusal:
            return self._turned_away(request, caller, route, tenant, refusal, started)
        try:
            await self._admitted(request, caller, route, tenant, started)
        except BadBodyError as error:
            self._problem(caller, request, 400, str(error))
        except TimeoutError:
            self._problem(caller, request, 408, "the request did not arrive in time")
        finally:
            self.admission.leave(tenant, size)

    async def _admitted(self, request: Request, caller: Caller, route: str, tenant: str, started: float) -> None:
        content = await caller.read(request, self.budgets.read_s)
        digest = hashlib.sha256(content) if len(content) < HASH_ASIDE_BYTES else await _digest_aside(content)
        envelope = body.read(content, request.header(b"content-type"))
        call = _call(request, route, tenant, envelope, started, digest.hexdigest())
        table = self.table.get()
        decision = decide(table, tenant, route, self.live(table))
        call.state = decision.state
        if decision.leg is None:
            self._record(call, None, "refused", "refused", status=503)
            return self._problem(caller, request, 503, decision.sentence)
        for step in _steps(decision):
            try:
                answer = await self._ask(table, call, step)
            except LegFailedError as failure:
                if not step.last:
                    continue
                status = 504 if failure.outcome == "timeout" else 503
                return self._problem(caller, request, status, "the model did not answer")
            return await self._send(caller, table, call, step, answer, decision)
        raise AssertionError("a decision with a leg has at least one step")

    def _turned_away(
        self, request: Request, caller: Caller, route: str, tenant: str, refusal: Refusal, started: float
    ) -> None:
        """Too much is under way: said before the body is read, and recorded."""
        self.metrics.turned_away.labels(refusal.reason).inc()
        call = _call(request, route, tenant, body.Envelope(b"", "", 0), started, "")
        self._record(call, None, "refused", "refused", status=refusal.status)
        self._problem(caller, request, refusal.status, refusal.sentence, retry_after_s=RETRY_WHEN_FULL_S)

    async def _ask(self, table: Table, call: Call, step: Step) -> Answer:
        budget = self.budgets.patience_s if step.last else table.fallback.first_byte_s
        onprem = step.leg_name == "onprem"
        started = time.perf_counter()
        if onprem:
            self.breakers.started(table, step.leg.model, time.monotonic())
        try:
            return await self.asker.ask(step.leg, call.question, budget, onprem)
        except LegFailedError as failure:
            self._judge(table, step, ok=False)
            self._record(call, step, step.why, failure.outcome, status=failure.status, started=started)
            raise
        except asyncio.CancelledError:
            self._record(call, step, step.why, "client_gone", started=started)
            raise

    async def _send(
        self, caller: Caller, table: Table, call: Call, step: Step, answer: Answer, decision: Decision
    ) -> None:
        shadow = self._shadow_leg(table, decision, step, answer)
        kept = Kept() if shadow else None
        outcome = "ok" if answer.status < 400 else "refused"
        try:
            await self._deliver(caller, call, step, answer, kept)
        except LegFailedError as failure:
            outcome = failure.outcome
            await _break_off(caller, answer, failure)
        except (ConnectionError, asyncio.CancelledError) as error:
            outcome = "client_gone"
            caller.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            answer.close()
            if outcome != "client_gone":  # says nothing about the model
                self._judge(table, step, ok=outcome not in ("error", "timeout"))
            self._record(call, step, step.why, outcome, answer=answer)
        if shadow and kept and kept.pieces and outcome == "ok":
            self._offer(call, step, shadow, answer, b"".join(kept.pieces))

    async def _deliver(self, caller: Caller, call: Call, step: Step, answer: Answer, kept: Kept | None) -> None:
        """Head and body to the caller. Raises LegFailedError, ConnectionError."""
        write_s, keeps = self.budgets.write_s, not self.draining
        headers = _headers(call, step, answer)
        if answer.is_whole:
            answer.bytes_out = len(answer.first)
            caller.answer(answer.status, headers, answer.first, keeps)
            if kept:
                kept.add(answer.first)
        else:
            caller.begin(answer.status, headers, answer.content_length, keeps)
            write = kept.before(caller.write) if kept else caller.write
            await answer.pour(write, lambda: caller.taken(write_s))
            caller.end()
        await caller.taken(write_s)

    # --- shadows ------------------------------------------------------------------------------------------------

    def _shadow_leg(self, table: Table, decision: Decision, step: Step, answer: Answer) -> Leg | None:
        """The leg that gets a copy of this request, if any: the mirror's, or the cloud's for a share of requests."""
        if answer.status != 200:
            return None
        if step.leg_name == "cloud":
            return decision.mirror
        if decision.reverse and self._chance() < table.reverse_share:
            return decision.reverse
        return None

    def _offer(self, call: Call, step: Step, leg: Leg, answer: Answer, content: bytes) -> None:
        total_ms = (time.perf_counter() - call.started) * 1000
        reverse = step.leg_name == "onprem"
        media, first_ms = answer.content_type, answer.first_byte_ms
        self.mirror.offer(
            Copy(call.tenant, call.workload, call.question, leg, reverse, content, media, total_ms, first_ms)
        )

    def _shadowed(self, copy: Copy, answer: Answer | None, outcome: str, total_ms: float) -> None:
        digest = hashlib.sha256(copy.question.envelope.body).hexdigest()
        started = time.perf_counter() - total_ms / 1000
        state, leg, why = ("onprem", "cloud", "reverse") if copy.reverse else ("mirror", "onprem", "mirror")
        call = Call(copy.tenant, copy.workload, state, copy.question, digest, started)
        self._record(call, Step(leg, copy.leg, why, True), why, outcome, answer=answer)

    def _compared(self, reverse: bool, comparison: Mapping[str, Any]) -> None:
        (self.reverse if reverse else self.comparisons).add(comparison)

    # --- what is known now --------------------------------------------------------------------------------------

    def live(self, table: Table) -> Live:
        """The placement in force and the models whose breaker does not permit a request now."""
        closed_to = self.breakers.closed_to(table.overrides, time.monotonic())
        return Live(self.placement.name or table.placement, closed_to, self.placement.away)

    def _judge(self, table: Table, step: Step, ok: bool) -> None:
        model = step.leg.model
        if step.leg_name == "onprem" and self.breakers.record(table, model, time.monotonic(), ok):
            self.metrics.breaker_open.labels(model).set(self.breakers.is_open(model))

    # --- records ------------------------------------------------------------------------------------------------

    def _record(
        self,
        call: Call,
        step: Step | None,
        why: str,
        outcome: str,
        *,
        answer: Answer | None = None,
        status: int = 0,
        started: float | None = None,
    ) -> None:
        total_ms = (time.perf_counter() - (started or call.started)) * 1000
        question, leg_name = call.question, step.leg_name if step else None
        self.metrics.count(call.tenant, question.route, leg_name or "none", why, outcome)
        if step:
            first_s = answer.first_byte_ms / 1000 if answer else None
            tokens = answer.tokens if answer else None
            told = Told(question.route, step.leg_name, step.leg.model, outcome, total_ms / 1000, first_s, tokens)
            self.metrics.tell(told)
        self.requests.add(
            {
                "t": round(time.time(), 3),
                "request_id": question.request_id,
                "attempt": step.attempt if step else 0,
                "tenant": call.tenant,
                "route": question.route,
                "workload": call.workload,
                "state": call.state,
                "leg": leg_name,
                "why": why,
                "requested_model": question.envelope.model,
                **_leg_keys(step, self.placement.machine),
                "status": answer.status if answer else status,
                "outcome": outcome,
                "first_byte_ms": round(answer.first_byte_ms, 1) if answer else None,
                "total_ms": round(total_ms, 1),
                "bytes_in": len(question.envelope.body),
                "bytes_out": answer.bytes_out if answer else 0,
                "request_sha256": call.sha256,
                "tokens": answer.tokens if answer else None,
            }
        )

    # --- looking in ---------------------------------------------------------------------------------------------

    async def look_in(self, request: Request, caller: Caller) -> None:
        """Metrics and health, on their own port."""
        if request.path == "/metrics":
            self._say(caller, CONTENT_TYPE_LATEST, self.expose())
        elif request.path == "/health":
            self._say(caller, *self.health())
        else:
            self._problem(caller, request, 404, "there is nothing here")

    def health(self) -> tuple[str, bytes]:
        """Alive, with everything that is not as it should be named in `problems`."""
        table = self.table.get()
        problems = [self.table.problem, self.placement.problem, *(log.problem for log in self._logs)]
        told = {
            "status": "ok",
            "pool": self.pool,
            "pid": os.getpid(),
            "draining": self.draining,
            "in_flight": self.admission.requests.used,
            "table_version": table.version,
            "placement": self.live(table).placement,
            "placement_age_s": self.placement.age_s(),
            "breakers_open": self.breakers.names_open(table.overrides),
            "mirror_pending": self.mirror.pending,
            "problems": [problem for problem in problems if problem],
        }
        return JSON, json.dumps(told).encode()

    def expose(self) -> bytes:
        """Prometheus metrics."""
        table = self.table.get()
        self.metrics.in_flight.set(self.admission.requests.used)
        self.metrics.in_flight_bytes.set(self.admission.body_bytes.used)
        self.metrics.draining.set(self.draining)
        self.metrics.table_version.set(table.version)
        self.metrics.table_bad.set(self.table.problem is not None)
        self.metrics.records_written.set(self.requests.written)
        self.metrics.records_lost.set(self.requests.lost)
        age = self.placement.age_s()
        self.metrics.placement_age.set(float("inf") if age is None else age)
        return generate_latest(self.metrics.registry)

    def _say(self, caller: Caller, media: str, content: bytes) -> None:
        caller.answer(200, {"content-type": media}, content, not self.draining)

    def _problem(
        self, caller: Caller, request: Request, status: int, sentence: str, retry_after_s: int = RETRY_AFTER_S
    ) -> None:
        headers = {"content-type": JSON}
        request_id = _request_id(request)
        if request_id:
            headers["x-request-id"] = request_id
        if status in (429, 503, 504):
            headers["retry-after"] = str(retry_after_s)
        kind = "invalid_request" if status < 500 and status != 429 else "unavailable"
        content = json.dumps({"error": {"type": kind, "message": sentence}}).encode()
        caller.answer(status, headers, content, not self.draining)


async def _digest_aside(content: bytes) -> Any:
    return await asyncio.to_thread(hashlib.sha256, content)


def _call(request: Request, route: str, tenant: str, envelope: body.Envelope, started: float, sha256: str) -> Call:
    question = Question(
        route=route,
        request_id=_request_id(request) or os.urandom(16).hex(),
        envelope=envelope,
        content_type=request.header(b"content-type"),
        accept=request.header(b"accept", "*/*"),
    )
    workload = request.header(b"x-workload") or route
    return Call(tenant, workload[:32], "off", question, sha256, started)


def _request_id(request: Request) -> str:
    given = request.header(b"x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else ""


def _steps(decision: Decision) -> list[Step]:
    if decision.leg is None or decision.leg_name is None:
        return []
    first = Step(decision.leg_name, decision.leg, decision.why, decision.fallback is None)
    return [first] if decision.fallback is None else [first, Step("cloud", decision.fallback, "fallback", True, 1)]


def _leg_keys(step: Step | None, machine: Machine) -> dict[str, Any]:
    leg = step.leg if step else None
    what = machine.identity(leg) if step and leg and step.leg_name == "onprem" else leg
    return {
        "model": leg.model if leg else None,
        "version": leg.version if leg else None,
        "engine": leg.engine if leg else None,
        "engine_version": what.engine_version if what else None,
        "gpus": list(leg.gpus) if leg else [],
        "gpu_uuids": list(what.gpu_uuids) if what else [],
    }


def _headers(call: Call, step: Step, answer: Answer) -> dict[str, str]:
    """The answer's head: only what the caller may know; names and addresses inside the site stay inside."""
    headers = {
        "content-type": answer.content_type,
        "x-served-by": step.leg_name,
        "x-model": step.leg.model,
        "x-request-id": call.question.request_id,
    }
    if answer.content_type.startswith(EVENT_STREAM):
        headers["cache-control"] = "no-cache"
    if answer.retry_after:
        headers["retry-after"] = answer.retry_after
    return headers


async def _break_off(caller: Caller, answer: Answer, failure: LegFailedError) -> None:
    """End a broken answer so that nobody takes it for a whole one: an error event in a stream, then no clean end."""
    if answer.content_type.startswith(EVENT_STREAM):
        event = {"error": {"type": "stream_broken", "message": f"the answer is not complete: {failure}"}}
        caller.write(failure.good + b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n")
        with contextlib.suppress(ConnectionError):
            await caller.taken(BREAK_OFF_S)
    caller.break_off()
