"""Is an answer one? Streams are read event by event, whole answers by their shape. Pure.

A proxy that calls a truncated answer complete is worse than one that fails: nobody looks again. So nothing leaves the
router as complete that has no end mark, no choice, or a line that no client could read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from .body import content_type

EVENT_STREAM = "text/event-stream"
DONE = b"[DONE]"
MAX_EVENT_BYTES = 4 * 1024 * 1024
# An answer up to this size is decoded to see that it is one; of a larger one only the end is looked at (2 ms a MiB).
MAX_DECODED_BYTES = 1024 * 1024
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_FIELDS = (b"data", b"event", b"id", b"retry")
# Typed events (transcription) name their end instead of sending [DONE].
_TYPED_END = ("transcript.text.done",)
# What a whole answer of a route must hold.
_WHOLE_KEY = {"embed": "data", "rerank": "results", "audio": "text"}


class UnusableAnswerError(ValueError):
    """What came cannot be passed on. `good`: the events of a stream that came before it."""

    good: bytes = b""


class BrokenAnswerError(UnusableAnswerError):
    """It is not an answer. The message says why, without a word of the content."""


class RefusedAnswerError(UnusableAnswerError):
    """The model server refused the request inside an answer that began as a good one. `status`: 400..499."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        super().__init__(f"refused with {status}")


@dataclass(slots=True)
class EventStream:
    """Reads a stream of events as it comes in and says how much of it may be passed on."""

    folding: Fold | None = None  # collects the whole answer, where one is wanted
    began: bool = False  # the first token, or whatever else is an answer, is here
    done: bool = False
    tokens: int | None = None
    _rest: bytes = b""
    _choices: bool = False
    _finished: bool = False

    def feed(self, chunk: bytes) -> bytes:
        """All complete events up to the end of this chunk, as they came; what follows the end mark is dropped.

        Raises UnusableAnswerError at the first event that is none.
        """
        if chunk.find(b"\n\n") == len(chunk) - 2 > 0 and not (self._rest or self.done or b"\r" in chunk):
            self._read(chunk[:-2])  # one event, whole: as engines send them
            return chunk
        held, position = self._rest + chunk, 0
        try:
            for blank in _BLANK_LINE.finditer(held):
                if self.done:
                    break
                self._read(held[position : blank.start()])
                position = blank.end()
            if len(held) - position > MAX_EVENT_BYTES:
                raise BrokenAnswerError("an event is larger than 4 MiB")
        except UnusableAnswerError as error:
            error.good = held[:position]
            raise
        self._rest = held[position:]
        return held[:position]

    def end(self) -> None:
        """The connection said that this was all. Raises BrokenAnswerError when the answer is not whole."""
        if not self.done:
            raise BrokenAnswerError("the stream ended without its end mark")

    def _read(self, event: bytes) -> None:
        payload = _payload(event)
        if payload is None:
            return
        if payload == DONE:
            if self._choices and not self._finished:
                raise BrokenAnswerError("the stream ended without a reason to finish")
            self.done = self.began = True
            return
        data = _object(payload)
        if data.get("error"):
            raise _told_error(data)
        try:
            self._note(data)
        except (AttributeError, TypeError) as error:
            raise BrokenAnswerError("an event has not the shape of an answer") from error
        if self.folding is not None:
            self.folding.add(data)

    def _note(self, data: Mapping[str, Any]) -> None:
        usage = data.get("usage")
        if usage:
            self.tokens = usage.get("completion_tokens", self.tokens)
        choices = data.get("choices")
        if choices is None:
            self.began = True
            self.done = data.get("type") in _TYPED_END
            return
        for choice in choices:
            self._choices = True
            delta = choice.get("delta") or {}
            if choice.get("finish_reason"):
                self._finished = self.began = True
            elif self.began:
                delta.items()  # its shape is looked at in every event
            # A chunk that only names the role is sent before anything was computed: it is no first token.
            elif choice.get("text") or any(value for name, value in delta.items() if name != "role"):
                self.began = True


