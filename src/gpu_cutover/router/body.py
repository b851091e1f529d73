"""Request bodies: read once, passed on byte for byte; only what must differ for a leg is replaced. Pure."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON_TYPES = ("application/json",)
# Answers we can rebuild from their stream. Anything else that the request asks for is left to the engine, unstreamed.
FOLDABLE_ROUTES = frozenset({"chat", "reason", "vision"})
UNFOLDABLE_KEYS = ("tools", "functions", "logprobs", "tool_choice", "prompt_logprobs", "audio", "echo")
# What a copy must not carry: an answer to it is never given to anybody, so nothing may be done or kept because of it.
SIDE_EFFECT_KEYS = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "web_search_options", "store"}
)
SIDE_EFFECT_WORDS = ("webhook", "callback")
_EDITED = ("model", "stream", "stream_options")
_SPACE = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')  # without escapes, as nearly all are
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class BadBodyError(ValueError):
    """The request's body is not what its content type says (answered 400; the message is safe to show)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body as it came, and where in it the few values are that may have to differ for a leg.

    `scalars`: the top-level values that are short and plain; of longer ones only whether they are anything.
    """

    body: bytes
    media: str
    insert_at: int  # where a value that is missing is written
    boundary: bytes = b""  # of a multipart body
    spans: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    scalars: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model that the caller named, '' where it named none."""
        name = self.scalars.get("model")
        return name if isinstance(name, str) else ""

    @property
    def streamed(self) -> bool:
        """Did the caller ask for a streamed answer?"""
        wanted = self.scalars.get("stream")
        return wanted is True or (isinstance(wanted, str) and wanted.lower() in ("true", "1"))

    def with_model(self, name: str) -> bytes:
        """The body for a leg that calls its model `name`; every other byte as it came."""
        return self._with({"model": name if self.boundary else json.dumps(name)})

    def as_stream(self, route: str, name: str) -> bytes | None:
        """The same question asked as a stream, or None where the answer could not be folded back.

        A whole answer of 1,000 tokens takes longer than the first-byte budget and is healthy; only a stream shows the
        first token. So the router asks on-prem engines for a stream and hands the caller the whole answer it wanted.
        """
        if route not in FOLDABLE_ROUTES or self.media not in JSON_TYPES or self.scalars.get("stream"):
            return None
        if self.scalars.get("n") not in (None, 1) or any(self.scalars.get(key) for key in UNFOLDABLE_KEYS):
            return None
        return self._with({"model": json.dumps(name), "stream": "true", "stream_options": '{"include_usage": true}'})

    def _with(self, values: Mapping[str, str]) -> bytes:
        edits = [(*span, value.encode()) for name, value in values.items() for span in self.spans.get(name, ())]
        missing = {name: value for name, value in values.items() if name not in self.spans}
        edits.append((self.insert_at, self.insert_at, self._inserted(missing)))
        pieces, position = [], 0
        for start, end, new in sorted(edits):
            pieces += [self.body[position:start], new]
            position = end
        return b"".join([*pieces, self.body[position:]])

    def _inserted(self, values: Mapping[str, str]) -> bytes:
        if self.boundary:
            head = '--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            return "".join(head % (self.boundary.decode(), *value) for value in values.items()).encode()
        members = [f"{json.dumps(name)}: {value}" for name, value in values.items()]
        return ", ".join([*members, ""] if self.scalars else members).encode() if members else b""


@functools.lru_cache(maxsize=256)
def content_type(header: str) -> tuple[str, str]:
    """Media type and multipart boundary ('' where there is none) of a Content-Type header."""
    media, *parameters = header.split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "boundary":
            return media.strip().lower(), value.strip().strip('"')
    return media.strip().lower(), ""


def read(body: bytes, header: str) -> Envelope:
    """Read a request's body by its Content-Type header. Raises BadBodyError."""
    media, boundary = content_type(header)
    if media == "multipart/form-data":
        return _read_multipart(body, boundary)
    if media in JSON_TYPES:
        return _read_json(body)
    raise BadBodyError(f"content type {media or '(none)'} is not served")


