"""What this gateway's `gpu-cutover-peers` knows of the others, for others on this host. Standard library only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

PORT = 9404
PATIENCE_S = 1.0
SKEW_S = 60.0  # watches of one tenant begin within this on all gateways
Peers = Mapping[str, Mapping[str, Any]]


def peers(port: int = PORT) -> Peers:
    """{gateway: {seen, agrees, problem, summary}}; empty where this is the only gateway, or nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/peers")
        answer = connection.getresponse()
        data = json.loads(answer.read()) if answer.status == 200 else {}
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return data if isinstance(data, dict) else {}


def watched_elsewhere(known: Peers, tenant: str, since: float) -> int:
    """On-prem requests of a tenant that the other gateways' watches have seen, of watches that began with this one."""
    watches = (one.get("summary", {}).get("watches", {}).get(tenant, {}) for one in known.values())
    return sum(int(watch["requests"]) for watch in watches if watch and abs(watch["started"] - since) <= SKEW_S)


def compared_elsewhere(known: Peers) -> dict[str, int]:
    """{route: answers compared on the other gateways since their mirror began}."""
    total: dict[str, int] = {}
    for one in known.values():
        for route, count in one.get("summary", {}).get("compared", {}).items():
            total[route] = total.get(route, 0) + int(count)
    return total
