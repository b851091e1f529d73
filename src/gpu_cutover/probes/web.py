"""JSON over HTTP with a hard time-out, no proxy and no redirect surprises; standard library only."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_json(url: str, timeout_s: float = 3.0, limit_bytes: int = 32_000_000) -> Any:
    """The answer's JSON. Raises OSError with the reason for anything but a good answer in time."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return json.loads(answer.read(limit_bytes))
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: HTTP {error.code}") from error
    except (http.client.HTTPException, ValueError, urllib.error.URLError) as error:
        raise OSError(f"{url}: {error}") from error


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """True when the address answers 200 in time; every error is False."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def query(base: str, path: str, **parameters: str) -> str:
    """An address with its parameters encoded."""
    return f"{base.rstrip('/')}{path}?{urllib.parse.urlencode(parameters)}"
