"""Bodies: the model's name changes, nothing else does; a broken stream never folds into a whole answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_cutover.router.body import BadBodyError, read, sterile

BOUNDARY = "----b0und4ry"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b""
    for name, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


JSON = "application/json"


def renamed(body: bytes, header: str, name: str) -> bytes:
    return read(body, header).with_model(name)


def test_the_model_of_a_json_body_is_replaced_and_every_other_byte_stays() -> None:
    body = '{ "x":[1e5, 1.10, "\\u00e9é"],\n "model" : "ä" ,"n": 12345678901234567890}'.encode()
    expected = '{ "x":[1e5, 1.10, "\\u00e9é"],\n "model" : "b" ,"n": 12345678901234567890}'.encode()
    assert renamed(body, "application/json; charset=utf-8", "b") == expected


def test_a_model_named_twice_is_replaced_twice() -> None:
    assert renamed(b'{"model": "a", "model": ["c"]}', JSON, "b") == b'{"model": "b", "model": "b"}'


def test_a_model_inside_another_value_is_not_the_model() -> None:
    body = b'{"messages": [{"model": "a"}], "model": "x"}'
    assert renamed(body, JSON, "b") == b'{"messages": [{"model": "a"}], "model": "b"}'


@pytest.mark.parametrize(("body", "expected"), [(b"{}", b'{"model": "b"}'), (b' { "x":1}', b' {"model": "b",  "x":1}')])
def test_a_missing_model_is_added(body: bytes, expected: bytes) -> None:
    assert renamed(body, JSON, "b") == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(
    data=st.dictionaries(st.text(max_size=6) | st.sampled_from(["model", "stream"]), VALUES, max_size=6),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_any_json_object_reads_as_it_is_but_for_the_model(
    data: dict[str, object], ascii: bool, indent: int | None
) -> None:
    body = json.dumps(data, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(BadBodyError):
            read(body, JSON)
        return
    envelope = read(body, JSON)
    assert json.loads(envelope.with_model("own")) == {**data, "model": "own"}
    asked = envelope.as_stream("chat", "own")
    if asked is not None:
        more = {"model": "own", "stream": True, "stream_options": {"include_usage": True}}
        assert json.loads(asked) == data | more


@given(body=st.binary(max_size=40) | st.text(alphabet='{}[]":,x1 \\', max_size=20).map(str.encode))
def test_what_is_taken_as_an_object_is_one(body: bytes) -> None:
    try:
        read(body, JSON)
    except BadBodyError:
        return
    assert isinstance(json.loads(body), dict)


def test_a_copy_carries_nothing_that_could_have_an_effect() -> None:
    body = json.dumps(
        {
            "messages": [],
            "tools": [{"x": 1}],
            "tool_choice": "auto",
            "store": True,
            "webhook_url": "http://x",
            "on_done_callback": "y",
        }
    ).encode()
    assert json.loads(sterile(read(body, JSON)).body) == {"messages": []}
    plain = read(b'{"messages": []}', JSON)
    assert sterile(plain) is plain


@given(audio=st.binary(max_size=400))
def test_the_audio_of_a_form_is_untouched_byte_for_byte(audio: bytes) -> None:
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + audio:
        return
    assert renamed(form(("file", audio), ("model", b"a")), FORM, "b") == form(("file", audio), ("model", b"b"))


def test_a_missing_model_field_is_added() -> None:
    assert renamed(form(("file", b"x")), FORM, "b") == form(("model", b"b"), ("file", b"x"))


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
        read(body, header)


def test_only_plain_questions_are_asked_as_a_stream() -> None:
    def asked(body: bytes, route: str = "chat") -> bytes | None:
        return read(body, JSON).as_stream(route, "own")

    assert json.loads(asked(b'{"messages": []}') or b"")["stream"] is True
    assert asked(b'{"messages": []}', "embed") is None
    for key in (b'"tools": [1]', b'"n": 2', b'"stream": true', b'"logprobs": true'):
        assert asked(b'{"messages": [], %b}' % key) is None
    assert asked(b'{"messages": [], "tools": [], "n": 1}') is not None


@pytest.mark.parametrize(
    ("body", "header", "streamed"),
    [
        (b'{"stream": true}', JSON, True),
        (b'{"stream": 1}', JSON, False),
        (b'{"stream": null}', JSON, False),
        (form(("stream", b"true"), ("file", b"x")), FORM, True),
        (form(("file", b"stream")), FORM, False),
    ],
)
def test_who_wants_a_stream(body: bytes, header: str, streamed: bool) -> None:
    assert read(body, header).streamed is streamed


def test_the_model_that_the_caller_named_is_known() -> None:
    assert read(b'{"model": "gpt-4o"}', JSON).model == "gpt-4o"
    assert read(form(("model", b"whisper-1"), ("file", b"x")), FORM).model == "whisper-1"
    assert read(b"{}", JSON).model == ""
