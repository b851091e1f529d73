"""Routers, stand-ins and callers in one event loop, and what a group of cells did there.

All cells of one fault run at the same time: most of them wait for a budget to run out. Each is reported by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpu_cutover.router import mirror, upstream
from gpu_cutover.router.comparing import Comparer, Pair
from gpu_cutover.router.files import TableFile
from gpu_cutover.router.inbound import Listener
from gpu_cutover.router.server import Router
from gpu_cutover.router.table import Table, Tenant, parse_table
from gpu_cutover.router.upstream import Budgets

from ..tables import table, tenant
from .client import Got, ask
from .faulty import Faulty

# Small, and yet long enough that a good answer never takes as long on a machine that has something else to do.
FIRST_BYTE_S = 1.5
BUDGETS = Budgets(patience_s=2.0, stall_s=1.5, connect_s=1.0, read_s=20.0, write_s=20.0, copy_s=20.0)
PATIENT = Budgets(patience_s=20.0, stall_s=20.0, connect_s=5.0, read_s=20.0, write_s=20.0, copy_s=40.0)
STATES = ("cloud", "mirror", "onprem")
ROUTE = {"chat": "chat", "chat_stream": "chat", "embed": "embed", "audio": "audio"}
UNREACHABLE = ("connect_refused", "tls_failure", "dns_failure")
BIG = 25_000_000
# Much to compute: few at once, and no budget that could run out.
HEAVY = ("body_25mb", "slow_client")
AT_ONCE = {"body_25mb": 1, "slow_client": 6, "silent": 48, "slow_headers": 48, "slow_body": 48, "stalled": 48}
QUIET_S = 20.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix."""

    fault: str
    policy: str
    state: str
    kind: str

    def __str__(self) -> str:
        return f"{self.fault}-{self.policy}-{self.state}-{self.kind}"


@dataclass
class Seen:
    """What happened in one request of a cell."""

    got: Got | None
    records: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)  # by leg
    request_id: str = ""
    sha256: dict[str, str] = field(default_factory=dict)  # of the body as it arrived, by leg
    shadow: bool = False  # the on-prem leg was told that it is one
    let_go: bool = False  # the leg with the fault noticed that the router left


@dataclass
class Outcome:
    """What a cell's group saw, and what was left behind when it was over."""

    requests: dict[str, Seen]  # primary; mirror cells also copy; sensitive ones also forged
    cloud_dials: int  # connections that reached the cloud which only this policy's routers could dial
    onprem_dials: int
    leaks: list[str]


async def addresses(host: str) -> list[str]:
    """Of loopback only; any other name is unknown, as the system says it."""
    if host != "127.0.0.1":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [host]


class Forged:
    """A table that validation would refuse, in force all the same."""

    problem = None

    def __init__(self, forged: Table) -> None:
        self._forged = forged

    def get(self) -> Table:
        return self._forged


