"""Bodies: the model's name changes, nothing else does; a broken stream never folds into a whole answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.router.body import BadBodyError, as_stream, fold, with_model

BOUNDARY = "----b0und4ry"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b""
    for name, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def test_the_model_of_a_json_body_is_replaced() -> None:
    assert json.loads(with_model(b'{"model":"a","x":[1]}', "application/json; charset=utf-8", "b")) == {
        "model": "b",
        "x": [1],
    }


@given(audio=st.binary(max_size=400))
def test_the_audio_of_a_form_is_untouched_byte_for_byte(audio: bytes) -> None:
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + audio:
        return
    assert with_model(form(("file", audio), ("model", b"a")), FORM, "b") == form(("file", audio), ("model", b"b"))


def test_a_missing_model_field_is_added() -> None:
    assert with_model(form(("file", b"x")), FORM, "b") == form(("model", b"b"), ("file", b"x"))


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"x", "text/plain"),
        (b"x", ""),
        (b"--other--", FORM),
        (form(("file", b"x"))[:-20], FORM),
        (b"--x--", "multipart/form-data"),
    ],
)
def test_a_wrong_body_is_told(body: bytes, header: str) -> None:
    with pytest.raises(BadBodyError):
        with_model(body, header, "m")


def test_only_plain_questions_are_asked_as_a_stream() -> None:
    plain = b'{"messages": []}'
    assert json.loads(as_stream("chat", plain, "application/json") or b"")["stream"] is True
    assert as_stream("embed", plain, "application/json") is None
    assert as_stream("chat", b'{"tools": [1]}', "application/json") is None
    assert as_stream("chat", b'{"n": 2}', "application/json") is None
    assert as_stream("chat", b'{"stream": true}', "application/json") is None


def chunk(text: str, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "choices": [choice], **more}).encode() + b"\n\n"


def test_a_stream_folds_into_the_answer_it_tells() -> None:
    usage = b'data: {"id": "1", "choices": [], "usage": {"completion_tokens": 2}}\n\n'
    folded = fold(chunk("Hel") + chunk("lo", "stop") + usage + b"data: [DONE]\n\n")
    assert folded is not None
    assert folded["choices"][0]["message"]["content"] == "Hello"
    assert folded["choices"][0]["finish_reason"] == "stop"
    assert folded["usage"] == {"completion_tokens": 2}


@pytest.mark.parametrize("end", [b"", b"data: {broken\n\n", b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n'])
def test_a_broken_stream_never_folds(end: bytes) -> None:
    assert fold(chunk("Hel") + end) is None
