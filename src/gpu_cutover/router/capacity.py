"""How many sessions hold at once: a bounded load on one on-prem leg, measured at the stream. Standard library only."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

NOTE_TOKENS = 400  # the plan's SOAP note
# A made-up consultation of the length that a note is written from; no patient's words.
TURN = "Doctor: how have you been? Patient: a cough for three days, no fever, I sleep badly and take nothing for it. "
TRANSCRIPT = TURN * 40


def run(leg: Mapping[str, Any], soap: int, chat: int, tokens: int, timeout_s: float) -> dict[str, Any]:
    """`soap` notes and `chat` chats at the same moment, `tokens` each. Returns the sessions by kind.

    A session is `{ok, first_byte_s, per_token_s, note_s, error}`; `note_s`: what a whole note would take at this pace.
    """
    kinds = ["soap"] * soap + ["chat"] * chat
    with ThreadPoolExecutor(max_workers=max(1, len(kinds))) as pool:
        sessions = list(pool.map(lambda kind: _session(leg, kind, tokens, timeout_s), kinds))
    return {"soap": sessions[:soap], "chat": sessions[soap:]}


def _session(leg: Mapping[str, Any], kind: str, tokens: int, timeout_s: float) -> dict[str, Any]:
    prompt = f"Write a SOAP note.\n{TRANSCRIPT}" if kind == "soap" else "Explain in a few words what a cough is."
    body = {
        "model": leg["model"],
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,  # exactly this many tokens, so that the pace is the engine's and not the text's
    }
    started = time.monotonic()
    try:
        moments = _moments(leg, json.dumps(body), timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"ok": False, "first_byte_s": None, "per_token_s": None, "note_s": None, "error": str(error)}
    first = moments[0] - started
    pace = (moments[-1] - moments[0]) / max(1, len(moments) - 1)
    return {
        "ok": True,
        "first_byte_s": round(first, 4),
        "per_token_s": round(pace, 5),
        "note_s": round(first + NOTE_TOKENS * pace, 3),
        "error": None,
    }


def _moments(leg: Mapping[str, Any], body: str, timeout_s: float) -> list[float]:
    """When each piece of text arrived. Raises OSError or ValueError when the stream is not whole."""
    connection = http.client.HTTPConnection(urlsplit(leg["url"]).netloc, timeout=timeout_s)
    try:
        connection.request("POST", leg["path"], body, {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise OSError(f"answered {response.status}")
        moments = []
        for line in response:
            if line.startswith(b"data:") and b'"content"' in line:
                moments.append(time.monotonic())
            elif line.strip() == b"data: [DONE]" and moments:
                return moments
        raise ValueError("the stream was not whole")
    finally:
        connection.close()