@dataclass(slots=True)
class Fold:
    """Builds the whole chat answer that a stream of chat chunks tells."""

    answer: dict[str, Any] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": ""})
    choice: dict[str, Any] = field(default_factory=lambda: {"index": 0})
    any_choice: bool = False

    def add(self, data: Mapping[str, Any]) -> None:
        """Take in one chunk. Raises TypeError, AttributeError where it has not the shape of one."""
        self.answer |= {name: value for name, value in data.items() if name != "choices" and value is not None}
        for choice in data.get("choices") or ():
            self.any_choice = True
            for name, value in (choice.get("delta") or {}).items():
                if isinstance(value, str) and name != "role":
                    self.message[name] = self.message.get(name, "") + value
            self.choice |= {name: value for name, value in choice.items() if name != "delta" and value is not None}

    def whole(self) -> dict[str, Any]:
        """The answer. Raises BrokenAnswerError when there was none in the stream."""
        if not self.any_choice:
            raise BrokenAnswerError("the stream has an end mark and no answer")
        choice = {"index": 0, "message": self.message, "finish_reason": None} | self.choice
        return {**self.answer, "object": "chat.completion", "choices": [choice]}


def fold(stream: bytes) -> dict[str, Any] | None:
    """The whole chat answer told by a complete stream; None when it is broken or was not finished."""
    reader = EventStream(Fold())
    try:
        reader.feed(stream)
        reader.end()
        return reader.folding.whole() if reader.folding else None
    except UnusableAnswerError:
        return None


def check_whole(route: str, media: str, body: bytes) -> int | None:
    """Look at a whole answer of status 200. Returns its generated tokens where it tells them.

    Raises BrokenAnswerError when it is not an answer to this route, RefusedAnswerError where it holds a refusal.
    """
    if not body or body.isspace():
        raise BrokenAnswerError("answered 200 with nothing in it")
    if content_type(media)[0] != "application/json":
        return None
    if len(body) > MAX_DECODED_BYTES:
        check_end(media, body)
        return None
    data = _object(body)
    if data.get("error"):
        raise _told_error(data)
    if not data.get(_WHOLE_KEY.get(route, "choices")) and not (route == "audio" and data.get("text") == ""):
        raise BrokenAnswerError("the answer has not the shape of this route's answers")
    usage = data.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def check_end(media: str, tail: bytes) -> None:
    """Look at the end of an answer that is too large to decode. Raises BrokenAnswerError."""
    if content_type(media)[0] == "application/json" and not tail.rstrip().endswith(b"}"):
        raise BrokenAnswerError("the answer ends in the middle")


def decoded(answer: bytes, media: str) -> dict[str, object] | None:
    """An answer as data, for the comparison: JSON as it is, a stream folded, text under `text`; None when broken."""
    kind = content_type(media)[0]
    if kind == EVENT_STREAM:
        return fold(answer)
    if kind == "text/plain":
        return {"text": answer.decode(errors="replace")}
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _payload(event: bytes) -> bytes | None:
    """The data of one event; None of an event without data. Raises BrokenAnswerError at a line that is no field."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = _data_lines(event.splitlines())
    return b"\n".join(lines) if lines else None


def _data_lines(lines: Iterable[bytes]) -> list[bytes]:
    found = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not line or (colon and not name):  # a comment: keeps a connection open, says nothing
            continue
        if name not in _FIELDS:
            raise BrokenAnswerError("a line of the stream is not an event")
        if name == b"data":
            found.append(value.removeprefix(b" "))
    return found


def _object(payload: bytes) -> dict[str, Any]:
    try:
        data = _loads(payload)
    except (ValueError, RecursionError) as error:
        raise BrokenAnswerError("the answer is not JSON") from error
    if not isinstance(data, dict):
        raise BrokenAnswerError("the answer is not a JSON object")
    return data


def _loads(payload: bytes) -> Any:
    """Decode JSON, five times faster than the standard library where it can be. Raises ValueError, RecursionError."""
    try:
        return orjson.loads(payload)
    except ValueError:
        return json.loads(payload)  # what clients read as well: NaN, half a surrogate, integers of any size


def _told_error(data: Mapping[str, Any]) -> UnusableAnswerError:
    """An error told inside an answer: a refusal of the request where its code is 4xx, else a failure of the leg."""
    error = data["error"]
    code = str(error.get("code", "")) if isinstance(error, dict) else ""
    if code.isdigit() and 400 <= int(code) < 500:
        return RefusedAnswerError(int(code), json.dumps({"error": error}).encode())
    return BrokenAnswerError("the leg told an error in the middle of its answer")
