"""Request and answer bodies: the model's name rewritten, streamed answers folded. Pure, byte-exact where it matters."""

from __future__ import annotations

import json
from typing import Any

JSON_TYPES = ("application/json",)
DONE = b"[DONE]"
# Answers we can rebuild from their stream. Anything else that the request asks for is left to the engine, unstreamed.
FOLDABLE_ROUTES = frozenset({"chat", "reason", "vision"})
UNFOLDABLE_KEYS = ("tools", "functions", "logprobs", "tool_choice")


class BadBodyError(ValueError):
    """The request's body is not what its content type says (answered 400; the message is safe to show)."""


def content_type(header: str) -> tuple[str, str]:
    """Media type and multipart boundary ('' where there is none) of a Content-Type header."""
    media, *parameters = header.split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "boundary":
            return media.strip().lower(), value.strip().strip('"')
    return media.strip().lower(), ""


def parse_json(body: bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises BadBodyError."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadBodyError("the body is not JSON") from error
    if not isinstance(data, dict):
        raise BadBodyError("the body must be a JSON object")
    return data


def with_model(body: bytes, header: str, model: str) -> bytes:
    """The body with its model's name replaced: JSON key or multipart field, added where absent. Raises BadBodyError."""
    media, boundary = content_type(header)
    if media == "multipart/form-data":
        return _multipart_with_model(body, boundary, model)
    if media in JSON_TYPES:
        return json.dumps({**parse_json(body), "model": model}).encode()
    raise BadBodyError(f"content type {media or '(none)'} is not served")


def _multipart_with_model(body: bytes, boundary: str, model: str) -> bytes:
    """Replace or add the part named `model`; every other byte, the audio above all, stays as it came."""
    if not boundary:
        raise BadBodyError("multipart body without a boundary")
    delimiter = b"--" + boundary.encode()
    if not body.startswith(delimiter):
        raise BadBodyError("multipart body does not start with its boundary")
    part = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n"
    start = len(delimiter)
    while not body.startswith(b"--", start):
        end = body.find(b"\r\n" + delimiter, start)
        if end < 0:
            raise BadBodyError("multipart body is cut short")
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end >= 0 and _field_name(body[start:head_end]) == b"model":
            return body[:start] + part + body[end + 2 :]
        start = end + 2 + len(delimiter)
    return delimiter + part + body


def _field_name(head: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() != b"content-disposition":
            continue
        for parameter in value.split(b";"):
            key, _, text = parameter.strip().partition(b"=")
            if key.lower() == b"name":
                return text.strip(b'"')
    return None


def wants_stream(body: bytes, header: str) -> bool:
    """Did the caller ask for a streamed answer?"""
    return content_type(header)[0] in JSON_TYPES and parse_json(body).get("stream") is True


def as_stream(route: str, body: bytes, header: str) -> bytes | None:
    """The same question asked as a stream, or None where the answer could not be folded back.

    A whole answer of 1,000 tokens takes longer than the first-byte budget and is healthy; only a stream shows the first
    token. So the router asks on-prem engines for a stream and hands the caller the whole answer it wanted.
    """
    if route not in FOLDABLE_ROUTES or content_type(header)[0] not in JSON_TYPES:
        return None
    data = parse_json(body)
    if data.get("stream") is True or data.get("n", 1) != 1 or any(data.get(key) for key in UNFOLDABLE_KEYS):
        return None
    return json.dumps({**data, "stream": True, "stream_options": {"include_usage": True}}).encode()


def fold(stream: bytes) -> dict[str, Any] | None:
    """The whole chat answer told by a stream of chat chunks; None when it is broken or was not finished with [DONE]."""
    text: list[str] = []
    answer: dict[str, Any] = {}
    finish: str | None = None
    for line in stream.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == DONE:
            return _whole(answer, "".join(text), finish)
        try:
            chunk = parse_json(data)
        except BadBodyError:
            return None
        if "error" in chunk:
            return None
        answer.update({key: chunk[key] for key in ("id", "created", "model", "usage") if chunk.get(key) is not None})
        for choice in chunk.get("choices") or []:
            text.append((choice.get("delta") or {}).get("content") or "")
            finish = choice.get("finish_reason") or finish
    return None


def _whole(answer: dict[str, Any], text: str, finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {**answer, "object": "chat.completion", "choices": [choice]}
