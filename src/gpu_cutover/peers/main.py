"""`gpu-cutover-peers`: answers the other gateways, asks them once a second, takes over what is newer. Standard library.

It also tells the monitor (`/routes`, through the edge's metrics port) what only a gateway knows of its routes, so it
runs on a single gateway too. Between gateways everything goes through their edges: mutual TLS, and only a gateway's own
certificate gets here.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, Refused
from ..router.journal import JOURNAL, Journal
from ..router.orders import Place, carry_out, read_raw
from ..router.table import POOLS
from ..watch import state as watches
from . import decide, metrics
from .told import PORT

PERIOD_S = 1.0
PATIENCE_S = 2.0
LARGEST = 64 * 1024 * 1024
TABLES = Path("/etc/gpu-cutover/router")
LOGS = Path("/var/log/gpu-cutover")
KEYS = Path("/etc/gpu-cutover/peer")
MIRROR = Path("/var/lib/gpu-cutover/mirror.json")
PORTS = {"hybrid": 9402, "sealed": 9403}


class Own:
    """What this gateway says of itself."""

    def __init__(self, place: Place, watch_directory: Path = watches.DIRECTORY, mirror: Path = MIRROR) -> None:
        self.place = place
        self._watches, self._mirror = watch_directory, mirror
        self._lock = threading.Lock()
        self._since, self._compared = -1.0, dict[str, int]()
        self._tail = watches.Tail(place.records / "comparisons-hybrid.jsonl", None)

    def tables(self) -> dict[str, dict[str, Any]]:
        """{pool: table}; raises InputError for a file that is no JSON, OSError."""
        return {pool: raw for pool in POOLS if (raw := read_raw(self.place.table(pool))) is not None}

    def summary(self) -> dict[str, Any]:
        """What the others ask for every second."""
        return {
            "digests": {pool: decide.digest(raw) for pool, raw in self.tables().items()},
            "watches": self._watched(),
            "compared": self._counted(),
        }

    def watched(self) -> list[dict[str, Any]]:
        """The state of each tenant's latest watch."""
        return [state for path in sorted(self._watches.glob("*.json")) if (state := watches.read(path))]

    def _watched(self) -> dict[str, dict[str, Any]]:
        return {
            state["tenant"]: {"started": state["started"], "requests": (state["counts"] or {}).get("requests", 0)}
            for state in self.watched()
        }

    def _counted(self) -> dict[str, int]:
        """Answers compared since the mirror began here, by route."""
        try:
            since = float(json.loads(self._mirror.read_bytes())["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        with self._lock:
            if since != self._since:  # another mirror: counted from the beginning
                self._since, self._compared = since, {}
                self._tail = watches.Tail(self._tail.path, None)
            for record in self._tail.lines():
                if "entry" not in record and float(record.get("t", 0)) >= since:
                    route = str(record.get("route"))
                    self._compared[route] = self._compared.get(route, 0) + 1
            return dict(self._compared)


class Peer:
    """Another gateway: one kept connection, what it last said, and what is taken over from it."""

    def __init__(self, name: str, connection: http.client.HTTPConnection, own: Own) -> None:
        self.name, self._own, self._connection = name, own, connection
        self._settling = decide.Settling()
        self.known: dict[str, Any] = {"seen": None, "agrees": None, "problem": "not asked yet", "summary": {}}

    def look(self, now: float) -> None:
        """Ask once; take over what is later and stayed so."""
        try:
            summary = self._get("/peer/summary")
            agrees = True
            for pool, raw in self._own.tables().items():
                if summary["digests"].get(pool) == decide.digest(raw):
                    self._settling.over(pool)
                else:
                    agrees = self._take_over(pool, raw, now) and agrees
            self.known = {"seen": now, "agrees": agrees, "problem": "", "summary": summary}
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException, InputError, Refused) as error:
            self._connection.close()
            self.known = {**self.known, "agrees": None, "problem": f"{type(error).__name__}: {error}"}

    def _take_over(self, pool: str, raw: dict[str, Any], now: float) -> bool:
        """Take over what is later there, once it has settled. Whether the tables are alike now."""
        theirs = self._get(f"/peer/tables/{pool}")
        id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-peer-{self.name}-{pool}"
        order = decide.order_for(raw, theirs, self.name, id)
        if order is None:
            self._settling.over(pool)
            return False
        if not self._settling.settled(pool, decide.digest(theirs), now):
            return False
        told = carry_out(order, self._own.place)
        self._settling.over(pool)
        print(f"{pool}: {order.reason}: {json.dumps(told['after'], sort_keys=True)}", flush=True)
        return decide.digest(self._own.tables()[pool]) == decide.digest(theirs)

    def _get(self, path: str) -> Any:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read(LARGEST)
        if answer.status != 200:
            raise ConnectionError(f"{path} is answered with {answer.status}")
        return json.loads(body)


class EdgeConnection(http.client.HTTPSConnection):
    """HTTPS to an address whose certificate carries another name: the edge's."""

    def __init__(self, host: str, port: int, server_name: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=PATIENCE_S, context=tls)
        self._tls, self._server_name = tls, server_name

    def connect(self) -> None:
        """Connect to the address, believe the name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def answers(own: Own, peers: Sequence[Peer]) -> type[http.server.BaseHTTPRequestHandler]:
    """The handler of the loopback port: /peer/… for the other gateways, /peers for this host, /routes for monitors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 75

        def do_GET(self) -> None:
            """Answer with JSON; `/routes` with metrics."""
            try:
                if self.path == "/routes":
                    return self._send(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics())
                status, told = 200, self._told()
            except KeyError:
                status, told = 404, {}
            except (OSError, InputError) as error:
                status, told = 503, {"error": str(error)}
            return self._send(status, "application/json", json.dumps(told))

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _metrics(self) -> str:
            known = {peer.name: peer.known for peer in peers}
            return metrics.exposition(known, Journal(own.place.journal).unrecorded(), own.watched())

        def _told(self) -> Any:
            if self.path == "/peers":
                return {peer.name: peer.known for peer in peers}
            if self.path == "/peer/summary":
                return own.summary()
            folder, _, pool = self.path.rpartition("/")
            if folder != "/peer/tables":
                raise KeyError(self.path)
            return decide.shared_part(own.tables()[pool])

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: once a second."""

    return Handler


def main(argv: Sequence[str] | None = None) -> int:
    """Serve and ask until ended."""
    parser = argparse.ArgumentParser(prog="gpu-cutover-peers", description=__doc__)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=ADDRESS:PORT")
    parser.add_argument("--server-name", required=True, help="the name in every edge's certificate")
    parser.add_argument("--keys", type=Path, default=KEYS)
    parser.add_argument("--port", type=int, default=PORT)
    arguments = parser.parse_args(argv)
    os.umask(0o002)
    own = Own(Place(TABLES, JOURNAL, LOGS, PORTS))
    tls = _own_tls(arguments.keys) if arguments.peer else ssl.create_default_context()
    peers = []
    for name, _, address in (text.partition("=") for text in arguments.peer):
        host, _, port = address.rpartition(":")
        peers.append(Peer(name, EdgeConnection(host, int(port), arguments.server_name, tls), own))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), answers(own, peers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        began = time.monotonic()
        for peer in peers:
            peer.look(time.time())
        time.sleep(max(0.0, PERIOD_S - (time.monotonic() - began)))


def _own_tls(keys: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=str(keys / "ca.pem"))
    tls.load_cert_chain(keys / "peer.pem")
    return tls


if __name__ == "__main__":
    sys.exit(main())
