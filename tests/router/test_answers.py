"""Answers: nothing incomplete, refused or unreadable is ever called a whole answer."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.router.answers import (
    BrokenAnswerError,
    EventStream,
    RefusedAnswerError,
    UnusableAnswerError,
    check_end,
    check_whole,
    decoded,
    fold,
)

JSON = "application/json"
DONE = b"data: [DONE]\n\n"


def chunk(text: str, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "choices": [choice], **more}).encode() + b"\n\n"


ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
GOOD = ROLE + chunk("Hel") + chunk("lo", "stop") + DONE


@given(cuts=st.lists(st.integers(1, len(GOOD) - 1), max_size=6), end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_passes_byte_for_byte_however_it_is_cut_into_pieces(cuts: list[int], end: bytes) -> None:
    stream = GOOD.replace(b"\n", end)
    places = [0, *sorted(cuts), len(stream)]
    events, passed = EventStream(), b""
    for start, stop in pairwise(places):
        passed += events.feed(stream[start:stop])
    events.end()
    assert passed.rstrip(b"\r\n") == stream.rstrip(b"\r\n")
    assert fold(stream) is not None


def test_only_whole_events_are_passed_on() -> None:
    events = EventStream()
    assert events.feed(chunk("a") + b'data: {"cho') == chunk("a")
    assert events.feed(b'ices": []}\n') == b""
    assert events.feed(b"\n") == b'data: {"choices": []}\n\n'


@pytest.mark.parametrize("before", [b": ping\n\n", ROLE, b'data: {"choices": []}\n\n', b"event: x\n\n"])
def test_what_says_nothing_is_not_the_first_token(before: bytes) -> None:
    events = EventStream()
    events.feed(before)
    assert not events.began
    events.feed(chunk("a"))
    assert events.began


BROKEN = {
    "no event": b"dat{x\n\n",
    "a field nobody knows": b"foo: x\n\n",
    "no JSON": b"data: {broken\n\n",
    "no object": b"data: [1]\n\n",
    "an error": b'data: {"error": {"message": "x"}}\n\n',
    "choices that are none": b'data: {"choices": [1]}\n\n',
    "an end without a reason": DONE,
    "a server's page": b"<html>\n\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_event_is_told_with_what_was_good_before_it(name: str) -> None:
    events = EventStream()
    with pytest.raises(BrokenAnswerError) as told:
        events.feed(chunk("Hel") + BROKEN[name] + chunk("lo", "stop") + DONE)
    assert told.value.good == chunk("Hel")
    assert fold(chunk("Hel") + BROKEN[name] + chunk("lo", "stop") + DONE) is None


def test_a_stream_that_just_ends_is_not_whole() -> None:
    events = EventStream()
    events.feed(chunk("Hel") + chunk("lo", "stop"))
    with pytest.raises(BrokenAnswerError):
        events.end()


def test_an_event_without_end_is_given_up() -> None:
    events = EventStream()
    with pytest.raises(BrokenAnswerError):
        events.feed(b"data: " + b"x" * (5 * 1024 * 1024))


def test_nothing_after_the_end_mark_is_passed_on() -> None:
    events = EventStream()
    assert events.feed(GOOD + b"data: more\n\n") == GOOD
    assert events.done


@pytest.mark.parametrize("code", [400, "429"])
def test_a_refusal_told_in_a_stream_is_a_refusal(code: object) -> None:
    events = EventStream()
    with pytest.raises(RefusedAnswerError) as told:
        events.feed(b"data: " + json.dumps({"error": {"code": code, "message": "no"}}).encode() + b"\n\n")
    assert told.value.status == int(str(code))


def test_a_transcription_stream_names_its_end() -> None:
    events = EventStream()
    events.feed(b'data: {"type": "transcript.text.delta", "delta": "a"}\n\n')
    assert (events.began, events.done) == (True, False)
    events.feed(b'data: {"type": "transcript.text.done", "text": "a"}\n\n')
    assert events.done


def test_a_stream_folds_into_the_answer_it_tells() -> None:
    usage = b'data: {"id": "1", "choices": [], "usage": {"completion_tokens": 2}, "system_fingerprint": "f"}\n\n'
    thought = b'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}\n\n'
    folded = fold(thought + chunk("Hel") + chunk("lo", "stop") + usage + DONE)
    assert folded is not None
    assert folded["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello", "reasoning_content": "hm"},
        "finish_reason": "stop",
    }
    assert (folded["usage"], folded["system_fingerprint"]) == ({"completion_tokens": 2}, "f")


@pytest.mark.parametrize("stream", [DONE, ROLE + b'data: {"error": {"message": "x"}}\n\n' + DONE, b"", chunk("Hel")])
def test_a_broken_stream_never_folds(stream: bytes) -> None:
    assert fold(stream) is None


def test_tokens_of_whole_answers_and_streams() -> None:
    assert check_whole("chat", JSON, b'{"choices": [1], "usage": {"completion_tokens": 3}}') == 3
    assert check_whole("chat", JSON, b'{"choices": [1]}') is None
    events = EventStream()
    events.feed(chunk("a", "stop", usage={"completion_tokens": 7}) + DONE)
    assert events.tokens == 7


@pytest.mark.parametrize(
    ("route", "media", "body"),
    [
        ("chat", JSON, b'{"choices": [{"message": '),
        ("chat", JSON, b"{}"),
        ("chat", JSON, b" \n"),
        ("chat", JSON, b'{"choices": [], "error": null}'),
        ("chat", JSON, b'{"choices": [1], "error": {"message": "x"}}'),
        ("embed", JSON, b'{"data": []}'),
        ("rerank", JSON, b'{"choices": [1]}'),
        ("audio", JSON, b"null"),
        ("audio", "text/plain", b""),
        ("embed", JSON, b'{"data": [' + b"1," * 600_000),
    ],
)
def test_what_is_no_answer_to_its_route(route: str, media: str, body: bytes) -> None:
    with pytest.raises(UnusableAnswerError):
        check_whole(route, media, body)


@pytest.mark.parametrize(
    ("route", "media", "body"),
    [
        ("embed", JSON, b'{"data": [{"embedding": [1]}]}'),
        ("rerank", JSON, b'{"results": [1]}'),
        ("audio", JSON, b'{"text": ""}'),  # silence is an answer
        ("audio", "text/plain", b"the patient"),
        ("embed", JSON, b'{"data": [' + b"1," * 600_000 + b"1]} \n"),
    ],
)
def test_what_is_one(route: str, media: str, body: bytes) -> None:
    check_whole(route, media, body)


def test_the_end_of_a_large_answer_is_looked_at() -> None:
    check_end(JSON, b"]}")
    check_end("audio/wav", b"x")
    with pytest.raises(BrokenAnswerError):
        check_end(JSON, b"0.12, 0.")


def test_answers_as_data() -> None:
    assert decoded(b'{"a": 1}', JSON) == {"a": 1}
    assert decoded(b"words", "text/plain; charset=utf-8") == {"text": "words"}
    assert decoded(b"[1]", JSON) is None
    assert decoded(b"{", JSON) is None
    assert decoded(GOOD, "text/event-stream") is not None