def parse_json(body: bytes) -> dict[str, Any]:
    """Decode a JSON object. Raises BadBodyError."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadBodyError("the body is not JSON") from error
    if not isinstance(data, dict):
        raise BadBodyError("the body must be a JSON object")
    return data


def sterile(envelope: Envelope) -> Envelope:
    """The body for a copy: without what could have an effect somewhere; the same object where there is none of it."""
    if envelope.media not in JSON_TYPES or not any(_has_effect(name) for name in envelope.scalars):
        return envelope
    kept = {name: value for name, value in parse_json(envelope.body).items() if not _has_effect(name)}
    return _read_json(json.dumps(kept).encode())


def _has_effect(name: str) -> bool:
    return name in SIDE_EFFECT_KEYS or any(word in name.lower() for word in SIDE_EFFECT_WORDS)


def _read_json(body: bytes) -> Envelope:
    spans: dict[str, list[tuple[int, int]]] = {}
    scalars: dict[str, Any] = {}
    try:
        text = body.decode()
        start = _opening(text)
        for name, value, begin, end in _members(text, start):
            scalars[name] = _short(value)
            if name in _EDITED:
                spans.setdefault(name, []).append((begin, end))
    except (ValueError, RecursionError) as error:
        raise BadBodyError(str(error) if isinstance(error, BadBodyError) else "the body is not JSON") from error
    if not text.isascii():
        spans = {name: [_in_bytes(text, span) for span in found] for name, found in spans.items()}
    return Envelope(body, "application/json", start, b"", spans, scalars)


def _opening(text: str) -> int:
    """Position after the object's brace. JSON before it is white space only, so characters are bytes here."""
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        json.loads(text)
        raise BadBodyError("the body must be a JSON object")
    return at + 1


def _members(text: str, at: int) -> Iterator[tuple[str, Any, int, int]]:
    """Name, value and the value's span of each member of the object that was opened before `at`."""
    at = _after_space(text, at)
    more = text[at : at + 1] != "}"
    while more:
        name, begin = _named(text, at)
        value, end = _DECODER.raw_decode(text, begin)
        yield name, value, begin, end
        comma = _COMMA.match(text, end)
        more = comma is not None
        at = comma.end() if comma else _after_space(text, end)
    if text[at : at + 1] != "}" or _after_space(text, at + 1) != len(text):
        raise ValueError("the object has no clean end")


def _named(text: str, at: int) -> tuple[str, int]:
    """A member's name, and where its value begins."""
    plain = _NAME.match(text, at)
    if plain:
        return plain[1], plain.end()
    name, at = _DECODER.raw_decode(text, at)
    at = _after_space(text, at)
    if not isinstance(name, str) or text[at : at + 1] != ":":
        raise ValueError("a name and a colon are missing")
    return name, _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _in_bytes(text: str, span: tuple[int, int]) -> tuple[int, int]:
    begin = len(text[: span[0]].encode())
    return begin, begin + len(text[span[0] : span[1]].encode())


def _short(value: Any) -> Any:
    """A value small enough to be kept beside the body; a list, an object or a long text becomes whether it is any."""
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 256):
        return value
    return bool(value)


def _read_multipart(body: bytes, boundary: str) -> Envelope:
    """Find the parts `model` and `stream`; every other byte, the audio above all, is not touched."""
    if not boundary:
        raise BadBodyError("multipart body without a boundary")
    delimiter = b"--" + boundary.encode()
    if not body.startswith(delimiter):
        raise BadBodyError("multipart body does not start with its boundary")
    spans: dict[str, list[tuple[int, int]]] = {}
    scalars: dict[str, Any] = {}
    start = len(delimiter)
    while not body.startswith(b"--", start):
        end = body.find(b"\r\n" + delimiter, start)
        if end < 0:
            raise BadBodyError("multipart body is cut short")
        head_end = body.find(b"\r\n\r\n", start, end)
        name = _field_name(body[start:head_end]) if head_end >= 0 else None
        if name in _EDITED:
            spans.setdefault(name, []).append((head_end + 4, end))
            scalars[name] = body[head_end + 4 : min(end, head_end + 260)].decode(errors="replace")
        start = end + 2 + len(delimiter)
    return Envelope(body, "multipart/form-data", 0, boundary.encode(), spans, scalars)


def _field_name(head: bytes) -> str | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() != b"content-disposition":
            continue
        for parameter in value.split(b";"):
            key, _, text = parameter.strip().partition(b"=")
            if key.lower() == b"name":
                return text.strip(b'"').decode(errors="replace")
    return None