class Site:
    """The cloud and the engine as the routers of one policy see them, and these routers."""

    def __init__(self, policy: str, directory: Path, comparer: Comparer) -> None:
        self.policy, self.directory, self.comparer = policy, directory, comparer
        self.cloud, self.onprem = Faulty("cloud"), Faulty("onprem")
        self.routers: dict[str, tuple[Router, str]] = {}
        self._stack = contextlib.AsyncExitStack()
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._read: dict[Path, int] = {}

    async def __aenter__(self) -> Site:
        await self._stack.enter_async_context(self.cloud.running())
        await self._stack.enter_async_context(self.onprem.running())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def router(self, name: str, dead: dict[str, str], forged: bool, patient: bool) -> str:
        """Address of the router whose legs named in `dead` have another address. Started when first wanted."""
        if name not in self.routers:
            directory = self.directory / f"{self.policy}-{name}"
            directory.mkdir()
            made = Router(
                self._table(directory, dead, forged, patient),
                directory,
                budgets=PATIENT if patient else BUDGETS,
                resolve=addresses,
                comparer=self.comparer,
            )
            await self._stack.enter_async_context(made.running())
            listener = Listener(made.handle, socket.create_server(("127.0.0.1", 0)))
            listener.start()
            self._stack.push_async_callback(listener.close, 1)
            self.routers[name] = (made, f"http://127.0.0.1:{listener.address[1]}")
        return self.routers[name][1]

    def _table(self, directory: Path, dead: dict[str, str], forged: bool, patient: bool) -> TableFile | Forged:
        urls = {"onprem": self.onprem.url, "cloud": self.cloud.url, **dead}
        states = STATES if self.policy in ("standard", "sensitive") else ("cloud",)
        tenants: dict[str, Any] = {
            state: tenant(self.policy, **dict.fromkeys(("chat", "embed", "audio"), state)) for state in states
        }
        pool = "sealed" if self.policy == "sensitive" and not forged else "hybrid"
        if self.policy == "sensitive":
            tenants = {"onprem": tenants["onprem"]} if not forged else {}
        if self.policy == "unknown":
            tenants = {}
        data = table(pool, urls["onprem"], urls["cloud"], tenants)
        data["fallback"] |= {
            "first_byte_s": PATIENT.patience_s if patient else FIRST_BYTE_S,
            "minimum_requests": 1_000_000,
        }
        if forged:
            routes = {state: dict.fromkeys(("chat", "embed", "audio"), state) for state in STATES}
            known = {state: Tenant("sensitive", routes[state]) for state in STATES}
            return Forged(dataclasses.replace(parse_table(data, "t.json"), tenants=known))
        (directory / "table.json").write_text(json.dumps(data))
        return TableFile(directory / "table.json")

    def records(self, request_id: str) -> list[dict[str, Any]]:
        """The request's records, as they are in the routers' logs."""
        for router, _ in self.routers.values():
            router.requests.flush()
            path = router.requests.path
            lines = path.read_bytes().splitlines() if path.exists() else []
            for line in lines[self._read.get(path, 0) :]:
                record = json.loads(line)
                self._told.setdefault(record.get("request_id", ""), []).append(record)
            self._read[path] = len(lines)
        return self._told.get(request_id, [])


