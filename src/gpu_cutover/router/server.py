"""The router's HTTP side: read, decide, ask, stream, record. Decisions are in `decide`, the asking in `upstream`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .body import BadBodyError, wants_stream, with_model
from .breaker import Breaker
from .decide import Decision, Live, decide
from .files import TableFile
from .metrics import Metrics
from .mirror import Copy, Mirror
from .placement import POLL_S, PlacementFollower
from .record import RecordLog
from .table import ROUTES, Leg, Table
from .upstream import EVENT_STREAM, PATIENCE_S, Answer, LegFailedError, Question, ask, new_session

MAX_BODY_BYTES = 256 * 1024 * 1024  # the edge enforces the site's limit per route; this only bounds memory
MAX_COPY_BYTES = 8 * 1024 * 1024
RETRY_AFTER_S = 15
FLUSH_S = 0.2
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(slots=True)
class Call:
    """One request on its way: what is needed for its records."""

    tenant: str
    workload: str
    state: str
    question: Question
    sha256: str
    started: float  # perf_counter


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt that may be made, in order."""

    leg_name: str
    leg: Leg
    why: str
    last: bool


class Router:
    """State of one router process and its handlers."""

    def __init__(self, table: TableFile, log_dir: Path, log_key: Path | None = None) -> None:
        self.table = table
        self.pool = table.get().pool
        self.metrics = Metrics(self.pool)
        self.requests = RecordLog(log_dir / f"requests-{self.pool}.jsonl", key=log_key)
        self.comparisons = RecordLog(log_dir / f"comparisons-{self.pool}.jsonl", key=log_key)
        self.placement = PlacementFollower()
        self.breakers: dict[str, Breaker] = {}
        self.session: aiohttp.ClientSession
        self.mirror: Mirror

    # --- life -------------------------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """The data plane: `POST /<route>`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(f"/{{route:{'|'.join(ROUTES)}}}", self.handle)
        app.router.add_post(f"/{{route:{'|'.join(ROUTES)}}}/{{rest:.*}}", self.handle)
        app.router.add_get("/health", self.health)
        app.cleanup_ctx.append(self._running)
        return app

    def metrics_application(self) -> web.Application:
        """Metrics and health, on their own port."""
        app = web.Application()
        app.router.add_get("/metrics", self.expose)
        app.router.add_get("/health", self.health)
        return app

    async def _running(self, _app: web.Application) -> AsyncIterator[None]:
        self.session = new_session()
        self.mirror = Mirror(self.session, self.comparisons, self.metrics, self._mirrored)
        tasks = [asyncio.create_task(self._follow_placement()), asyncio.create_task(self._flush())]
        yield
        await self.mirror.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.session.close()
        self.requests.close()
        self.comparisons.close()

    async def _follow_placement(self) -> None:
        while True:
            source = self.table.get().placement_source
            if source:
                await self.placement.pull(self.session, source)
            await asyncio.sleep(POLL_S)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.requests.flush()
            self.comparisons.flush()

    # --- a request --------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request of one tenant."""
        started = time.perf_counter()
        self.metrics.in_flight.inc()
        try:
            body = await request.read()
            call = _call(request, body, started)
            if call.question.content_type:
                with_model(body, call.question.content_type, "check")
            call.question.streamed = wants_stream(body, call.question.content_type)
            return await self._serve(request, call)
        except BadBodyError as error:
            return _problem(400, str(error), request.headers.get("x-request-id", ""))
        finally:
            self.metrics.in_flight.dec()

    async def _serve(self, request: web.Request, call: Call) -> web.StreamResponse:
        table = self.table.get()
        decision = decide(table, call.tenant, call.question.route, self.live(table))
        call.state = decision.state
        if decision.leg is None:
            self._record(call, None, "refused", "refused", status=503)
            return _problem(503, decision.sentence, call.question.request_id)
        for step in _steps(decision):
            try:
                answer = await self._ask(table, call, step)
            except LegFailedError as failure:
                if not step.last:
                    continue
                status = 504 if failure.outcome == "timeout" else 503
                return _problem(status, "the model did not answer", call.question.request_id)
            return await self._send(request, call, step, answer, decision.mirror)
        raise AssertionError("a decision with a leg has at least one step")

    async def _ask(self, table: Table, call: Call, step: Step) -> Answer:
        budget = PATIENCE_S if step.last else table.fallback.first_byte_s
        onprem = step.leg_name == "onprem"
        started = time.perf_counter()
        if onprem:
            self._breaker(table, step.leg.model).started(time.monotonic())
        try:
            return await ask(self.session, step.leg, call.question, budget, onprem)
        except LegFailedError as failure:
            self._judge(table, step, ok=False)
            self._record(call, step, step.why, failure.outcome, status=failure.status, started=started)
            raise
        except asyncio.CancelledError:
            self._record(call, step, step.why, "client_gone", started=started)
            raise

    async def _send(
        self, request: web.Request, call: Call, step: Step, answer: Answer, mirror: Leg | None
    ) -> web.StreamResponse:
        response = _response(call, step, answer)
        kept: list[bytes] | None = [] if mirror and answer.status == 200 else None
        outcome = "ok" if answer.status < 400 else "refused"
        try:
            await response.prepare(request)
            kept = await self._relay(response, answer, kept)
            await response.write_eof()
        except LegFailedError as failure:
            outcome = failure.outcome
            await _break_off(request, response, answer, str(failure))
        except (ConnectionError, asyncio.CancelledError) as error:
            outcome = "client_gone"
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            answer.close()
            self._judge(self.table.get(), step, ok=outcome not in ("error", "timeout"))
            self._record(call, step, step.why, outcome, answer=answer)
        if mirror and kept and outcome == "ok":
            self._offer(call, mirror, b"".join(kept), answer.content_type)
        return response

    async def _relay(
        self, response: web.StreamResponse, answer: Answer, kept: list[bytes] | None
    ) -> list[bytes] | None:
        async for chunk in answer.chunks():
            await response.write(chunk)
            if kept is not None:
                kept.append(chunk)
                if answer.bytes_out > MAX_COPY_BYTES:
                    kept = None
        return kept

    def _offer(self, call: Call, leg: Leg, cloud_answer: bytes, media: str) -> None:
        cloud_ms = (time.perf_counter() - call.started) * 1000
        self.mirror.offer(Copy(call.tenant, call.workload, call.question, leg, cloud_answer, media, cloud_ms))

    # --- what is known now --------------------------------------------------------------------------------------

    def live(self, table: Table) -> Live:
        """The placement in force and the models whose breaker does not permit a request now."""
        now = time.monotonic()
        closed_to = frozenset(model for model, breaker in self.breakers.items() if not breaker.permits(now))
        return Live(self.placement.name or table.placement, closed_to)

    def _breaker(self, table: Table, model: str) -> Breaker:
        breaker = self.breakers.setdefault(model, Breaker(table.fallback))
        breaker.limits = table.fallback
        return breaker

    def _judge(self, table: Table, step: Step, ok: bool) -> None:
        if step.leg_name == "onprem":
            breaker = self._breaker(table, step.leg.model)
            if breaker.record(time.monotonic(), ok):
                self.metrics.breaker_open.labels(step.leg.model).set(breaker.opened_at is not None)

    # --- records ------------------------------------------------------------------------------------------------

    def _mirrored(self, copy: Copy, answer: Answer | None, outcome: str, total_ms: float) -> None:
        call = Call(copy.tenant, copy.workload, "mirror", copy.question, "", time.perf_counter() - total_ms / 1000)
        call.sha256 = hashlib.sha256(copy.question.body).hexdigest()
        self._record(call, Step("onprem", copy.leg, "mirror", True), "mirror", outcome, answer=answer)

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
        leg_name = step.leg_name if step else None
        question = call.question
        self.metrics.attempts.labels(call.tenant, question.route, leg_name or "none", why, outcome).inc()
        if answer and leg_name:
            self.metrics.first_byte.labels(question.route, leg_name).observe(answer.first_byte_ms / 1000)
            self.metrics.total.labels(question.route, leg_name).observe(total_ms / 1000)
        self.requests.add(
            {
                "t": round(time.time(), 3),
                "request_id": question.request_id,
                "tenant": call.tenant,
                "route": question.route,
                "workload": call.workload,
                "state": call.state,
                "leg": leg_name,
                "why": why,
                "model": step.leg.model if step else None,
                "version": step.leg.version if step else None,
                "gpus": list(step.leg.gpus) if step else [],
                "status": answer.status if answer else status,
                "outcome": outcome,
                "first_byte_ms": round(answer.first_byte_ms, 1) if answer else None,
                "total_ms": round(total_ms, 1),
                "bytes_in": len(question.body),
                "bytes_out": answer.bytes_out if answer else 0,
                "request_sha256": call.sha256,
                "tokens": answer.tokens if answer else None,
            }
        )

    # --- looking in ---------------------------------------------------------------------------------------------

    async def health(self, _request: web.Request) -> web.Response:
        """Alive, with everything that is not as it should be named in `problems`."""
        table = self.table.get()
        problems = [self.table.problem, self.placement.problem, self.requests.problem, self.comparisons.problem]
        return web.json_response(
            {
                "status": "ok",
                "pool": self.pool,
                "table_version": table.version,
                "placement": self.live(table).placement,
                "placement_age_s": self.placement.age_s(),
                "breakers_open": sorted(name for name, one in self.breakers.items() if one.opened_at is not None),
                "mirror_pending": self.mirror.pending,
                "problems": [problem for problem in problems if problem],
            }
        )

    async def expose(self, _request: web.Request) -> web.Response:
        """Prometheus metrics."""
        table = self.table.get()
        self.metrics.table_version.set(table.version)
        self.metrics.table_bad.set(self.table.problem is not None)
        self.metrics.record_lines.set(self.requests.written)
        self.metrics.records_lost.set(self.requests.lost)
        age = self.placement.age_s()
        self.metrics.placement_age.set(float("inf") if age is None else age)
        return web.Response(body=generate_latest(self.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _call(request: web.Request, body: bytes, started: float) -> Call:
    given = request.headers.get("x-request-id", "")
    question = Question(
        route=request.match_info["route"],
        request_id=given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
        body=body,
        content_type=request.headers.get("content-type", ""),
        accept=request.headers.get("accept", "*/*"),
        streamed=False,
    )
    workload = request.headers.get("x-workload", "") or question.route
    digest = hashlib.sha256(body).hexdigest()
    return Call(request.headers.get("x-tenant", ""), workload[:32], "off", question, digest, started)


def _steps(decision: Decision) -> list[Step]:
    if decision.leg is None or decision.leg_name is None:
        return []
    first = Step(decision.leg_name, decision.leg, decision.why, decision.fallback is None)
    return [first] if decision.fallback is None else [first, Step("cloud", decision.fallback, "fallback", True)]


def _response(call: Call, step: Step, answer: Answer) -> web.StreamResponse:
    """The answer's head: only what the caller may know; names and addresses inside the site stay inside."""
    headers = {
        "content-type": answer.content_type,
        "x-served-by": step.leg_name,
        "x-model": step.leg.model,
        "x-request-id": call.question.request_id,
    }
    if answer.content_type.startswith(EVENT_STREAM):
        headers["cache-control"] = "no-cache"
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.content_length
    return response


async def _break_off(request: web.Request, response: web.StreamResponse, answer: Answer, sentence: str) -> None:
    """End a broken answer so that nobody takes it for a whole one: an error event in a stream, then no clean end."""
    with contextlib.suppress(ConnectionError):
        if answer.content_type.startswith(EVENT_STREAM):
            event = {"error": {"type": "stream_broken", "message": f"the answer is not complete: {sentence}"}}
            await response.write(b"\n\nevent: error\ndata: " + json.dumps(event).encode() + b"\n\n")
        if request.transport is not None:
            request.transport.close()


def _problem(status: int, sentence: str, request_id: str) -> web.Response:
    headers = {"x-request-id": request_id} if _REQUEST_ID.fullmatch(request_id) else {}
    if status >= 500:
        headers["retry-after"] = str(RETRY_AFTER_S)
    kind = "invalid_request" if status < 500 else "unavailable"
    return web.json_response({"error": {"type": kind, "message": sentence}}, status=status, headers=headers)
