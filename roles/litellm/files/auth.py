"""Who may call this LiteLLM: the users named in LITELLM_CALLERS, on the paths that the router uses.

The instances listen on loopback; the kernel's table of connections says which user holds the other end.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth

PATHS = frozenset({"/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/rerank", "/v1/audio/transcriptions"})
CONNECTIONS = Path("/proc/net/tcp")


def owner(lines: Iterable[str], client_port: int, server_port: int) -> int | None:
    """User id of the socket that goes from `client_port` to `server_port` on this machine, or None."""
    for line in lines:
        columns = line.split()
        if len(columns) < 8 or ":" not in columns[1]:
            continue
        ports = [int(address.rpartition(":")[2], 16) for address in columns[1:3]]
        if ports == [client_port, server_port]:
            return int(columns[7])
    return None


def user_ids(names: str) -> frozenset[int]:
    """The ids of those users that exist."""
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return frozenset(known[name] for name in names.split() if name in known)


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM asks this for every request that is not a health check."""
    if request.url.path not in PATHS or request.client is None:
        raise HTTPException(404, "no such path here")
    port = int(os.environ["LITELLM_PORT"])
    allowed = user_ids(os.environ["LITELLM_CALLERS"])
    if owner(CONNECTIONS.read_text().splitlines(), request.client.port, port) not in allowed:
        raise HTTPException(403, "this user may not call LiteLLM")
    return UserAPIKeyAuth(api_key="caller")