class Rig:
    """All sites, and the groups that ran on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sites: dict[str, Site] = {}
        self.groups: dict[str, dict[Cell, Outcome]] = {}
        self.dead: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        async with contextlib.AsyncExitStack() as stack:
            comparer = Comparer()  # one for all, and there before descriptors are counted
            stack.push_async_callback(comparer.stop)
            await comparer.compare(Pair("text", b"{}", (b"{}", "application/json"), (b"{}", "application/json")))
            for policy in ("standard", "sensitive", "cloud_only", "unknown"):
                self.sites[policy] = await stack.enter_async_context(Site(policy, self.directory, comparer))
            untrusted = await stack.enter_async_context(Faulty("untrusted").running(_own_tls(self.directory)))
            closed = stack.enter_context(socket.socket())
            closed.bind(("127.0.0.1", 0))
            self.dead = {
                "connect_refused": f"http://127.0.0.1:{closed.getsockname()[1]}",
                "tls_failure": untrusted.url,
                "dns_failure": "http://engine.nowhere.invalid",
            }
            yield self

    async def group(self, fault: str, cells: list[Cell]) -> dict[Cell, Outcome]:
        """Run these cells at once, wait until all is quiet, and see what is left."""
        if fault in self.groups:
            return self.groups[fault]
        for cell in cells:  # the routers are there before anything is counted
            await asyncio.gather(*(self._address(cell, name) for name in _requests_of(cell)))
        before = (set(asyncio.all_tasks()), _descriptors())
        dials = {policy: (site.cloud.accepted, site.onprem.accepted) for policy, site in self.sites.items()}
        at_once = asyncio.Semaphore(AT_ONCE.get(fault, 12))
        ran = await asyncio.gather(*(self._cell(cell, at_once) for cell in cells))
        leaks = await self._left(*before)
        outcomes = {}
        for cell, requests in zip(cells, ran, strict=True):
            site = self.sites[cell.policy]
            for name, seen in requests.items():
                self._look(site, cell, name, seen)
            cloud, onprem = dials[cell.policy]
            outcomes[cell] = Outcome(requests, site.cloud.accepted - cloud, site.onprem.accepted - onprem, leaks)
        self.groups[fault] = outcomes
        return outcomes

    async def _cell(self, cell: Cell, at_once: asyncio.Semaphore) -> dict[str, Seen]:
        seen = {}
        for name, fault_leg in _requests_of(cell).items():
            async with at_once:
                url = await self._address(cell, name)
                request_id = f"{fault_leg}.{cell.fault}.{cell.policy}.{cell.state}.{cell.kind}.{name}"
                got = await ask(
                    url,
                    "nobody" if cell.policy == "unknown" else cell.state,
                    request_id,
                    cell.kind,
                    BIG if cell.fault == "body_25mb" else 0,
                    self._gone_when(cell, fault_leg, request_id),
                    cell.fault == "slow_client",
                )
                seen[name] = Seen(got, request_id=request_id)
        return seen

    def _gone_when(self, cell: Cell, leg: str, request_id: str) -> Callable[[], bool] | None:
        """A caller that leaves does so once its question is with the leg; where nobody is asked it stays."""
        asked = cell.policy != "unknown" and (cell.policy != "sensitive" or cell.state == "onprem")
        if cell.fault != "client_gone" or not asked:
            return None
        site = self.sites[cell.policy]
        return lambda: request_id in (site.cloud if leg == "cloud" else site.onprem).seen

    async def _address(self, cell: Cell, name: str) -> str:
        leg = _requests_of(cell)[name]
        forged = name == "forged"
        dead = {leg: self.dead[cell.fault]} if cell.fault in UNREACHABLE and cell.policy != "unknown" else {}
        which = f"{cell.fault}-{leg}" if dead else "well"
        patient = cell.fault in HEAVY
        return await self.sites[cell.policy].router(f"{which}-{forged}-{patient}", dead, forged, patient)

    def _look(self, site: Site, cell: Cell, name: str, seen: Seen) -> None:
        seen.records = site.records(seen.request_id)
        for leg in (site.cloud, site.onprem):
            seen.asked[leg.name] = leg.asked[seen.request_id]
            if seen.request_id in leg.seen:
                seen.sha256[leg.name] = leg.seen[seen.request_id].sha256
        copy = site.onprem.seen.get(seen.request_id)
        seen.shadow = copy is not None and copy.headers.get("x-shadow") == "1"
        faulty = site.cloud if _requests_of(cell)[name] == "cloud" else site.onprem
        seen.let_go = faulty.left_alone[seen.request_id].is_set()

    async def _left(self, tasks: set[asyncio.Task[Any]], descriptors: int) -> list[str]:
        """What did not end by itself: requests, tasks, connections, file descriptors."""
        deadline = asyncio.get_running_loop().time() + QUIET_S
        left = self._remains(tasks, descriptors)
        while left and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            left = self._remains(tasks, descriptors)
        return left

    def _remains(self, tasks: set[asyncio.Task[Any]], descriptors: int) -> list[str]:
        left = [f"task {task.get_name()} {task.get_coro()}" for task in asyncio.all_tasks() - tasks]
        for site in self.sites.values():
            for name, (router, _) in site.routers.items():
                requests, held = router.admission.requests.used, router.admission.body_bytes.used
                if requests or held or router.mirror.pending:
                    left.append(
                        f"{site.policy} {name}: {requests} requests, {held} bytes, {router.mirror.pending} copies"
                    )
        now = _descriptors()
        return left if left or now <= descriptors else [f"{now - descriptors} file descriptors"]


def _requests_of(cell: Cell) -> dict[str, str]:
    """The requests of a cell by name, each with the leg that has the fault."""
    if cell.state == "onprem":
        both = {"primary": "onprem"}
        return {**both, "forged": "onprem"} if cell.policy == "sensitive" else both
    if cell.policy == "sensitive":
        return {"forged": "cloud"}
    if cell.state == "mirror" and cell.policy == "standard" and cell.fault not in ("slow_client", "client_gone"):
        return {"primary": "cloud", "copy": "onprem"}
    return {"primary": "cloud"}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, no paths


def _own_tls(directory: Path) -> ssl.SSLContext:
    """A server whose certificate nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "own.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def small_pools() -> pytest.MonkeyPatch:
    """Few shadow workers a router and short-lived idle connections: many routers live in one process here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(mirror, "WORKERS", 8)
    patch.setattr(upstream, "KEEPALIVE_S", 0.1)
    return patch
